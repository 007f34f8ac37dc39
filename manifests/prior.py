"""Whether the confidence of a dataset comes from its own gold; screens that use it say so."""

from __future__ import annotations

from manifests.commit import Commit
from manifests.dataset import Dataset
from manifests.history import newest
from manifests.schemas import CONFIDENCE

CALIBRATE = "calibrate"
PRIOR_NOTE = (
    "confidence comes from the prior that maskmill brings along, not from gold of this dataset: do "
    "not rely on it before some gold says so ('maskmill gold propose')"
)


def is_by_prior(dataset: Dataset) -> bool:
    """Whether the newest calibrator behind a commit was fitted to no gold of its store.

    Raises:
        ObjectMissingError, ObjectDamagedError: its history cannot be read.
    """
    if not dataset.manifest.of_layer(CONFIDENCE):
        return False
    last = newest(dataset.store, dataset.commit_id, _is_calibrate)
    return last is not None and "gold" not in (last.commit.attached or {})


def warn_of_prior(dataset: Dataset) -> None:
    """Says it to people, on standard error."""
    from manifests.console import warn

    if is_by_prior(dataset):
        warn(PRIOR_NOTE)


def _is_calibrate(commit: Commit) -> bool:
    return commit.operation.name == CALIBRATE
