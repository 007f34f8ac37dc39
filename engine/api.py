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
    print(api.diff(api.show(store, "release-1~1"), api.show(store, "release-1")))

Every step commits and returns the commit's id, or raises NothingToCommitError, which carries the
id of the commit that has its outcome already. Importing this imports neither torch nor ray.
"""

from __future__ import annotations

from pathlib import Path

from engine.again import ReproduceConfig
from engine.confidence.gold_shard import GoldRules
from engine.confidence.import_gold import (
    GoldImport,
    GoldImportConfig,
    GoldSummary,
    import_gold,
)
from engine.confidence.proposal import ProposalOptions, ProposalSummary, propose
from engine.confidence.proposed import ProposeConfig
from engine.diff_page import DiffPageOptions, DiffPageSummary, write_diff_page
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
from engine.reproduce import Reproduction, reproduce
from engine.roster import TeacherStatus, teachers
from engine.run import Listener, RunResult, StepResult, run
from engine.sources.protocol import SourceConfig
from manifests.blame import Blame, blame
from manifests.checkout import CheckoutOptions, CheckoutSummary, checkout
from manifests.dataset import DEFAULT_BRANCH, Dataset, init
from manifests.diff import DiffOptions, diff
from manifests.diff_result import DatasetDiff
from manifests.errors import (
    CommitConflictError,
    CommitError,
    CommitStateUnknownError,
    InputError,
    JobError,
    JobInterruptedError,
    MaskmillError,
    MergeConflictError,
    NothingToCommitError,
    ObjectDamagedError,
    ObjectMissingError,
    OutcomeDiffersError,
    RefError,
    SourceSyntaxError,
    StoreError,
    WeightsError,
)
from manifests.export import export
from manifests.export_plan import ExportOptions, ExportSummary
from manifests.find_images import Wanted, find_images
from manifests.fsck import FsckOptions, FsckReport, fsck
from manifests.gc import GcOptions, GcResult, collect_garbage
from manifests.history import HistoryEntry, history
from manifests.merge import MergeResult, create_branch, create_tag, merge_into, reset, revert
from manifests.refs import Refs
from manifests.rejects import rejects
from manifests.sql import SqlSession
from manifests.stats import DatasetStats, LayerStats, stats
from manifests.status import Status, status
from manifests.store import Store
from manifests.takedown import Takedown, take_down
from manifests.three_way import Settlement
from manifests.transfer import TransferOptions, TransferSummary, clone, pull, push
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
    # gold
    "propose", "ProposeConfig", "ProposalOptions", "ProposalSummary", "import_gold",
    "GoldImportConfig", "GoldRules", "GoldImport", "GoldSummary",
    # looking and naming
    "Store", "Dataset", "show", "log", "HistoryEntry", "rejects", "stats", "DatasetStats",
    "LayerStats", "tag", "tags", "branch", "branches", "report", "ReportOptions", "ReportSummary",
    "blame", "Blame", "status", "Status", "diff", "DatasetDiff", "DiffOptions", "write_diff_page",
    "DiffPageOptions", "DiffPageSummary", "SqlSession",
    # changing and moving
    "merge_into", "revert", "reset", "MergeResult", "Settlement", "find_images", "Wanted",
    "take_down", "Takedown", "clone", "push", "pull", "TransferOptions", "TransferSummary",
    "checkout", "CheckoutOptions", "CheckoutSummary",
    # trusting
    "fsck", "FsckOptions", "FsckReport", "collect_garbage", "GcOptions", "GcResult", "reproduce",
    "Reproduction", "ReproduceConfig",
    # teachers
    "teachers", "TeacherStatus", "weights", "WeightsStatus", "fetch_weights",
    # errors
    "MaskmillError", "InputError", "SourceSyntaxError", "StoreError", "ObjectDamagedError",
    "ObjectMissingError", "RefError", "CommitError", "CommitConflictError",
    "CommitStateUnknownError", "NothingToCommitError", "MergeConflictError", "WeightsError",
    "JobError", "JobInterruptedError", "OutcomeDiffersError",
]  # fmt: skip


def show(store: Store, ref: str = DEFAULT_BRANCH) -> Dataset:
    """A commit, by branch, tag, id or `ref~n`. Raises as `Dataset.open`."""
    return Dataset.open(store, ref)


def log(store: Store, ref: str = DEFAULT_BRANCH) -> list[HistoryEntry]:
    """The history of a ref, newest first. Raises as `manifests.history.history`."""
    return list(history(store, ref))


def tag(store: Store, name: str, ref: str = DEFAULT_BRANCH) -> str:
    """Names a commit for ever; returns its id. Raises as `manifests.merge.create_tag`."""
    return create_tag(store, name, ref)


def tags(store: Store) -> dict[str, str]:
    """Tag -> commit id."""
    return Refs(store).tags()


def branch(store: Store, name: str, ref: str = DEFAULT_BRANCH) -> str:
    """Starts a branch; returns the commit id it is at. Raises as `create_branch`."""
    return create_branch(store, name, ref)


def branches(store: Store) -> dict[str, str]:
    """Branch -> commit id."""
    return Refs(store).branches()


def report(
    dataset: Dataset, target: str | Path, *, options: ReportOptions | None = None
) -> ReportSummary:
    """Writes a commit as one HTML page. Raises as `engine.report.write_report`."""
    return write_report(dataset, Path(target), options=options or ReportOptions())
