"""Status: what is there, what is missing, and the command that completes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from manifests import layout
from manifests.cells import write_cell
from manifests.errors import ObjectMissingError
from manifests.manifest import Cell
from manifests.refs import Refs
from manifests.status import Status, status
from manifests.status_records import LayerStatus, Todo
from manifests.store import Store
from manifests.takedown import take_down
from tests.manifests.steps import Steps


@pytest.fixture
def steps(tmp_path: Path) -> Steps:
    return Steps(str(tmp_path / "store"))


def asked(steps: Steps, ref: str = "main", branch: str = "") -> Status:
    return status(steps.dataset(ref), branch=branch)


def layers(found: Status) -> dict[str, LayerStatus]:
    return {layer.layer: layer for layer in found.layers}


def todo(found: Status) -> list[tuple[str, str, str]]:
    return [(entry.layer, entry.what, entry.command) for entry in found.todo]


def test_from_nothing_to_nothing_missing_on_every_protocol(store_url: str) -> None:
    steps = Steps(store_url)
    found = asked(steps)
    assert (found.num_shards, found.num_images, found.layers, found.categories) == (0, 0, (), ())
    assert todo(found) == [("images", "no images yet", "maskmill ingest")]
    steps.ingest({"a.jpg": ["shoe", "hat"], "b.jpg": []}, human=["shoe"])
    steps.ingest({"c.jpg": ["shoe"]})
    found = asked(steps)
    assert (found.num_shards, found.num_images, found.num_boxes, found.num_unjudged) == (2, 3, 3, 3)
    assert todo(found) == [
        ("masks", "no teacher has drawn masks yet", "maskmill label TEACHER"),
        ("verdicts", "nothing has been judged yet", "maskmill filter"),
    ]
    steps.label("sam")
    assert todo(asked(steps)) == [("verdicts", "nothing has been judged yet", "maskmill filter")]
    steps.filter("loose", "sam")
    found = asked(steps)
    assert (found.todo, found.num_unjudged) == ((), 0)
    assert layers(found)["masks/human"].counts == {"absent": 1, "ok": 1}
    assert layers(found)["verdicts"].counts == {"kept": 3}
    assert [(row.category, row.num_boxes, row.num_gold) for row in found.categories] == [
        ("hat", 1, 0), ("shoe", 2, 1),
    ]  # fmt: skip


def test_nothing_is_to_be_done_on_the_branch_of_a_student(steps: Steps) -> None:
    """It takes no data: `label` and `filter` refuse it."""
    steps.ingest({"a.jpg": ["shoe"]})
    assert todo(asked(steps, branch="march"))
    assert not todo(asked(steps, branch="models/shoes"))


def test_new_shards_are_lacking_in_every_layer(steps: Steps) -> None:
    steps.ingest({"a.jpg": ["shoe"]})
    steps.label("sam")
    steps.label("other")
    steps.filter("loose", "sam")
    steps.ingest({"b.jpg": ["hat", "bag"]}, source="more")
    steps.ingest({"c.jpg": []}, source="empty")  # no boxes: nothing to draw
    found = asked(steps, branch="side")
    assert layers(found)["masks/sam"].num_lacking == 1
    assert layers(found)["masks/sam"].num_lacking_rows == found.num_unjudged == 2
    assert todo(found) == [
        ("masks/other", "2 boxes in 1 shard without masks", "maskmill label other --branch side"),
        ("masks/sam", "2 boxes in 1 shard without masks", "maskmill label sam --branch side"),
        ("verdicts", "2 boxes in 1 shard not judged (policy 'loose' before)",
         "maskmill filter --branch side"),
    ]  # fmt: skip


def test_pending_and_failed_rows(steps: Steps) -> None:
    shard = steps.ingest({"a.jpg": ["shoe"]}, human=["shoe"])
    steps.label("sam", fails=True)
    steps.label("other")
    steps.filter("loose", "other")
    assert todo(asked(steps)) == [
        ("masks/sam", "1 box failed", "maskmill label sam --retry-failed"),
    ]
    steps.more_boxes(shard, "bag")
    found = asked(steps)
    assert layers(found)["masks/other"].counts == {"ok": 1, "pending": 1}
    assert todo(found) == [
        ("masks/other", "1 box pending", "maskmill label other"),
        ("masks/sam", "1 box pending", "maskmill label sam"),
        ("masks/sam", "1 box failed", "maskmill label sam --retry-failed"),
        ("verdicts", "nothing has been judged yet", "maskmill filter"),
    ]


def test_stale_masks_and_verdicts(steps: Steps) -> None:
    shard = steps.ingest({"a.jpg": ["shoe"]})
    steps.ingest({"b.jpg": ["hat"]})
    steps.label("sam")
    steps.filter("loose", "sam", "other")
    assert asked(steps).todo == ()
    steps.label("other", weights=1, shards=[shard])
    found = asked(steps)
    assert layers(found)["verdicts"].num_stale_rows == 1
    # The policy names a teacher that has drawn masks since.
    assert todo(found) == [
        ("masks/other", "1 box in 1 shard without masks", "maskmill label other"),
        ("verdicts", "1 box in 1 shard judged before their masks (policy 'loose' before)",
         "maskmill filter"),
    ]  # fmt: skip
    steps.label("other", weights=2)
    steps.filter("loose", "sam", "other")
    assert asked(steps).todo == ()
    steps.label("sam", weights=3, shards=[shard])
    assert layers(asked(steps))["verdicts"].num_stale == 1
    # Boxes that changed behind the back of every layer.
    dataset = steps.dataset()
    boxes = dataset.table(shard, "boxes")
    other = boxes.set_column(3, "category", pa.array(["boot"]))
    cell = write_cell(steps.store, other, shard=shard, layer="boxes")
    steps.commit(dataset.manifest.with_cells([cell]), "by hand")
    found = asked(steps)
    assert [layer.layer for layer in found.layers if layer.num_stale] == [
        "masks/other", "masks/sam", "verdicts",
    ]  # fmt: skip
    assert ("masks/sam", "1 box in 1 shard stale", "maskmill label sam") in todo(found)


def test_cells_that_name_no_inputs_are_not_called_stale(steps: Steps) -> None:
    shard = steps.ingest({"a.jpg": ["shoe"]})
    steps.label("sam")
    steps.filter("loose", "sam")
    dataset = steps.dataset()
    bare = [replace(cell, inputs=()) for cell in dataset.manifest.of_shard(shard)]
    steps.commit(dataset.manifest.with_cells(bare), "by hand")
    assert asked(steps).todo == ()


def test_options_of_the_teacher_are_in_the_command(steps: Steps) -> None:
    steps.ingest({"a.jpg": ["shoe"]})
    steps.label("sam")
    steps.filter("loose", "sam")
    dataset = steps.dataset()
    [cell] = dataset.manifest.of_layer("masks/sam")
    steps.commit(
        dataset.manifest.without(cell.shard, cell.layer).with_cells([cell]).with_cells(
            [replace(cell, statistics={"failed": 1})]
        ),
        "label", teacher={"name": "sam"},
        config={"teacher": "sam", "teacher_config": {"size": 512, "fast": True}},
    )  # fmt: skip
    assert [entry.command for entry in asked(steps).todo] == [
        "maskmill label sam -o fast=True -o size=512 --retry-failed"
    ]


def test_images_that_are_quarantined_or_gone(steps: Steps) -> None:
    shard = steps.ingest({"a.jpg": ["shoe"], "b.jpg": ["hat"]})
    dataset = steps.dataset()
    index = dataset.cell(shard, "image_index")
    quarantined = replace(index, statistics={"quarantined": 1})
    steps.commit(dataset.manifest.with_cells([quarantined]), "by hand")
    image_id = dataset.table(shard, "image_index")["image_id"][0].as_py()
    assert (asked(steps).num_quarantined, asked(steps).num_removed) == (1, 0)
    take_down(steps.store, "main", {shard: [image_id]}, reason="licence")
    found = asked(steps)
    assert (found.num_images, found.num_removed) == (1, 1)


# -- what is read --------------------------------------------------------------------------------


class RecordingStore(Store):
    """Remembers which objects are read."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.read: set[str] = set()

    def get_bytes(self, object_id: str) -> bytes:
        self.read.add(object_id)
        return super().get_bytes(object_id)

    def read_range(self, object_id: str, *, start: int, num_bytes: int) -> bytes:
        self.read.add(object_id)
        return super().read_range(object_id, start=start, num_bytes=num_bytes)


