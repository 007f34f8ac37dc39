"""The difference of two commits, down to single masks: what came, what went, what moved, and why.

Cells that both commits have are never compared, and nothing is read of them, with one exception: to
name the categories of rows that changed, the column `category` of their shard's boxes.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from threading import Semaphore

import pyarrow as pa

from manifests import schemas
from manifests.dataset import Dataset
from manifests.diff_boxes import box_events, image_changes
from manifests.diff_examples import EXAMPLES, ExampleHeap, flip_examples, mask_examples
from manifests.diff_masks import mask_events
from manifests.diff_records import DiffSums
from manifests.diff_result import DatasetDiff, ImageChanges
from manifests.diff_rows import AlignedPair
from manifests.diff_shards import ShardPair, shard_pairs
from manifests.diff_sums import BOX_EVENTS, MASK_EVENTS, VERDICT_EVENTS, summed
from manifests.diff_verdicts import verdict_events
from manifests.errors import InputError
from manifests.in_parallel import in_parallel, threads_for
from manifests.three_way import cell_changes

Progress = Callable[[int, int], None]
"""(pairs of shards done, pairs of shards to do)."""

# Masks are large: so many shards' are in memory at once.
_NUM_MASKS_CELLS = 2
_MASKS = schemas.masks_layer("")


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffOptions:
    """What to look at.

    Attributes:
        layers: names of layers to compare; empty: all.
        by_category: False reads nothing at all of cells that did not change; all counts are then
            of all categories together.
        max_examples: how many changed masks to name, and as many of each kind of flipped verdicts.
    """

    layers: tuple[str, ...] = ()
    by_category: bool = True
    max_examples: int = 0

    def __post_init__(self) -> None:
        if self.max_examples < 0:
            raise InputError(f"diff: expected max_examples of at least 0, got {self.max_examples}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What one pair of shards adds; the tables are sums."""

    images: ImageChanges
    boxes: pa.Table
    masks: pa.Table
    verdicts: pa.Table
    examples: pa.Table


def diff(
    a: Dataset,
    b: Dataset,
    *,
    options: DiffOptions | None = None,
    progress: Progress | None = None,
) -> DatasetDiff:
    """What is different in `b`, seen from `a`; the two need not have any history in common.

    Shards are compared one by one, so memory does not grow with the dataset.

    Raises:
        InputError: a layer that neither commit has; the message names the nearest.
        ObjectMissingError, ObjectDamagedError: a cell that must be read cannot be; names it.
    """
    options = options or DiffOptions()
    layers = _layers(a, b, options)
    pairs = list(shard_pairs(a, b, layers=layers))
    sums = DiffSums()
    heap = ExampleHeap(options.max_examples)
    room = Semaphore(_NUM_MASKS_CELLS)
    work = partial(_compare, a, b, layers=layers, options=options, room=room)
    # In the order of shards, whoever is ready first: sums of floats depend on their order.
    results = in_parallel(work, pairs, num_threads=threads_for(b.store))
    for number, found in enumerate(results, start=1):
        sums.add(found.images, found.boxes, found.masks, found.verdicts)
        heap.add(found.examples)
        if progress:
            progress(number, len(pairs))
    cells = cell_changes(a.manifest, b.manifest)
    return sums.result(
        a.commit_id,
        b.commit_id,
        cells={layer: cells[layer] for layer in cells if layer in layers},
        examples=heap.chosen(),
    )


def _layers(a: Dataset, b: Dataset, options: DiffOptions) -> frozenset[str]:
    """The layers to compare."""
    there = sorted({*a.manifest.layers(), *b.manifest.layers()})
    for layer in options.layers:
        if layer not in there:
            near = difflib.get_close_matches(layer, there, n=1, cutoff=0.0)
            hint = f"the nearest is '{near[0]}'" if near else "neither has any"
            raise InputError(
                f"diff: neither commit {a.commit_id[:12]} nor {b.commit_id[:12]} has a layer "
                f"'{layer}'; {hint}"
            )
    return frozenset(options.layers or there)


def _compare(
    a: Dataset,
    b: Dataset,
    pair: ShardPair,
    *,
    layers: frozenset[str],
    options: DiffOptions,
    room: Semaphore,
) -> _Found:
    aligned = AlignedPair(a, b, pair, by_category=options.by_category)
    wanted = {layer for layer in layers if aligned.can_differ(layer)}
    with room:
        masks, masks_seen = _masks(aligned, sorted(wanted), options.max_examples)
    verdicts, flips_seen = VERDICT_EVENTS.empty_table(), EXAMPLES.empty_table()
    if schemas.VERDICTS in wanted:
        verdicts, flips_seen = _verdicts(aligned, options.max_examples)
    boxes = box_events(aligned) if schemas.BOXES in wanted else BOX_EVENTS.empty_table()
    return _Found(
        images=image_changes(aligned)
        if wanted.intersection(schemas.IMAGE_LAYERS)
        else ImageChanges(),
        boxes=summed(boxes),
        masks=summed(masks),
        verdicts=summed(verdicts),
        examples=pa.concat_tables([masks_seen, flips_seen]),
    )


def _masks(aligned: AlignedPair, layers: list[str], limit: int) -> tuple[pa.Table, pa.Table]:
    """MASK_EVENTS and EXAMPLES of all masks layers."""
    found, seen = [MASK_EVENTS.empty_table()], [EXAMPLES.empty_table()]
    for layer in layers:
        if layer.startswith(_MASKS):
            events, paired = mask_events(aligned, layer)
            found.append(summed(events))
            if paired and limit:
                seen.append(mask_examples(aligned, layer, paired, limit))
    return pa.concat_tables(found), pa.concat_tables(seen)


def _verdicts(aligned: AlignedPair, limit: int) -> tuple[pa.Table, pa.Table]:
    """VERDICT_EVENTS and EXAMPLES."""
    one_sided, flipped = verdict_events(aligned)
    seen = flip_examples(aligned, flipped, limit) if limit else EXAMPLES.empty_table()
    return pa.concat_tables([one_sided, flipped.events]), seen
