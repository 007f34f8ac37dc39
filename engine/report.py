"""The HTML report of a commit: one page with its history, its ledgers, and photos with masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.report_confidence import ConfidenceView, confidence_view
from engine.report_photos import PhotoView, photo_views
from engine.report_sheets import SHEET_COLOURS, SHEETS, TileView, tile_views
from engine.report_survey import PhotoRef, survey
from manifests.commit import Commit
from manifests.dataset import Dataset
from manifests.errors import InputError
from manifests.history import HistoryEntry
from manifests.html_page import NONE, PictureQuality, render, smallest_needed, write_page
from manifests.rejects import rejects_table
from manifests.stats import stats

# The first that brings the page under its limit is taken; then photos are left out.
_QUALITIES = (
    PictureQuality(long_side=900, jpeg=85),
    PictureQuality(long_side=720, jpeg=78),
    PictureQuality(long_side=560, jpeg=70),
)
_THUMBNAIL = PictureQuality(long_side=240, jpeg=75)
_MAX_THUMBNAILS = 24
_MAX_REJECTS = 200
_MAX_STEPS = 100
_MAX_CATEGORIES = 400
_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """What is on the page.

    Attributes:
        ref: the branch or tag that the dataset was opened by, to be shown; empty: unknown.
        max_photos: at most so many photos, chosen the same way each time.
        max_page_bytes: pictures get smaller, then fewer, until the page is no larger.
    """

    ref: str = ""
    max_photos: int = 60
    max_page_bytes: int = 10_000_000

    def __post_init__(self) -> None:
        if self.max_photos < 0:
            raise InputError(f"report: expected max_photos of at least 0, got {self.max_photos}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSummary:
    """What was written: the file, its size, and how many of the commit's photos it shows."""

    target: str
    num_bytes: int
    num_photos: int
    num_photos_total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejects:
    """What the ingests of a history did not keep: sums by (layer, outcome, reason), first rows."""

    counts: Mapping[tuple[str, str, str], int]
    rows: Sequence[Mapping[str, str | None]]

    @property
    def num_rows(self) -> int:
        """All of them, listed or not."""
        return sum(self.counts.values())


def write_report(dataset: Dataset, target: Path, *, options: ReportOptions) -> ReportSummary:
    """Writes the page; an existing file is replaced.

    Raises:
        InputError: the target cannot be written, or a mask is damaged.
        ObjectMissingError, ObjectDamagedError: the store has lost something.
    """
    steps = _chain(dataset)
    found = survey(dataset, max_photos=options.max_photos, max_thumbnails=_MAX_THUMBNAILS)
    confidence = confidence_view(dataset)
    fixed = {
        "dataset": dataset,
        "options": options,
        "steps": steps,
        "survey": found,
        "confidence": confidence,
        "colours": SHEET_COLOURS,
        "categories": found.categories[:_MAX_CATEGORIES],
        "max_categories": _MAX_CATEGORIES,
        "layers": stats(dataset).layers,
        "teachers": _teachers(steps),
        "policy": _policy(steps),
        "rejects": _rejects(dataset, steps),
        "thumbnails": list(photo_views(dataset, found.thumbnails, _THUMBNAIL)),
    }
    num_photos = 0

    def page_of(views: Sequence[PhotoView | TileView]) -> bytes:
        nonlocal num_photos
        photos = [view for view in views if isinstance(view, PhotoView)]
        num_photos = len(photos)
        shown = {"photos": photos, "sheets": _sheets(views)}
        return render("report.html", _FILTERS, {**fixed, **shown}, folder=_TEMPLATES)

    page, _ = smallest_needed(
        _QUALITIES,
        lambda quality: _pictures(dataset, confidence, found.photos, quality),
        page_of,
        max_bytes=options.max_page_bytes,
        fewer=lambda views: views[: len(views) * 3 // 4],
    )
    write_page(page, target, what="report")
    return ReportSummary(
        target=str(target),
        num_bytes=len(page),
        num_photos=num_photos,
        num_photos_total=found.num_images,
    )


def _pictures(
    dataset: Dataset,
    confidence: ConfidenceView | None,
    photos: Sequence[PhotoRef],
    quality: PictureQuality,
) -> list[PhotoView | TileView]:
    """Tiles, then photos: what comes last is left out first of a page that gets too large."""
    tiles = tile_views(dataset, confidence.sheets, quality) if confidence else []
    return [*tiles, *photo_views(dataset, photos, quality)]


def _sheets(views: Sequence[PhotoView | TileView]) -> dict[str, list[TileView]]:
    tiles = [view for view in views if isinstance(view, TileView)]
    sheets = {sheet: [tile for tile in tiles if tile.sheet == sheet] for sheet in SHEETS}
    return {sheet: found for sheet, found in sheets.items() if found}


def _share(part: float, whole: float) -> float:
    """Per cent, with one decimal; 0 of nothing."""
    return round(100 * part / whole, 1) if whole else 0.0


def _signal(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"


def _iou(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f}%"


def _sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


_FILTERS: Mapping[str, Callable[..., object]] = {
    "share": _share,
    "signal": _signal,
    "iou": _iou,
    "percent": _percent,
    "sentence": _sentence,
}


def _chain(dataset: Dataset) -> list[HistoryEntry]:
    """The commit and its first parents, oldest first; the newest ones of a very long history."""
    entry = HistoryEntry(commit_id=dataset.commit_id, commit=dataset.commit)
    chain = [entry]
    while entry.commit.parents and len(chain) < _MAX_STEPS:
        parent = entry.commit.parents[0]
        entry = HistoryEntry(commit_id=parent, commit=Commit.load(dataset.store, parent))
        chain.append(entry)
    return chain[::-1]


def _teachers(steps: Sequence[HistoryEntry]) -> list[Mapping[str, Any]]:  # Any: JSON of a commit
    """Identities by name, the newest of each."""
    found = {
        str(step.commit.operation.teacher.get("name", "?")): step.commit.operation.teacher
        for step in steps
        if step.commit.operation.teacher
    }
    return list(found.values())


def _policy(steps: Sequence[HistoryEntry]) -> Mapping[str, Any] | None:  # Any: JSON of a commit
    filters = [step.commit.operation for step in steps if step.commit.operation.name == "filter"]
    return filters[-1].config if filters else None


def _rejects(dataset: Dataset, steps: Sequence[HistoryEntry]) -> Rejects:
    counts: Counter[tuple[str, str, str]] = Counter()
    rows: list[dict[str, str | None]] = []
    for step in (step for step in steps if step.commit.rejects):
        table = rejects_table(dataset.store, step)
        keys = ["layer", "outcome", "reason"]
        for group in table.group_by(keys).aggregate([([], "count_all")]).to_pylist():
            counts[group["layer"], group["outcome"], group["reason"]] += group["count_all"]
        rows += table.slice(0, max(0, _MAX_REJECTS - len(rows))).to_pylist()
    return Rejects(counts=dict(sorted(counts.items())), rows=rows)
