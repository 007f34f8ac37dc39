"""The HTML page of an evaluation: its numbers, and the worst and best photos beside the truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from manifests.dataset import Dataset
from manifests.errors import InputError
from manifests.html_page import NONE, PictureQuality, render, smallest_needed, write_page
from student.evaluation.forward import placed_bytes, placed_outputs
from student.evaluation.image_output import SegmentOptions
from student.evaluation.pictures import PhotoView, Picturable, photo_view, picturable
from student.evaluation.result import Evaluation, ImageResult
from student.evaluation.truth import HumanTruth

if TYPE_CHECKING:
    from student.checkpoint import Student

_TEMPLATES = Path(__file__).parents[1] / "templates"
# The first that brings the page under its limit is taken; then photos are left out.
_QUALITIES = (
    PictureQuality(long_side=640, jpeg=82),
    PictureQuality(long_side=480, jpeg=76),
    PictureQuality(long_side=360, jpeg=70),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageOptions:
    """What is on the page.

    Attributes:
        model, on: the refs that the commits were opened by, to be shown; empty: unknown.
        max_pictures: photos, half of them the worst and half the best.
        max_page_bytes: pictures get smaller, then fewer, until the page is no larger.
    """

    model: str = ""
    on: str = ""
    max_pictures: int = 16
    max_page_bytes: int = 10_000_000

    def __post_init__(self) -> None:
        if self.max_pictures < 0:
            raise InputError(
                f"evaluate: expected max_pictures of at least 0, got {self.max_pictures}"
            )


def write_evaluation_page(
    student: Student,
    dataset: Dataset,
    found: Evaluation,
    target: Path,
    *,
    options: PageOptions,
    segments: SegmentOptions,
    device: str = "cpu",
) -> int:
    """Writes the page, replacing a file; returns its size in bytes.

    Masks are not kept by an evaluation, so the student looks again at the photos that are shown.

    Raises:
        InputError: the target cannot be written.
        ObjectMissingError, ObjectDamagedError: the store has lost something.
    """
    worst, best = extremes(found.images, options.max_pictures)
    shown = _pictures(student, dataset, [*worst, *best], found, segments, device)
    is_worst = {image.place for image in worst}
    fixed = {"found": found, "options": options, "dataset": dataset, "student": student}

    def page_of(views: Sequence[PhotoView]) -> bytes:
        sides = {True: [], False: []}  # type: dict[bool, list[PhotoView]]
        for view in views:
            sides[view.result.place in is_worst].append(view)
        values = {**fixed, "worst": sides[True], "best": sides[False]}
        return render("evaluation.html", _FILTERS, values, folder=_TEMPLATES)

    page, _ = smallest_needed(
        _QUALITIES,
        lambda quality: [photo_view(one, quality) for one in shown],
        page_of,
        max_bytes=options.max_page_bytes,
        fewer=lambda views: [view for number, view in enumerate(views) if number % 3 != 2][:-1],
    )
    write_page(page, target, what="evaluation")
    return len(page)


def extremes(
    images: Sequence[ImageResult], max_pictures: int
) -> tuple[list[ImageResult], list[ImageResult]]:
    """The worst images, worst first, and the best ones, best first; none is in both."""
    ranked = sorted(
        (image for image in images if image.pq is not None),
        key=lambda image: (image.pq, image.foreground_iou),
    )
    num_best = min(max_pictures, len(ranked)) // 2
    num_worst = min(max_pictures, len(ranked)) - num_best
    return ranked[:num_worst], ranked[len(ranked) - num_best :][::-1]


def _pictures(
    student: Student,
    dataset: Dataset,
    wanted: Sequence[ImageResult],
    found: Evaluation,
    segments: SegmentOptions,
    device: str,
) -> list[Picturable]:
    """In the order of `wanted`; one image after the other, so that few are in memory."""
    categories = tuple(row.category for row in found.categories)
    results = {image.place: image for image in wanted}
    vectors = student.texts.vectors(categories)
    side = student.config.data.image_side
    shown: dict[int, Picturable] = {}
    for image in HumanTruth(dataset, categories, results) if results else ():
        placed = placed_bytes(image.data, size_hw=image.truth.size_hw, side=side)
        [(output, _)] = placed_outputs(student, [placed], vectors, device=device)
        shown[image.place] = picturable(
            image, output, results[image.place], categories=categories, options=segments
        )
    return [shown[image.place] for image in wanted]


def _share(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.0f}%"


def _width(value: float | None) -> str:
    """Of a bar, as CSS writes it."""
    return f"{100 * (value or 0):.1f}%"


_FILTERS: Mapping[str, Callable[..., object]] = {
    "share": _share,
    "percent": _percent,
    "width": _width,
}