def test_only_shards_with_some_gold_are_opened(steps: Steps) -> None:
    some = steps.ingest({"a.jpg": ["shoe", "hat"]}, human=["shoe"])
    steps.ingest({"b.jpg": ["shoe", "hat"]}, human=["shoe", "hat"])
    steps.ingest({"c.jpg": ["shoe", "hat"]}, human=["other"])
    steps.ingest({"d.jpg": ["shoe", "bag"]})
    steps.label("sam")
    steps.filter("loose", "sam")
    store = RecordingStore(steps.store.url)
    dataset = type(steps.dataset()).open(store)
    store.read.clear()
    found = status(dataset)
    assert {row.category: row.num_gold for row in found.categories} == {
        "bag": 0, "hat": 1, "shoe": 2,
    }  # fmt: skip
    cells = {cell.object_id: cell for cell in dataset.manifest}
    opened: list[Cell] = [cells[object_id] for object_id in store.read if object_id in cells]
    assert {(cell.shard, cell.layer) for cell in opened} == {
        (some, "boxes"), (some, "masks/human"),
    }  # fmt: skip


def test_a_missing_cell_that_gold_needs_is_named(steps: Steps) -> None:
    shard = steps.ingest({"a.jpg": ["shoe", "hat"]}, human=["shoe"])
    lost = steps.dataset().cell(shard, "masks/human")
    (Path(steps.store.root) / layout.object_path(lost.object_id)).unlink()
    with pytest.raises(ObjectMissingError, match=f"shard {shard[:12]} of masks/human is missing"):
        asked(steps)


