"""show, log and blame on the command line, where a dataset has confidence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from manifests.refs import Refs
from tests.command_line import Maskmill
from tests.manifests.steps import Steps

_SENTENCE = "with 95% confidence at most 5.0% of the 12 kept masks have an IoU under 0.7"


def _quality(calibrator: str, **more: Any) -> dict[str, Any]:
    category = {"num_rows": 1, "num_kept": 1, "expected_mean_iou": 0.875, "threshold": 0.5}
    return {
        "calibrator": calibrator, "is_prior": False, "threshold": 0.5, "num_rows": 1200,
        "num_kept": 900, "kept_share": 0.75, "expected_mean_iou": 0.8125, "certificate": None,
        "categories": {"shoe": category, "hat": category | {"expected_mean_iou": None}}, **more,
    }  # fmt: skip


@pytest.fixture
def steps(tmp_path: Path) -> Steps:
    """Calibrated and filtered: certified at tag `v1`, by a prior at the head."""
    steps = Steps(str(tmp_path / "store"))
    steps.ingest({"a.jpg": ["shoe", "hat"]})
    steps.label("sam")
    steps.label("other", weights=2)
    calibrated = steps.calibrate("sam", "other")
    calibrator = steps.dataset().cell(steps.dataset().manifest.shards()[0], "confidence").inputs[-1]
    certified = _quality(calibrator, certificate={"sentence": _SENTENCE})
    first = steps.filter("sure", "sam", by_confidence=True, quality=certified)
    Refs(steps.store).create_tag("calibrated", calibrated)
    Refs(steps.store).create_tag("v1", first)
    prior = _quality(calibrator, is_prior=True, threshold=None, notes=["draw some gold"])
    steps.filter("sure", "other", by_confidence=True, quality=prior)
    return steps


def test_show_tells_the_quality_in_words(maskmill: Maskmill, steps: Steps) -> None:
    shown = " ".join(maskmill("show", "v1").out.split())
    assert (
        "kept 900 of 1,200 masks without a human one (75.0%), expected mean IoU 0.812, confidence "
        "from 0.500 on"
    ) in shown
    assert f"certificate: {_SENTENCE}" in shown
    assert "fitted on this dataset's gold" in shown
    by_prior = " ".join(maskmill("show").out.split())
    assert "by a prior, not by this dataset's gold" in by_prior
    assert "no certificate" in by_prior
    assert "draw some gold" in by_prior
    assert "confidence from" not in by_prior
    assert "quality by category" not in by_prior
    assert "quality by category" in maskmill("show", "v1", "--by-category").out
    assert "quality" not in maskmill("show", "calibrated").out


def test_show_names_what_is_attached(maskmill: Maskmill, steps: Steps) -> None:
    body = maskmill("show", "calibrated", "--json").json
    shown = maskmill("show", "calibrated").out
    for role in ("calibrator", "gold"):
        assert f"{role} {body['attached'][role]}" in " ".join(shown.split())
    assert "calibrator 1 object" in shown
    assert [layer["layer"] for layer in body["input_cells"]] == [
        "boxes", "calibrator", "masks/other", "masks/sam",
    ]  # fmt: skip


def test_json_carries_quality_and_attached(maskmill: Maskmill, steps: Steps) -> None:
    found = maskmill("log", "--json").json
    assert found[0]["commit_id"] == steps.dataset().commit_id
    assert found[0]["quality"]["is_prior"] is True
    assert found[1]["quality"]["certificate"] == {"sentence": _SENTENCE}
    assert set(found[2]["attached"]) == {"calibrator", "gold"}
    assert maskmill("show", "v1", "--json").json["quality"] == found[1]["quality"]


def test_blame_tells_confidence_and_calibrator(maskmill: Maskmill, steps: Steps) -> None:
    shoe = steps.ids()[0]
    found = maskmill("blame", shoe, "--json").json["confidence"]
    shown = maskmill("blame", shoe).out
    assert f"confidence   {found['confidence']:.3f}, of the mask of masks/sam" in shown
    assert f"calibrator {found['calibrator'][:12]}, by {found['given']['commit_id'][:12]}" in shown
    assert f"sam {found['outputs']['sam']:.3f}, other {found['outputs']['other']:.3f}" in shown


def test_status_counts_confidence(maskmill: Maskmill, steps: Steps) -> None:
    shown = maskmill("status").out
    assert "scored" in shown
    assert str(steps.dataset().commit_id[:12]) in shown
