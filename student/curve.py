"""The flow of `maskmill curve`: the same student on growing parts of a dataset, each one judged.

    sizes ──▶ train <name>-<size> on the first so many images ──▶ evaluate ──▶ a point
        ──▶ quality against size, as JSON and as a page

Every training goes on where it was stopped and does nothing once it is done, and so does the curve.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from manifests.dataset import Dataset
from manifests.errors import InputError
from manifests.html_page import render
from manifests.schemas import IMAGE_INDEX
from manifests.store import Store
from manifests.svg_charts import Line, xy_chart
from manifests.svg_frame import Axis, Svg, nice_ticks
from student.config import SourceConfig, StudentConfig
from student.evaluate import EvaluateOptions
from student.evaluation.result import Evaluation
from student.train import RaySession, TrainOptions, TrainResult

_MEASURES = (
    ("mask AP", "mask_ap"),
    ("boundary AP", "boundary_ap"),
    ("PQ", "pq"),
    ("mIoU", "miou"),
    ("foreground IoU", "foreground_iou"),
)
_MARGIN = 1.15


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """One size: the part of the data, the student, and how good it is."""

    images: int
    trained: TrainResult
    evaluation: Evaluation


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Quality against size.

    Attributes:
        ref: what the students were trained on, a commit id.
        judged_on: a commit id.
        steps: optimiser steps of each.
        points: by rising size.
    """

    ref: str
    judged_on: str
    steps: int
    points: tuple[CurvePoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveRun:
    """What to draw a curve of.

    Attributes:
        store: where the data are, and where the checkpoints go.
        ref: what to train on.
        sizes: numbers of images, the first so many of the commit each.
        judge: the commit with human masks to judge on.
        evaluation: which of its images.
        training: where and how.
        device: where students are judged, as torch names it.
    """

    store: Store
    ref: str
    sizes: tuple[int, ...]
    judge: Dataset
    evaluation: EvaluateOptions
    training: TrainOptions
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1 or len(set(self.sizes)) != len(self.sizes):
            raise InputError(f"--sizes: expected different numbers of images, got {self.sizes}")


def draw_curve(
    run: CurveRun,
    config: StudentConfig,
    *,
    session: RaySession | None = None,
    on_point: Callable[[CurvePoint], None] = lambda _: None,
) -> Curve:
    """Trains and judges one student for each size, from the smallest on.

    Raises:
        InputError: the commit has fewer images than the largest size, the configuration has a mix,
            or as `train` and `evaluate`.
        Everything else that `train` and `evaluate` raise.
    """
    if config.data.mix:
        raise InputError(
            f"curve: expected no data.mix, which --sizes makes, got {len(config.data.mix)} "
            "datasets; leave it out"
        )
    dataset = Dataset.open(run.store, run.ref)
    sizes = sorted(run.sizes)
    _check_size(dataset, sizes[-1])
    points = []
    for size in sizes:
        point = _point(run, dataset.commit_id, config, size, session)
        on_point(point)
        points.append(point)
    return Curve(
        ref=dataset.commit_id, judged_on=run.judge.commit_id, steps=config.train.steps,
        points=tuple(points),
    )  # fmt: skip


def _point(
    run: CurveRun, commit_id: str, config: StudentConfig, size: int, session: RaySession | None
) -> CurvePoint:
    from student.checkpoint import load_student
    from student.evaluate import evaluate
    from student.train import train

    part = SourceConfig(ref=commit_id, max_images=size)
    named = replace(config, name=f"{config.name}-{size}", data=replace(config.data, mix=(part,)))
    trained = train(run.store, commit_id, named, options=run.training, session=session)
    student = load_student(run.store, trained.commit_id, device=run.device)
    judged = evaluate(student, run.judge, run.evaluation, device=run.device)
    return CurvePoint(images=size, trained=trained, evaluation=judged)


def _check_size(dataset: Dataset, largest: int) -> None:
    """Quarantined images are none to train on."""
    have = sum(
        dataset.table(shard, IMAGE_INDEX, columns=["quarantine"])["quarantine"].null_count
        for shard in dataset.manifest.shards()
    )
    if largest > have:
        raise InputError(
            f"--sizes: commit {dataset.commit_id[:12]} has {have:,} images to train on, got "
            f"{largest:,}; leave the larger sizes out"
        )


def curve_page(curve: Curve) -> bytes:
    """A self-contained HTML page with the charts and their table."""
    rows = [
        {
            "images": point.images,
            "student": point.trained.branch,
            "values": [getattr(point.evaluation, name) for _, name in _MEASURES],
        }
        for point in curve.points
    ]
    return render(
        "curve.html",
        {},
        {
            "curve": curve,
            "charts": curve_charts(curve.points),
            "measures": [title for title, _ in _MEASURES],
            "rows": rows,
            "num_taught": max(point.evaluation.num_taught or 0 for point in curve.points),
        },
        folder=Path(__file__).parent / "templates",
    )


def curve_charts(points: Sequence[CurvePoint]) -> list[Svg]:
    """A chart a measure, each on its own scale; where it is not to be had, a line has no point."""
    sizes = [point.images for point in points]
    images = Axis(label="images", low=0, high=max(sizes) * _MARGIN, ticks=(0, *map(float, sizes)))
    charts = []
    for number, (title, name) in enumerate(_MEASURES, start=1):
        found = [
            (p.images, value) for p in points if (value := getattr(p.evaluation, name)) is not None
        ]
        ticks = nice_ticks(max((value for _, value in found), default=1.0) or 1.0)
        line = Line(
            name=title,
            xs=[x for x, _ in found],
            ys=[y for _, y in found],
            colour=f"var(--c{number})",
            notes=[f"{title} {y:.4f} with {x:,} images" for x, y in found],
        )
        charts.append(
            xy_chart(
                f"{title} of the student against the number of images it was trained on",
                images,
                Axis(label=title, high=ticks[-1], ticks=ticks),
                lines=[line],
            )
        )
    return charts
