"""The main job, top to bottom: ingest -> label -> agree -> calibrate -> filter -> export -> report.

Run again after any interruption, it goes on where it was: every step first looks for its outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from engine.confidence.agree import AgreeConfig, agree
from engine.confidence.calibrate import CalibrateConfig, calibrate
from engine.confidence.outputs import teachers_of
from engine.confidence.quality import quality_sentences
from engine.driver import JobProgress
from engine.filter import FilterConfig, check_layers, filter_masks
from engine.ingest import ingest
from engine.ingest_config import IngestConfig
from engine.job import ExportSettings, JobConfig, LabelSettings
from engine.label import LabelConfig, label
from engine.policy import Policy
from engine.sources.registry import FORMATS as SOURCE_FORMATS
from manifests import schemas
from manifests.commit import Commit, Operation
from manifests.dataset import Dataset, init
from manifests.errors import InputError, NothingToCommitError
from manifests.export import FORMATS as EXPORT_FORMATS
from manifests.export import export
from manifests.export_plan import ExportOptions, ExportSummary
from manifests.history import newest
from manifests.ledger import Ledger
from manifests.prior import PRIOR_NOTE, is_by_prior
from manifests.settings import did_you_mean
from manifests.store import Store
from manifests.writer import Writer
from teachers import registry, weights


class Listener(Protocol):
    """Whoever wants to know how far the job is."""

    def step(self, name: str) -> None:
        """A step begins."""
        ...

    def progress(self, progress: JobProgress) -> None:
        """Something happened in the running step."""
        ...

    def done(self, text: str) -> None:
        """A step ended, and this came of it."""
        ...

    def warn(self, text: str) -> None:
        """Something nobody should miss."""
        ...


class Silence:
    """A listener that does not listen."""

    def step(self, name: str) -> None: ...

    def progress(self, progress: JobProgress) -> None: ...

    def done(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What a step did.

    Attributes:
        step: its name, for people.
        commit_id: the commit that it made, now or (`is_new` is False) in an earlier run.
        is_new: whether it had anything to do.
        ledger: what became of every row; empty if the commit that says so is not to be found.
        quality: of a filter by confidence, what `Commit.quality` says; else None.
    """

    step: str
    commit_id: str
    is_new: bool
    ledger: Ledger
    quality: Mapping[str, Any] | None = None  # Any: JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What a job did; `commit_id` is the branch's head at its end."""

    commit_id: str
    steps: tuple[StepResult, ...]
    exports: tuple[ExportSummary, ...]
    report: str | None


def run(job: JobConfig, listener: Listener | None = None) -> RunResult:
    """Does the whole job; see the module's docstring.

    Raises:
        MaskmillError: as ingest, label, filter_masks and export do; what can be seen to be wrong
            beforehand is raised before anything is done.
    """
    listener = listener or Silence()
    store = Store(job.store)
    make_if_missing(store)
    check(job, Writer(store, job.branch).dataset)
    teachers = {item.teacher: available_teacher(item, listener) for item in job.label}
    policy = policy_for(job, teachers)
    steps: list[StepResult] = []
    to_take: Iterator[Callable[[], StepResult]] = chain(
        (partial(run_ingest, store, config, listener) for config in _ingests(job)),
        (partial(run_label, store, config, listener) for config in _labels(job, teachers)),
        _confidence(job, store, listener),
        (partial(run_filter, store, config, listener) for config in _filters(job, policy)),
    )
    for take_step in to_take:
        steps.append(take_step())
        listener.done(outcome(steps[-1]))
    dataset = Dataset.open(store, job.branch)
    exports = tuple(_export(dataset, job, item, listener) for item in job.export)
    report = _report(dataset, job, listener)
    return RunResult(
        commit_id=dataset.commit_id, steps=tuple(steps), exports=exports, report=report
    )


def make_if_missing(store: Store) -> None:
    """An empty store, unless one is there."""
    if not store.is_there():
        init(store)


