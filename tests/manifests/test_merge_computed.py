"""Agreement, confidence and verdicts in a merge and a takedown: kept where they are still right."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifests import schemas
from manifests.dataset import Dataset
from manifests.errors import MergeConflictError
from manifests.merge import create_branch, merge_into
from manifests.status import status
from manifests.takedown import take_down
from manifests.three_way import Settlement
from tests.manifests.damage import look
from tests.manifests.steps import Steps


def _chain(steps: Steps, branch: str = "main", *, calibrator: bytes = b"calibrator") -> None:
    steps.agree("other", "sam", branch=branch)
    steps.calibrate("sam", "other", branch=branch, calibrator=calibrator)
    steps.filter("sure", "sam", branch=branch, by_confidence=True)


@pytest.fixture
def steps(tmp_path: Path) -> Steps:
    """A shard with masks of two teachers, and a branch `side`."""
    steps = Steps(str(tmp_path / "store"))
    steps.ingest({"a.jpg": ["shoe", "hat"], "b.jpg": ["bag"]})
    steps.label("sam")
    steps.label("other", weights=2)
    return steps


def _computed(dataset: Dataset) -> dict[str, int]:
    layers = (cell.layer for cell in dataset.manifest)
    found = [layer for layer in layers if layer in schemas.COMPUTED_LAYERS]
    return {layer: found.count(layer) for layer in sorted(set(found))}


def test_new_photos_do_not_cost_the_others_their_confidence(steps: Steps) -> None:
    create_branch(steps.store, "side", "main")
    _chain(steps)
    steps.ingest({"c.jpg": ["hat"]}, source="more", branch="side")
    merge_into(steps.store, "main", "side")
    dataset = steps.dataset()
    assert _computed(dataset) == {"agreement": 1, "confidence": 1, "verdicts": 1}
    assert [entry.layer for entry in status(dataset).todo] == [
        "masks/other", "masks/sam", "confidence", "verdicts",
    ]  # fmt: skip
    assert not look(steps.store).findings


def test_a_layer_beside_does_not_cost_confidence(steps: Steps) -> None:
    _chain(steps)
    create_branch(steps.store, "side", "main")
    steps.label("third", weights=3, branch="side")
    steps.ingest({"c.jpg": ["hat"]}, source="more")
    merge_into(steps.store, "main", "side")
    assert _computed(steps.dataset()) == {"agreement": 1, "confidence": 1, "verdicts": 1}


def test_other_masks_take_out_all_that_was_computed_from_them(steps: Steps) -> None:
    _chain(steps)
    create_branch(steps.store, "side", "main")
    steps.label("sam", weights=4, branch="side")
    steps.ingest({"c.jpg": ["hat"]}, source="more")
    merge_into(steps.store, "main", "side")
    assert _computed(steps.dataset()) == {}
    ledger = {row.layer: row for row in steps.dataset().commit.ledger.rows}
    for layer in schemas.COMPUTED_LAYERS:
        assert sum(ledger[layer].dropped.values()) == 3


def test_the_side_that_is_fresh_is_taken(steps: Steps) -> None:
    _chain(steps)
    create_branch(steps.store, "side", "main")
    steps.label("sam", weights=4, branch="side")
    _chain(steps, "side", calibrator=b"of side")
    steps.calibrate("sam", "other", calibrator=b"newer")
    merge_into(steps.store, "main", "side")
    dataset, side = steps.dataset(), steps.dataset("side")
    shard = dataset.manifest.shards()[0]
    for layer in schemas.COMPUTED_LAYERS:
        assert dataset.cell(shard, layer) == side.cell(shard, layer)
    assert not look(steps.store).findings


def test_two_calibrators_are_a_conflict_that_can_be_settled(steps: Steps) -> None:
    create_branch(steps.store, "side", "main")
    _chain(steps)
    steps.agree("other", "sam", branch="side")
    steps.calibrate("other", "sam", branch="side", calibrator=b"of side")
    with pytest.raises(MergeConflictError, match="confidence"):
        merge_into(steps.store, "main", "side")
    merge_into(steps.store, "main", "side", settlement=Settlement(default="theirs"))
    dataset, side = steps.dataset(), steps.dataset("side")
    shard = dataset.manifest.shards()[0]
    assert dataset.cell(shard, "confidence") == side.cell(shard, "confidence")
    # Verdicts by the confidence that did not stay are gone.
    assert _computed(dataset) == {"agreement": 1, "confidence": 1}


def test_a_takedown_keeps_what_is_computed_aligned_and_current(steps: Steps) -> None:
    _chain(steps)
    before = steps.dataset()
    [shard] = before.manifest.shards()
    gone = before.table(shard, "image_index")["image_id"].to_pylist()[0]
    take_down(steps.store, "main", {shard: [gone]}, reason="asked")
    after = steps.dataset()
    [new] = after.manifest.shards()
    assert _computed(after) == {"agreement": 1, "confidence": 1, "verdicts": 1}
    rows = before.table(shard, "boxes")["image_id"].to_pylist()
    stays = [number for number, image_id in enumerate(rows) if image_id != gone]
    for layer in schemas.COMPUTED_LAYERS:
        assert after.table(new, layer).equals(before.table(shard, layer).take(stays))
    assert after.cell(new, "confidence").statistics == {"scored": 1, "no_mask": 0}
    assert status(after).todo == ()
    assert not look(steps.store).findings
