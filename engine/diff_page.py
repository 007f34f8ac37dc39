"""The HTML page of a diff: what changed in numbers, and the largest changes before and after."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from engine.diff_views import ExampleView, example_views
from manifests.dataset import Dataset
from manifests.diff_result import DROPPED, KEPT, OTHER_MASK, DatasetDiff, Example
from manifests.errors import InputError
from manifests.html_page import NONE, PictureQuality, render, smallest_needed, write_page
from manifests.schemas import VERDICTS

# The first that brings the page under its limit is taken; then examples are left out.
_QUALITIES = (
    PictureQuality(long_side=460, jpeg=85),
    PictureQuality(long_side=360, jpeg=78),
    PictureQuality(long_side=280, jpeg=70),
)
_FLIPS = (DROPPED, KEPT, OTHER_MASK)
_MAX_ROWS = 200
_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffPageOptions:
    """What is on the page.

    Attributes:
        before, after: the refs that the commits were opened by, to be shown; empty: unknown.
        max_pictures: at most so many changed boxes are shown: half of them changed masks, the
            others flipped verdicts of each kind in turn; what one does not use is the other's.
        max_page_bytes: pictures get smaller, then fewer, until the page is no larger.
    """

    before: str = ""
    after: str = ""
    max_pictures: int = 40
    max_page_bytes: int = 10_000_000

    def __post_init__(self) -> None:
        if self.max_pictures < 0:
            raise InputError(f"diff: expected max_pictures of at least 0, got {self.max_pictures}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffPageSummary:
    """What was written: the file, its size, and how many changed boxes it shows."""

    target: str
    num_bytes: int
    num_pictures: int


def write_diff_page(
    a: Dataset, b: Dataset, found: DatasetDiff, target: Path, *, options: DiffPageOptions
) -> DiffPageSummary:
    """Writes the page of a diff made with `max_examples=options.max_pictures`; replaces a file.

    Raises:
        InputError: the target cannot be written, or a mask is damaged.
        ObjectMissingError, ObjectDamagedError: the store has lost a table.
    """
    examples = _chosen(found.examples, options.max_pictures)
    fixed = {"a": a, "b": b, "diff": found, "options": options, "max_rows": _MAX_ROWS}

    def page_of(views: Sequence[ExampleView]) -> bytes:
        masks = [view for view in views if view.teacher is not None]
        flips = [view for view in views if view.teacher is None]
        shown = {**fixed, "mask_views": masks, "flip_views": flips}
        return render("diff.html", _FILTERS, shown, folder=_TEMPLATES)

    page, num_pictures = smallest_needed(
        _QUALITIES,
        lambda quality: example_views(a, b, examples, quality),
        page_of,
        max_bytes=options.max_page_bytes,
        fewer=_without_every_fourth,
    )
    write_page(page, target, what="diff")
    return DiffPageSummary(target=str(target), num_bytes=len(page), num_pictures=num_pictures)


def _chosen(examples: Sequence[Example], max_pictures: int) -> list[Example]:
    """Changed masks, then flips by kind; each kind is sorted already."""
    flips = [one for one in examples if one.layer == VERDICTS]
    masks = [one for one in examples if one.layer != VERDICTS]
    num_masks = min(len(masks), max(max_pictures - len(flips), (max_pictures + 1) // 2))
    kinds = [[one for one in flips if one.kind == kind] for kind in _FLIPS]
    turns = [one for turn in zip_longest(*kinds) for one in turn if one is not None]
    shown = turns[: max_pictures - num_masks]
    return [*masks[:num_masks], *sorted(shown, key=lambda one: _FLIPS.index(one.kind))]


def _without_every_fourth(views: Sequence[ExampleView]) -> list[ExampleView]:
    """So that both kinds stay; none of the last three."""
    return [view for number, view in enumerate(views) if number % 4 != 3 and len(views) > 3]


def _share(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f}%"


_FILTERS: Mapping[str, Callable[..., object]] = {"share": _share, "percent": _percent}