def check(job: JobConfig, dataset: Dataset) -> None:
    """Finds what would stop the job hours later.

    Raises:
        InputError: an unknown teacher, setting or format, or a policy for masks that will not be
            there.
    """
    for source in job.source:
        _require_known(f"source '{source.name}': format", source.format, SOURCE_FORMATS)
    for item in job.export:
        _require_known("export: format", item.format, EXPORT_FORMATS)
    for label_item in job.label:
        registry.identity(label_item.teacher, label_item.config)
    if policy := _policy(job):
        coming = [registry.canonical(item.teacher) for item in job.label]
        check_layers(dataset, policy, coming=coming)
        has_confidence = job.calibrate or dataset.manifest.of_layer(schemas.CONFIDENCE)
        if policy.uses_confidence and not has_confidence:
            raise InputError(
                f"policy '{policy.name}' goes by confidence, but the job has no [calibrate] and "
                "the dataset no confidence; add an empty table [calibrate] to the job"
            )


def available_teacher(item: LabelSettings, listener: Listener) -> str:
    """The teacher to use: the one asked for, or, loudly, one that needs no weights.

    Raises:
        WeightsError: its weights are not to be had and no fallback is allowed.
    """
    if not item.fallback:
        if needed := registry.spec(item.teacher).weights:
            weights.fetch(needed)
        return registry.canonical(item.teacher)
    name, warning = registry.resolve_available(item.teacher)
    if warning:
        listener.warn(warning)
    return name


def policy_for(job: JobConfig, teachers: Mapping[str, str]) -> Policy | None:
    """The job's policy, its teachers replaced where a fallback took their place."""
    policy = _policy(job)
    if policy is None:
        return None
    taken = {registry.canonical(wanted): used for wanted, used in teachers.items()}
    names = dict.fromkeys(taken.get(name, name) for name in policy.teachers)
    return replace(policy, teachers=tuple(names))


def _policy(job: JobConfig) -> Policy | None:
    if isinstance(job.policy, Policy):
        return job.policy
    return Policy.load(job.policy) if job.policy else None


def config_for(item: LabelSettings, teacher: str) -> Mapping[str, str | int | float | bool]:
    """The item's settings, unless a fallback took its teacher's place: they are not for it."""
    return item.config if teacher == registry.canonical(item.teacher) else {}


def run_ingest(store: Store, config: IngestConfig, listener: Listener) -> StepResult:
    """One ingest step, told to a listener. Raises what `ingest` does."""
    listener.step(f"ingest {config.source.name}")
    return _result(
        f"ingest {config.source.name}",
        store,
        lambda: ingest(store, config, on_progress=listener.progress),
        config.is_made_by,
    )


def run_label(store: Store, config: LabelConfig, listener: Listener) -> StepResult:
    """One label step, told to a listener. Raises what `label` does."""
    teacher = registry.canonical(config.teacher)
    listener.step(f"label {teacher}")
    return _result(
        f"label {teacher}",
        store,
        lambda: label(store, config, on_progress=listener.progress),
        lambda made: (made.teacher or {}).get("name") == teacher,
    )


def run_agree(store: Store, config: AgreeConfig, listener: Listener) -> StepResult:
    """One agree step, told to a listener. Raises what `agree` does."""
    listener.step("agree")
    return _result("agree", store, lambda: agree(store, config), lambda made: made.name == "agree")


def run_calibrate(store: Store, config: CalibrateConfig, listener: Listener) -> StepResult:
    """One calibrate step, told to a listener. Raises what `calibrate` does."""
    listener.step("calibrate")
    result = _result(
        "calibrate",
        store,
        lambda: calibrate(store, config),
        lambda made: made.name == "calibrate",
    )
    if is_by_prior(Dataset.open(store, config.branch)):
        listener.warn(PRIOR_NOTE)
    return result


