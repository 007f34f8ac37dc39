"""The sums of a diff as its records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from manifests.commit import CellChanges
from manifests.diff_masks import CHANGED
from manifests.diff_result import (
    BoxChanges,
    DatasetDiff,
    Example,
    ImageChanges,
    MaskChanges,
    Recategorised,
    VerdictChanges,
    VerdictFlip,
)
from manifests.diff_sums import BOX_EVENTS, MASK_EVENTS, VERDICT_EVENTS, GroupedSums, summed

Row = dict[str, Any]  # Any: one value of each column


class DiffSums:
    """What the pairs of shards add up to."""

    def __init__(self) -> None:
        self._images: Counter[str] = Counter()
        self._boxes = GroupedSums(BOX_EVENTS)
        self._masks = GroupedSums(MASK_EVENTS)
        self._verdicts = GroupedSums(VERDICT_EVENTS)

    def add(
        self, images: ImageChanges, boxes: pa.Table, masks: pa.Table, verdicts: pa.Table
    ) -> None:
        """What one pair adds: BOX_EVENTS, MASK_EVENTS and VERDICT_EVENTS."""
        self._images.update(asdict(images))
        self._boxes.add(boxes)
        self._masks.add(masks)
        self._verdicts.add(verdicts)

    def result(
        self,
        before: str,
        after: str,
        *,
        cells: Mapping[str, CellChanges],
        examples: tuple[Example, ...],
    ) -> DatasetDiff:
        """The diff of two commits."""
        boxes, masks, verdicts = self._boxes.total(), self._masks.total(), self._verdicts.total()
        [all_boxes] = _boxes(_together(boxes)) or [BoxChanges()]
        [all_verdicts] = _verdicts(_together(verdicts)) or [VerdictChanges()]
        return DatasetDiff(
            before=before,
            after=after,
            cells=cells,
            images=ImageChanges(**self._images),
            boxes=all_boxes,
            boxes_by_category=tuple(_boxes(_named(boxes))),
            recategorised=_recategorised(boxes),
            masks=tuple(_masks(_together(masks))),
            masks_by_category=tuple(_masks(_named(masks))),
            verdicts=all_verdicts,
            verdicts_by_category=tuple(_verdicts(_named(verdicts))),
            flips=_flips(_together(verdicts)),
            flips_by_category=_flips(_named(verdicts)),
            examples=examples,
        )


def _named(sums: pa.Table) -> pa.Table:
    """Without rows of which nobody knows the category."""
    return sums.filter(pc.is_valid(sums["category"]))


def _together(sums: pa.Table) -> pa.Table:
    """All categories as one, which has no name."""
    place = sums.schema.get_field_index("category")
    nobody = pa.nulls(sums.num_rows, pa.string())
    return summed(sums.set_column(place, sums.schema.field(place), nobody))


def _by_category(sums: pa.Table, *more: str) -> dict[tuple[str | None, ...], list[Row]]:
    """(category, more keys) -> its rows, in the order of names."""
    found: dict[tuple[str | None, ...], list[Row]] = {}
    for row in sums.to_pylist():
        found.setdefault((row["category"], *(row[key] for key in more)), []).append(row)
    return dict(sorted(found.items(), key=lambda item: tuple(part or "" for part in item[0])))


def _kinds(rows: list[Row]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for row in rows:
        counts[row["kind"]] += row["count"]
    return counts


def _boxes(sums: pa.Table) -> list[BoxChanges]:
    found = _by_category(sums)
    return [BoxChanges(category=key[0], **_kinds(rows)) for key, rows in found.items()]


def _recategorised(sums: pa.Table) -> tuple[Recategorised, ...]:
    rows = sums.filter(pc.is_valid(sums["category_before"])).to_pylist()
    found = (
        Recategorised(before=row["category_before"], after=row["category"], count=row["count"])
        for row in rows
    )
    return tuple(sorted(found, key=lambda one: (-one.count, one.before, one.after)))


def _masks(sums: pa.Table) -> list[MaskChanges]:
    return [
        _mask_changes(str(teacher), category, rows)
        for (category, teacher), rows in _by_category(sums, "teacher").items()
    ]


def _mask_changes(teacher: str, category: str | None, rows: list[Row]) -> MaskChanges:
    kinds, changed = _kinds(rows), [row for row in rows if row["kind"] == CHANGED]
    union_px = sum(row["union_px"] for row in changed)
    return MaskChanges(
        teacher=teacher,
        category=category,
        **kinds,
        mean_iou=sum(row["iou"] for row in changed) / kinds[CHANGED] if changed else None,
        moved_share=sum(row["moved_px"] for row in changed) / max(union_px, 1) if changed else None,
    )


def _verdicts(sums: pa.Table) -> list[VerdictChanges]:
    found = _by_category(sums)
    return [VerdictChanges(category=key[0], **_kinds(rows)) for key, rows in found.items()]


def _flips(sums: pa.Table) -> tuple[VerdictFlip, ...]:
    """The most frequent first."""
    rows = sorted(
        sums.to_pylist(), key=lambda row: (-row["count"], *(str(row[key]) for key in _FLIP_KEYS))
    )
    return tuple(VerdictFlip(**row) for row in rows)


_FLIP_KEYS = [name for name in VERDICT_EVENTS.names if name != "count"]
