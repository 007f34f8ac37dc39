"""maskmill from Python, in the words of the command line.

    from engine import api

    store = api.Store("st")
    api.init(store)
    source = api.SourceConfig(
        format="coco", annotations="boxes.json", images="photos/", name="shop"
    )
    api.ingest(store, api.IngestConfig(source=source))
    api.label(store, api.LabelConfig(teacher="sam_vit_t"))
    api.filter_masks(store, api.FilterConfig(policy=api.Policy.load("default")))
    api.tag(store, "release-1")
    api.export(api.show(store, "release-1"), "out/", format="coco")

Every step commits and returns the commit's id, or raises NothingToCommitError, which carries the
id of the commit that has its outcome already. Importing this imports neither torch nor ray.
"""

from __future__ import annotations

from pathlib import Path

from engine.driver import DriverConfig, JobProgress
from engine.filter import FilterConfig, filter_masks
from engine.ingest import ingest
from engine.ingest_config import ImagePolicy, IngestConfig
from engine.job import (
    ExportSettings,
    IngestSettings,
    JobConfig,
    LabelSettings,
    ReportSettings,
)
from engine.label import LabelConfig, label
from engine.policy import Policy
from engine.pool import PoolConfig
from engine.report import ReportOptions, ReportSummary, write_report
from engine.roster import TeacherStatus, teachers
from engine.run import Listener, RunResult, StepResult, run
from engine.sources.protocol import SourceConfig
from manifests.dataset import DEFAULT_BRANCH, Dataset, init
from manifests.errors import (
    CommitConflictError,
    CommitError,
    CommitStateUnknownError,
    InputError,
    JobError,
    JobInterruptedError,
    MaskmillError,
    NothingToCommitError,
    ObjectDamagedError,
    ObjectMissingError,
    RefError,
    SourceSyntaxError,
    StoreError,
    WeightsError,
)
from manifests.export import export
from manifests.export_plan import ExportOptions, ExportSummary
from manifests.history import HistoryEntry, history
from manifests.refs import Refs
from manifests.rejects import rejects
from manifests.stats import DatasetStats, LayerStats, stats
from manifests.store import Store
from teachers.weights import WeightsStatus
from teachers.weights import fetch as fetch_weights
from teachers.weights import listing as weights

__all__ = [
    # the steps, and what they are told
    "init", "ingest", "label", "filter_masks", "export", "run",
    "IngestConfig", "SourceConfig", "ImagePolicy", "LabelConfig", "FilterConfig", "Policy",
    "ExportOptions", "PoolConfig", "DriverConfig",
    "JobConfig", "IngestSettings", "LabelSettings", "ExportSettings", "ReportSettings",
    # what they say
    "ExportSummary", "JobProgress", "Listener", "RunResult", "StepResult",
    # looking and naming
    "Store", "Dataset", "show", "log", "HistoryEntry", "rejects", "stats", "DatasetStats",
    "LayerStats", "tag", "tags", "branch", "branches", "report", "ReportOptions", "ReportSummary",
    # teachers
    "teachers", "TeacherStatus", "weights", "WeightsStatus", "fetch_weights",
    # errors
    "MaskmillError", "InputError", "SourceSyntaxError", "StoreError", "ObjectDamagedError",
    "ObjectMissingError", "RefError", "CommitError", "CommitConflictError",
    "CommitStateUnknownError", "NothingToCommitError", "WeightsError", "JobError",
    "JobInterruptedError",
]  # fmt: skip


def show(store: Store, ref: str = DEFAULT_BRANCH) -> Dataset:
    """A commit, by branch, tag, id or `ref~n`. Raises as `Dataset.open`."""
    return Dataset.open(store, ref)


def log(store: Store, ref: str = DEFAULT_BRANCH) -> list[HistoryEntry]:
    """The history of a ref, newest first. Raises as `manifests.history.history`."""
    return list(history(store, ref))


def tag(store: Store, name: str, ref: str = DEFAULT_BRANCH) -> str:
    """Names a commit for ever; returns its id. Raises RefError if the tag exists."""
    refs = Refs(store)
    commit_id = refs.resolve(ref)
    refs.create_tag(name, commit_id)
    return commit_id


def tags(store: Store) -> dict[str, str]:
    """Tag -> commit id."""
    return Refs(store).tags()


def branch(store: Store, name: str, ref: str = DEFAULT_BRANCH) -> str:
    """Starts a branch; returns the commit id it is at. Raises RefError if it exists."""
    refs = Refs(store)
    commit_id = refs.resolve(ref)
    refs.create_branch(name, commit_id)
    return commit_id


def branches(store: Store) -> dict[str, str]:
    """Branch -> commit id."""
    return Refs(store).branches()


def report(
    dataset: Dataset, target: str | Path, *, options: ReportOptions | None = None
) -> ReportSummary:
    """Writes a commit as one HTML page. Raises as `engine.report.write_report`."""
    return write_report(dataset, Path(target), options=options or ReportOptions())
