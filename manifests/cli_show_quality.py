"""How `maskmill show` tells what a commit promises of its masks, and what hangs on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from manifests.cli_log import indented
from manifests.commit import Commit
from manifests.console import print_table, say

Quality = Mapping[str, Any]  # Any: JSON; see Commit.quality


def print_quality(commit: Commit, *, by_category: bool) -> None:
    """What a filter by confidence kept and expects, its certificate, and attached objects."""
    if commit.attached:
        named = (f"{role} {object_id}" for role, object_id in sorted(commit.attached.items()))
        say("\nattached")
        say(indented(", ".join(named)))
    if commit.quality:
        say("\nquality")
        for sentence in quality_sentences(commit.quality):
            say(indented(sentence))
        if by_category:
            _print_categories(commit.quality)


def quality_sentences(quality: Quality) -> list[str]:
    """What it says, for people."""
    mean = quality.get("expected_mean_iou")
    kept = (
        f"kept {quality['num_kept']:,} of {quality['num_rows']:,} masks without a human one "
        f"({quality['kept_share']:.1%})"
    )
    threshold = quality.get("threshold")
    parts = [
        kept,
        "" if mean is None else f"expected mean IoU {mean:.3f}",
        "" if threshold is None else f"confidence from {threshold:.3f} on",
    ]
    calibrator = quality["calibrator"][:12]
    by = (
        f"by a prior, not by this dataset's gold (calibrator {calibrator})"
        if quality["is_prior"]
        else f"by calibrator {calibrator}, fitted on this dataset's gold"
    )
    certificate = quality.get("certificate")
    certified = [f"certificate: {certificate['sentence']}"] if certificate else ["no certificate"]
    return [", ".join(filter(None, parts)), by, *certified, *quality.get("notes", ())]


def _print_categories(quality: Quality) -> None:
    rows = [
        (name, row["num_rows"], row["num_kept"], _number(row["expected_mean_iou"]),
         _number(row["threshold"]))
        for name, row in quality["categories"].items()
    ]  # fmt: skip
    names = ("category", "masks", "kept", "expected mean IoU", "confidence from")
    print_table("quality by category", names, rows, right=names[1:])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
