"""Which shard of one commit a diff compares with which of the other, and which of their images.

A shard that both commits have is compared with itself. A takedown writes a shard again without some
images, so where both sides have shards of their own, these are compared image by image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests import schemas
from manifests.dataset import Dataset
from manifests.diff_side import Ints, Side
from manifests.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPair:
    """Images to compare, or images that only one side has.

    Attributes:
        before, after: shards; None: nothing on that side.
        images_before, images_after: rows of their `image_index`, row i of one with row i of the
            other; None: all of them.
    """

    before: str | None
    after: str | None
    images_before: Ints | None = None
    images_after: Ints | None = None

    @property
    def is_same_shard(self) -> bool:
        """Whether rows of cells that are equal are aligned by position."""
        return self.before == self.after


def shard_pairs(a: Dataset, b: Dataset, *, layers: frozenset[str]) -> Iterator[ShardPair]:
    """Every image of both commits once, but those of shards whose `layers` do not differ.

    Ids of images are read only where both commits have shards that the other lacks; those of all
    these shards are then held at once (about 100 bytes an image).

    Raises:
        ObjectMissingError, ObjectDamagedError: an `image_index` that must be read cannot be.
    """
    old, new = _objects(a.manifest, layers), _objects(b.manifest, layers)
    for shard in new:
        if shard in old and old[shard] != new[shard]:
            yield ShardPair(before=shard, after=shard)
    gone = [shard for shard in old if shard not in new]
    come = [shard for shard in new if shard not in old]
    if gone and come:
        yield from _matched(a, gone, b, come)
        return
    for shard in gone:
        yield ShardPair(before=shard, after=None)
    for shard in come:
        yield ShardPair(before=None, after=shard)


def _objects(manifest: Manifest, layers: frozenset[str]) -> dict[str, dict[str, str]]:
    """Shard -> layer -> object; a shard without any of these layers is there, too."""
    found: dict[str, dict[str, str]] = {shard: {} for shard in manifest.shards()}
    for cell in manifest:
        if cell.layer in layers:
            found[cell.shard][cell.layer] = cell.object_id
    return found


def _matched(
    a: Dataset, gone: Sequence[str], b: Dataset, come: Sequence[str]
) -> Iterator[ShardPair]:
    ids_a, first_a = _image_ids(a, gone)
    ids_b, first_b = _image_ids(b, come)
    partner = pc.index_in(ids_b, value_set=ids_a).fill_null(-1).to_numpy().astype(np.int64)
    partner = _first_use_only(partner)
    for number, shard in enumerate(come):
        mine = partner[first_b[number] : first_b[number + 1]]
        home = np.searchsorted(first_a, mine, side="right") - 1  # -1: nobody's
        for other in np.unique(home[home >= 0]).tolist():
            rows = np.flatnonzero(home == other)
            yield ShardPair(
                before=gone[other], after=shard,
                images_before=mine[rows] - first_a[other], images_after=rows,
            )  # fmt: skip
        rest = np.flatnonzero(home < 0)
        if rest.size or not mine.size:
            rows_or_all = rest if rest.size < mine.size else None
            yield ShardPair(before=None, after=shard, images_after=rows_or_all)
    is_used = np.zeros(len(ids_a), dtype=bool)
    is_used[partner[partner >= 0]] = True
    for number, shard in enumerate(gone):
        used = is_used[first_a[number] : first_a[number + 1]]
        if not used.all() or not used.size:
            rows_or_all = np.flatnonzero(~used) if used.any() else None
            yield ShardPair(before=shard, after=None, images_before=rows_or_all)


def _image_ids(dataset: Dataset, shards: Sequence[str]) -> tuple[pa.ChunkedArray, Ints]:
    """The ids of all images, and [shards + 1] where each shard's begin."""
    chunks = [
        Side(dataset, shard).read(schemas.IMAGE_INDEX, ["image_id"])["image_id"] for shard in shards
    ]
    first = np.cumsum([0, *(len(chunk) for chunk in chunks)], dtype=np.int64)
    joined = pa.chunked_array([piece for chunk in chunks for piece in chunk.chunks], pa.string())
    return joined, first


def _first_use_only(partner: Ints) -> Ints:
    """A picture that is in two shards of one side has one partner, not two."""
    _, first = np.unique(partner, return_index=True)
    is_first = np.zeros(len(partner), dtype=bool)
    is_first[first] = True
    return np.where(is_first, partner, -1)