def test_a_merged_branch_lacks_what_the_other_side_brought(steps: Steps) -> None:
    from manifests.merge import merge_into

    steps.ingest({"a.jpg": ["shoe"]})
    label = steps.label("sam")
    Refs(steps.store).create_branch("side", label)
    steps.filter("loose", "sam")
    steps.ingest({"b.jpg": ["hat"]}, branch="side", source="other")
    merge_into(steps.store, "main", "side")
    assert asked(steps).todo[0] == Todo(
        layer="masks/sam", what="1 box in 1 shard without masks", command="maskmill label sam"
    )


@pytest.fixture
def calibrated(steps: Steps) -> tuple[Steps, str]:
    """One shard, two teachers, agreement, confidence and verdicts by it; and the shard's id."""
    shard = steps.ingest({"a.jpg": ["shoe", "hat"]})
    steps.label("sam")
    steps.label("other", weights=2)
    steps.agree("other", "sam")
    steps.calibrate("sam", "other")
    steps.filter("sure", "sam", by_confidence=True)
    assert asked(steps).todo == ()
    return steps, shard


def test_agreement_and_confidence_are_counted(calibrated: tuple[Steps, str]) -> None:
    found = layers(asked(calibrated[0]))
    assert found["agreement"].counts == {"compared": 2}
    assert found["confidence"].counts == {"scored": 2}


def test_new_shards_lack_agreement_and_confidence(calibrated: tuple[Steps, str]) -> None:
    steps, _ = calibrated
    new = steps.ingest({"b.jpg": ["hat"]}, source="more")
    steps.label("sam", shards=[new])
    # Nothing is there to compare with one teacher alone.
    assert [entry[0] for entry in todo(asked(steps))] == ["masks/other", "confidence", "verdicts"]
    steps.label("other", shards=[new])
    assert todo(asked(steps, branch="side"))[:2] == [
        ("agreement", "1 box in 1 shard without it", "maskmill agree --branch side"),
        ("confidence", "1 box in 1 shard without it", "maskmill calibrate --branch side"),
    ]
    steps.agree("other", "sam")
    steps.calibrate("sam", "other", config={"prior": True})
    steps.filter("sure", "sam", by_confidence=True)
    assert asked(steps).todo == ()


def test_a_chain_of_stale_layers(calibrated: tuple[Steps, str]) -> None:
    steps, shard = calibrated
    steps.label("sam", weights=1, shards=[shard])
    old = "2 boxes in 1 shard older than what it is of"
    assert todo(asked(steps)) == [
        ("agreement", old, "maskmill agree"),
        ("confidence", old, "maskmill calibrate"),
        ("verdicts", "2 boxes in 1 shard judged before their masks (policy 'sure' before)",
         "maskmill filter"),
    ]  # fmt: skip
    steps.agree("other", "sam")
    assert [entry[0] for entry in todo(asked(steps))] == ["confidence", "verdicts"]
    steps.calibrate("sam", "other", calibrator=b"better")
    assert [entry[0] for entry in todo(asked(steps))] == ["verdicts"]
    steps.filter("sure", "sam", by_confidence=True)
    assert asked(steps).todo == ()


def test_confidence_of_another_calibrator_is_stale(calibrated: tuple[Steps, str]) -> None:
    steps, shard = calibrated
    before = steps.dataset().cell(shard, "confidence")
    new = steps.ingest({"b.jpg": ["hat"]}, source="more")
    steps.label("sam", shards=[new])
    commit_id = steps.calibrate("sam", calibrator=b"better", config={"calibrator": "c" * 64})
    dataset = steps.dataset()
    steps.commit(dataset.manifest.with_cells([before]), "test")
    assert todo(asked(steps))[1] == (
        "confidence", "2 boxes in 1 shard older than what it is of",
        f"maskmill calibrate --from {commit_id[:12]}",
    )  # fmt: skip


def test_options_of_the_last_steps_are_named_again(calibrated: tuple[Steps, str]) -> None:
    steps, shard = calibrated
    steps.label("third", weights=3)
    steps.calibrate("sam", config={"prior": True})
    steps.label("sam", weights=1, shards=[shard])
    assert [entry[2] for entry in todo(asked(steps))][:2] == [
        "maskmill agree --teacher other --teacher sam", "maskmill calibrate --prior",
    ]  # fmt: skip
