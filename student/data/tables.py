"""All datasets of a mix as two tables and what is to be known beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from manifests.in_parallel import in_parallel, threads_for
from manifests.schemas import IMAGE_INDEX
from student.data.judged import Origin, federated_origins, known_categories
from student.data.mix import MixedDataset
from student.data.read_shard import read_shard
from student.data.rows import (
    ANNOTATIONS_SCHEMA,
    IMAGES_SCHEMA,
    QUARANTINED,
    ReadOptions,
    ShardRows,
    cut,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the tables refer to, and what is not in them. Plain values, for JSON.

    Attributes:
        shards: (place of the dataset in the mix, shard id), by `shard`.
        datasets: the first image of each dataset, and the number of all images.
        known: for each `origin` the numbers of the categories that its sources label.
        skipped: why images and boxes were left out -> how many.
        dropped: why boxes are taught without a mask -> how many.
        num_masks: of all targets.
    """

    shards: list[tuple[int, str]]
    datasets: list[int]
    known: list[list[int]]
    skipped: dict[str, int]
    dropped: dict[str, int]
    num_masks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """See IMAGES_SCHEMA and ANNOTATIONS_SCHEMA."""

    images: pa.Table
    annotations: pa.Table
    facts: Facts


@dataclass(slots=True, kw_only=True)
class _Growing:
    """Tables under construction."""

    images: list[pa.Table] = field(default_factory=list)
    annotations: list[pa.Table] = field(default_factory=list)
    shards: list[tuple[int, str]] = field(default_factory=list)
    datasets: list[int] = field(default_factory=list)
    known: list[list[int]] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    num_images: int = 0
    num_targets: int = 0
    num_masks: int = 0


def read_tables(mix: Sequence[MixedDataset], options: ReadOptions) -> Tables:
    """The tables of a mix, in the order of the mix and of each commit.

    Raises:
        RefError: a shard lacks its verdicts or masks.
        StoreError: a cell cannot be read, or contradicts another.
    """
    made = _Growing()
    for place, one in enumerate(mix):
        made.datasets.append(made.num_images)
        _add_dataset(made, place, one, options)
    made.datasets.append(made.num_images)
    return Tables(
        images=pa.concat_tables([IMAGES_SCHEMA.empty_table(), *made.images]).combine_chunks(),
        annotations=pa.concat_tables(
            [ANNOTATIONS_SCHEMA.empty_table(), *made.annotations]
        ).combine_chunks(),
        facts=Facts(
            shards=made.shards,
            datasets=made.datasets,
            known=made.known,
            skipped={reason: num for reason, num in sorted(made.skipped.items()) if num},
            dropped=dict(sorted(made.dropped.items())),
            num_masks=made.num_masks,
        ),
    )


def _add_dataset(made: _Growing, place: int, one: MixedDataset, options: ReadOptions) -> None:
    origins: dict[Origin, int] = {}
    pieces, has_lists = [], [np.zeros(0, dtype=bool)]
    for shard, rows in _wanted(made, one, options):
        numbers = [origins.setdefault(origin, len(origins)) for origin in rows.origins]
        images, annotations = _finished(made, rows, np.array(numbers, np.int32))
        made.shards.append((place, shard))
        made.annotations.append(annotations)
        pieces.append(images)
        has_lists.append(rows.has_lists)
    if not pieces:
        return
    images = pa.concat_tables(pieces)
    known = known_categories(one.dataset.commit.categories, origins, categories=options.categories)
    origin_of = np.asarray(images["origin"])
    lists = np.concatenate(has_lists)
    federated = federated_origins(list(origins), lists, origin_of)
    is_federated = lists | federated[origin_of]
    shifted = pa.array(origin_of + np.int32(len(made.known)))
    images = images.set_column(images.schema.get_field_index("origin"), "origin", shifted)
    images = images.append_column("is_federated", pa.array(is_federated.astype(np.uint8)))
    made.images.append(images.select(IMAGES_SCHEMA.names).cast(IMAGES_SCHEMA))
    made.known += [np.flatnonzero(row).tolist() for row in known]


def _wanted(
    made: _Growing, one: MixedDataset, options: ReadOptions
) -> Iterator[tuple[str, ShardRows]]:
    """Shards with the images that `skip_images` and `max_images` leave; reads few others."""
    dataset, source = one.dataset, one.source
    shards = dataset.manifest.shards()
    last = source.skip_images + source.max_images if source.max_images else None
    read = partial(read_shard, dataset, options=options)
    num_seen = 0
    found: Iterable[ShardRows] = in_parallel(read, shards, num_threads=threads_for(dataset.store))
    for shard, rows in zip(shards, found, strict=False):
        made.skipped[QUARANTINED] += rows.num_quarantined
        num = rows.images.num_rows
        start = min(max(source.skip_images - num_seen, 0), num)
        stop = num if last is None else min(max(last - num_seen, 0), num)
        num_seen += num
        made.skipped["image_before_skip_images"] += start
        if stop > start:
            yield shard, cut(rows, start, stop)
        if last is not None and num_seen >= last:
            unread = shards[shards.index(shard) + 1 :]
            cells = (dataset.manifest.get(name, IMAGE_INDEX) for name in unread)
            num_unread = sum(cell.num_rows for cell in cells if cell)
            made.skipped["image_after_max_images"] += num - max(stop, start) + num_unread
            return


def _finished(
    made: _Growing, rows: ShardRows, origin_of: NDArray[np.int32]
) -> tuple[pa.Table, pa.Table]:
    """A shard's images (without `is_federated`) and targets."""
    num_images = rows.images.num_rows
    is_target = rows.fates == ""
    targets = rows.annotations.filter(pa.array(is_target.astype(bool)))
    image_of = rows.image_of[is_target]
    nums = np.bincount(image_of, minlength=num_images)
    first = made.num_targets + np.concatenate([[0], np.cumsum(nums)[:-1]])
    has_human = np.bincount(rows.image_of[rows.is_human], minlength=num_images) > 0
    shard = np.full(num_images, len(made.shards), np.int32)
    images = rows.images
    for name, values in {
        "shard": shard,
        "has_human": has_human.astype(np.uint8),
        "origin": origin_of,
        "first": first.astype(np.int64),
        "num": nums.astype(np.int32),
        "not_judged": _not_judged(rows),
    }.items():
        images = images.append_column(name, pa.array(values, IMAGES_SCHEMA.field(name).type))
    made.skipped.update(_counts(rows.fates))
    made.dropped.update(_counts(rows.dropped[is_target]))
    made.num_images += num_images
    made.num_targets += targets.num_rows
    made.num_masks += int((np.asarray(targets["mask_row"]) >= 0).sum())
    return images, targets


def _not_judged(rows: ShardRows) -> list[list[int]]:
    """For each image: categories of which something is there that is no target."""
    found = [set(numbers) for numbers in rows.not_exhaustive]
    others = np.flatnonzero(rows.fates != "")
    categories = np.asarray(rows.annotations["category"])[others]
    for image, category in zip(rows.image_of[others].tolist(), categories.tolist(), strict=True):
        found[image].add(category)
    return [sorted(numbers) for numbers in found]


def _counts(words: NDArray[np.object_]) -> Counter[str]:
    """How often each word comes, but for ""."""
    return Counter(word for word in words.tolist() if word)
