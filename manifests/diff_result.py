"""What a diff says: frozen records, from the whole down to single rows, ready for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from manifests.commit import CellChanges

KEPT = "kept"
"""The state of a row whose verdict keeps it; a dropped row's state is its drop reason."""

DROPPED = "dropped"
OTHER_MASK = "other_mask"
OTHER_REASON = "other_reason"
JUDGED = "judged"
UNJUDGED = "unjudged"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageChanges:
    """Images; those `quarantined` or `released` are on both sides, but kept away or let in now."""

    added: int = 0
    removed: int = 0
    quarantined: int = 0
    released: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxChanges:
    """Boxes of a category; None: of all.

    Attributes:
        moved: a source's own box (the same source, source id and image) at another place, and so
            with another annotation id; counted in its new category, and not as added or removed.
        recategorised: came from another category.
    """

    category: str | None = None
    added: int = 0
    removed: int = 0
    moved: int = 0
    recategorised: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recategorised:
    """Boxes that were of category `before` and are of category `after`."""

    before: str
    after: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskChanges:
    """Masks of one teacher ("human": of people) and category; None: of all categories.

    Attributes:
        changed: of boxes that have a mask on both sides, and not the same one.
        mean_iou: between old and new, over the changed ones; None if there are none.
        moved_share: pixels that only one of the two has, in all pixels that one of them has,
            summed over the changed ones.
    """

    teacher: str
    category: str | None = None
    added: int = 0
    removed: int = 0
    changed: int = 0
    mean_iou: float | None = None
    moved_share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictChanges:
    """Boxes by what became of their verdict, of one category; None: of all.

    Attributes:
        dropped: were kept.
        kept: were dropped.
        other_mask: kept before and after, but another teacher's mask or another candidate.
        other_reason: dropped before and after, for another reason.
        judged: had no verdict, or the box is new.
        unjudged: have no verdict any more, or the box is gone.
    """

    category: str | None = None
    dropped: int = 0
    kept: int = 0
    other_mask: int = 0
    other_reason: int = 0
    judged: int = 0
    unjudged: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictFlip:
    """How often one state became another.

    Attributes:
        kind: a field of VerdictChanges.
        before, after: "kept", a drop reason, or None for no verdict.
        teacher_before, teacher_after: whose mask was judged, if there was one.
    """

    kind: str
    category: str | None
    before: str | None
    after: str | None
    teacher_before: str | None
    teacher_after: str | None
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One box whose mask or verdict changed, by its rows in the two commits.

    Attributes:
        layer: `masks/<teacher>`, or `verdicts`.
        kind: "changed", "added" or "removed" for a mask; a field of VerdictChanges for a verdict.
        before, after: states of a verdict; None for a mask.
        iou: between old and new mask; None where one is missing, and for verdicts.
        moved_px: pixels that only one of the two masks has; 0 for verdicts.
    """

    layer: str
    kind: str
    category: str | None
    shard_before: str
    row_before: int
    shard_after: str
    row_after: int
    before: str | None
    after: str | None
    iou: float | None
    moved_px: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetDiff:
    """What is different in commit `after`, seen from commit `before`.

    Attributes:
        cells: layer -> cells added, replaced, removed; layers without a difference are left out.
        boxes, verdicts: over all categories; `*_by_category` in the order of names.
        masks: a record a teacher, over all categories.
        flips: over all categories, the most frequent first.
        examples: the largest changes of masks, then verdicts that flipped to dropped, to kept
            and to another mask; see manifests.diff_examples.
    """

    before: str
    after: str
    cells: Mapping[str, CellChanges]
    images: ImageChanges
    boxes: BoxChanges
    boxes_by_category: tuple[BoxChanges, ...] = ()
    recategorised: tuple[Recategorised, ...] = ()
    masks: tuple[MaskChanges, ...] = ()
    masks_by_category: tuple[MaskChanges, ...] = ()
    verdicts: VerdictChanges
    verdicts_by_category: tuple[VerdictChanges, ...] = ()
    flips: tuple[VerdictFlip, ...] = ()
    flips_by_category: tuple[VerdictFlip, ...] = ()
    examples: tuple[Example, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether no cell differs."""
        return not self.cells