def run_filter(store: Store, config: FilterConfig, listener: Listener) -> StepResult:
    """One filter step, told to a listener. Raises what `filter_masks` does."""
    policy = config.policy
    listener.step(f"filter {policy.name}")
    known = [entry.name for entry in Dataset.open(store, config.branch).commit.categories]
    for name in policy.categories:
        if name not in known:
            listener.warn(
                f"policy '{policy.name}' has rules for category '{name}', which the dataset does "
                f"not have; {did_you_mean(name, known)}"
            )
    result = _result(
        f"filter {policy.name}",
        store,
        lambda: filter_masks(store, config),
        lambda made: made.name == "filter",
    )
    for text in (result.quality or {}).get("notes", ()):
        listener.warn(text)
    return result


def outcome(result: StepResult) -> str:
    """One line: what became of every row, and which commit says so."""
    parts = []
    for row in result.ledger.totals():
        lost = [f"{reason} {count:,}" for reason, count in row.dropped.items()]
        lost += [f"{reason} {count:,} (failed)" for reason, count in row.failed.items()]
        left_out = f" ({', '.join(lost)})" if lost else ""
        parts.append(f"{row.layer} {row.kept:,} of {row.inputs:,} kept{left_out}")
    already = "" if result.is_new else ", as before"
    text = f"{result.step}: {'; '.join(parts)}; commit {result.commit_id[:12]}{already}"
    return "\n".join([text, *quality_sentences(result.quality or {})])


def _result(
    step: str, store: Store, make: Callable[[], str], made_by: Callable[[Operation], bool]
) -> StepResult:
    """Takes the step; if there is nothing to commit, finds the commit that has its outcome."""
    try:
        commit_id, is_new = make(), True
    except NothingToCommitError as error:
        found = newest(store, error.commit_id, lambda commit: made_by(commit.operation))
        if found is None:
            return StepResult(step=step, commit_id=error.commit_id, is_new=False, ledger=Ledger())
        commit_id, is_new = found.commit_id, False
    commit = Commit.load(store, commit_id)
    return StepResult(
        step=step, commit_id=commit_id, is_new=is_new, ledger=commit.ledger, quality=commit.quality
    )


def _ingests(job: JobConfig) -> Iterator[IngestConfig]:
    for source in job.source:
        yield IngestConfig(
            source=source, policy=job.ingest.policy, branch=job.branch,
            shard_images=job.ingest.shard_images, shard_bytes=job.ingest.shard_bytes,
            pool=job.pool, driver=job.driver,
        )  # fmt: skip


def _labels(job: JobConfig, teachers: Mapping[str, str]) -> Iterator[LabelConfig]:
    for item in job.label:
        teacher = teachers[item.teacher]
        yield LabelConfig(
            teacher=teacher, teacher_config=config_for(item, teacher), branch=job.branch,
            image_batch=item.image_batch, pool=job.pool, driver=job.driver,
        )  # fmt: skip


def _confidence(
    job: JobConfig, store: Store, listener: Listener
) -> Iterator[Callable[[], StepResult]]:
    """Agree where there is something to compare, and calibrate; looked at when it is their turn."""
    if job.calibrate is None:
        return
    teachers = teachers_of(Dataset.open(store, job.branch).manifest, job.calibrate.teachers)
    if len(teachers) > 1:
        compare = AgreeConfig(teachers=job.calibrate.teachers, branch=job.branch)
        yield partial(run_agree, store, compare, listener)
    config = CalibrateConfig(
        teachers=job.calibrate.teachers, prior=job.calibrate.prior,
        certify_share=job.calibrate.certify_share, branch=job.branch,
    )  # fmt: skip
    yield partial(run_calibrate, store, config, listener)


def _filters(job: JobConfig, policy: Policy | None) -> Iterator[FilterConfig]:
    if policy is not None:
        yield FilterConfig(policy=policy, branch=job.branch)


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
    options = ReportOptions(ref=job.branch, max_photos=job.report.max_photos)
    return write_report(dataset, Path(job.report.target), options=options).target


def _require_known(what: str, word: str, known: Iterable[str]) -> None:
    if word not in known:
        raise InputError(f"{what}: there is no '{word}'; {did_you_mean(word, known)}")
