"""Which images of a dataset the images of an answer file are, and in which shards they lie."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from engine.confidence.drawn import DrawnImage
from manifests import schemas
from manifests.dataset import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundImages:
    """What an answer file's images are.

    Attributes:
        ids: for each of its images the id, or None.
        by_shard: shard -> ids of images that it holds; a picture may be in several.
    """

    ids: tuple[str | None, ...]
    by_shard: dict[str, set[str]]


def find_drawn(dataset: Dataset, drawn: Sequence[DrawnImage]) -> FoundImages:
    """By the id that came along, else by the id in the file's name, else by its source's name.

    A source's file name counts if just one image has it: whole, or else without its folders. Looks
    through every shard's index, a few columns of it.

    Raises:
        ObjectMissingError, ObjectDamagedError: an index cannot be read.
    """
    wanted = {name for image in drawn for name in image.possible_ids()}
    names = _Names(image.file_name for image in drawn)
    shards_of: dict[str, set[str]] = defaultdict(set)
    for cell in dataset.manifest.of_layer(schemas.IMAGE_INDEX):
        columns = ["image_id", "file_name", "origins"] if names else ["image_id"]
        index = dataset.table(cell.shard, cell.layer, columns=columns)
        named = names.look(index) if names else set()
        ids = index["image_id"]
        is_here = pc.is_in(ids, pa.array(sorted(wanted | named), pa.string()))
        for image_id in ids.filter(is_here).to_pylist():
            shards_of[image_id].add(cell.shard)
    found = tuple(_id_of(image, shards_of, names) for image in drawn)
    by_shard: dict[str, set[str]] = defaultdict(set)
    for image_id in {*found} - {None}:
        for shard in shards_of[str(image_id)]:
            by_shard[shard].add(str(image_id))
    return FoundImages(ids=found, by_shard=dict(by_shard))


def _id_of(image: DrawnImage, shards_of: dict[str, set[str]], names: _Names) -> str | None:
    known = next((name for name in image.possible_ids() if name in shards_of), None)
    return known or names.only(image.file_name)


class _Names:
    """File names that are looked for, and the images that have them."""

    def __init__(self, wanted: Iterable[str]) -> None:
        self._found: dict[str, set[str]] = {}
        for name in wanted:
            for text in (name, PurePosixPath(name).name):
                if text:
                    self._found[text] = set()

    def __bool__(self) -> bool:
        return bool(self._found)

    def look(self, index: pa.Table) -> set[str]:
        """Takes note of a shard's images; gives those that have one of the names."""
        hits: set[str] = set()
        for row in index.select(["image_id", "file_name", "origins"]).to_pylist():
            for name in {row["file_name"], *(origin["file_name"] for origin in row["origins"])}:
                for text in {name, PurePosixPath(name).name}:
                    if text in self._found:
                        self._found[text].add(row["image_id"])
                        hits.add(row["image_id"])
        return hits

    def only(self, name: str) -> str | None:
        """The one image of that name, whole or without its folders; None if none or several."""
        for text in (name, PurePosixPath(name).name):
            found = self._found.get(text, set())
            if len(found) == 1:
                return next(iter(found))
        return None
