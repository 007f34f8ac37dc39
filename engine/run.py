"""The main job, top to bottom: ingest -> label -> filter -> export -> report.

Run again after any interruption, it goes on where it was: every step first looks for its outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from engine.driver import JobProgress
from engine.filter import FilterConfig, filter_masks
from engine.ingest import ingest
from engine.ingest_config import IngestConfig
from engine.job import ExportSettings, JobConfig, LabelSettings
from engine.label import LabelConfig, label
from engine.policy import Policy
from manifests.dataset import Dataset, init
from manifests.errors import NothingToCommitError
from manifests.export import export
from manifests.export_plan import ExportOptions, ExportSummary
from manifests.store import Store


class Listener(Protocol):
    """Whoever wants to know how far the job is."""

    def step(self, name: str) -> None:
        """A step begins."""
        ...

    def progress(self, progress: JobProgress) -> None:
        """Something happened in the running step."""
        ...

    def warn(self, text: str) -> None:
        """Something nobody should miss."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """A step's commit; `is_new` is False if its outcome was there already."""

    step: str
    commit_id: str
    is_new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What a job did."""

    commit_id: str
    steps: tuple[StepResult, ...]
    exports: tuple[ExportSummary, ...]
    report: str | None


def run(job: JobConfig, listener: Listener) -> RunResult:
    """Does the whole job; see the module's docstring.

    Raises:
        MaskmillError: as ingest, label, filter_masks and export do.
    """
    store = Store(job.store)
    make_if_missing(store)
    teachers = {item.teacher: available_teacher(item, listener) for item in job.label}
    policy = _policy_for(job, teachers)
    steps = [
        *(_ingest(store, job, number, listener) for number in range(len(job.source))),
        *(_label(store, job, item, teachers[item.teacher], listener) for item in job.label),
        *([_filter(store, job, policy, listener)] if policy else []),
    ]
    dataset = Dataset.open(store, job.branch)
    exports = tuple(_export(dataset, job, item, listener) for item in job.export)
    report = _report(dataset, job, listener)
    return RunResult(
        commit_id=dataset.commit_id, steps=tuple(steps), exports=exports, report=report
    )


def make_if_missing(store: Store) -> None:
    """An empty store, unless one is there."""
    from manifests import layout

    if store.read_optional(layout.MARKER) is None:
        init(store)


def available_teacher(item: LabelSettings, listener: Listener) -> str:
    """The teacher to use: the one asked for, or, loudly, one that needs no weights.

    Raises:
        WeightsError: its weights are not to be had and no fallback is allowed.
    """
    from teachers import registry, weights

    if not item.fallback:
        if needed := registry.spec(item.teacher).weights:
            weights.fetch(needed)
        return registry.canonical(item.teacher)
    name, warning = registry.resolve_available(item.teacher)
    if warning:
        listener.warn(warning)
    return name


def config_for(item: LabelSettings, teacher: str) -> Mapping[str, str | int | float | bool]:
    """The item's settings, unless a fallback took its teacher's place: they are not for it."""
    from teachers import registry

    return item.config if teacher == registry.canonical(item.teacher) else {}


def committed(step: str, make: Callable[[], str]) -> StepResult:
    """A step's commit, whether it is new or was there already."""
    try:
        return StepResult(step=step, commit_id=make(), is_new=True)
    except NothingToCommitError as error:
        return StepResult(step=step, commit_id=error.commit_id, is_new=False)


def _ingest(store: Store, job: JobConfig, number: int, listener: Listener) -> StepResult:
    source = job.source[number]
    config = IngestConfig(
        source=source, policy=job.ingest.policy, branch=job.branch,
        shard_images=job.ingest.shard_images, shard_bytes=job.ingest.shard_bytes,
        pool=job.pool, driver=job.driver,
    )  # fmt: skip
    step = f"ingest {source.name}"
    listener.step(step)
    return committed(step, lambda: ingest(store, config, on_progress=listener.progress))


def _label(
    store: Store, job: JobConfig, item: LabelSettings, teacher: str, listener: Listener
) -> StepResult:
    config = LabelConfig(
        teacher=teacher,
        teacher_config=config_for(item, teacher),
        branch=job.branch, image_batch=item.image_batch, pool=job.pool, driver=job.driver,
    )  # fmt: skip
    step = f"label with {teacher}"
    listener.step(step)
    return committed(step, lambda: label(store, config, on_progress=listener.progress))


def _policy_for(job: JobConfig, teachers: Mapping[str, str]) -> Policy | None:
    """The job's policy, its teachers replaced where a fallback took their place."""
    if not job.policy:
        return None
    policy = Policy.load(job.policy)
    names = dict.fromkeys(teachers.get(name, name) for name in policy.teachers)
    return replace(policy, teachers=tuple(names))


def _filter(store: Store, job: JobConfig, policy: Policy, listener: Listener) -> StepResult:
    step = f"filter with {policy.name}"
    listener.step(step)
    config = FilterConfig(policy=policy, branch=job.branch)
    return committed(step, lambda: filter_masks(store, config))


def _export(
    dataset: Dataset, job: JobConfig, item: ExportSettings, listener: Listener
) -> ExportSummary:
    listener.step(f"export {item.format} to {item.target}")
    options = ExportOptions(
        layer=item.layer, polygons=item.polygons, images=item.images, overwrite=True
    )
    return export(dataset, item.target, format=item.format, options=options, ref=job.branch)


def _report(dataset: Dataset, job: JobConfig, listener: Listener) -> str | None:
    if job.report is None:
        return None
    from engine.report import ReportOptions, write_report

    listener.step(f"report to {job.report.target}")
    target = Path(job.report.target)
    write_report(dataset, target, options=ReportOptions(max_photos=job.report.max_photos))
    return str(target)
