"""Blame: the commit that really made a row is found through everything that rewrites cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from manifests import layout, schemas
from manifests.blame import Blame, blame
from manifests.cells import write_cell
from manifests.dataset import Dataset, init
from manifests.errors import InputError, ObjectMissingError
from manifests.find_annotation import find_annotation
from manifests.manifest import Manifest
from manifests.merge import merge_into
from manifests.refs import Refs
from manifests.store import Store
from manifests.takedown import take_down
from manifests.three_way import Settlement
from tests.manifests.steps import Steps, area_px


@pytest.fixture
def steps(tmp_path: Path) -> Steps:
    return Steps(str(tmp_path / "store"))


def asked(steps: Steps, annotation: str, ref: str = "main") -> Blame:
    return blame(steps.dataset(ref), annotation, ref=ref)


def drawn(found: Blame) -> dict[str, tuple[str, str]]:
    """Layer -> status, and the commit that drew it."""
    return {mask.layer: (mask.status, mask.drawn.commit_id) for mask in found.masks}


def test_who_brought_drew_and_judged_on_every_protocol(store_url: str) -> None:
    steps = Steps(store_url)
    steps.ingest({"a.jpg": ["shoe", "hat"]}, human=["shoe"])
    ingest = Refs(steps.store).resolve("main")
    label = steps.label("sam", weights=1)
    judged = steps.filter("strict", "sam", keep=False)
    shoe, hat = steps.ids()
    found = asked(steps, shoe)
    assert found.brought.commit_id == ingest
    assert (found.brought.operation, found.brought.config["source"]) == ("ingest", {"name": "shop"})
    assert found.image["file_name"] == "a.jpg"
    assert (found.box["category"], found.row) == ("shoe", 0)
    assert drawn(found) == {"masks/human": ("ok", ingest), "masks/sam": ("ok", label)}
    [_, sam] = found.masks
    assert sam.drawn.teacher == {"name": "sam", "version": 1, "config": {"size": 1024},
                                 "weights_sha256": f"{1:064x}"}  # fmt: skip
    assert sam.signals["area_px"] == area_px(1)
    assert "maskmill" in sam.drawn.code
    assert sam.carried == ()
    assert found.verdict is not None
    assert (found.verdict.keep, found.verdict.reason) == (False, "strict")
    assert found.verdict.layer == "masks/sam"
    assert found.verdict.given.commit_id == found.verdict.since.commit_id == judged
    assert found.verdict.given.config["name"] == "strict"
    assert drawn(asked(steps, hat))["masks/human"] == ("absent", ingest)
    before = asked(steps, shoe, ref="main~1")
    assert before.verdict is None
    assert before.commit_id == label


def test_rows_that_more_boxes_carried_over_are_followed_to_who_drew_them(steps: Steps) -> None:
    shard = steps.ingest({"a.jpg": ["shoe"], "b.jpg": ["hat"]}, human=["hat"])
    ingest = Refs(steps.store).resolve("main")
    first = steps.label("sam")
    steps.filter("loose", "sam")
    extended = steps.more_boxes(shard, "bag")
    second = steps.label("sam")
    steps.filter("loose", "sam")
    shoe, bag, hat = steps.ids()
    found = asked(steps, hat)  # its row moved from 1 to 2
    assert found.row == 2
    assert found.brought.commit_id == ingest
    assert drawn(found) == {"masks/human": ("ok", ingest), "masks/sam": ("ok", first)}
    assert [step.commit_id for step in found.masks[1].carried] == [second, extended]
    assert asked(steps, shoe).masks[1].drawn.commit_id == first
    new = asked(steps, bag)
    assert new.brought.commit_id == extended
    assert drawn(new) == {"masks/human": ("absent", extended), "masks/sam": ("ok", second)}
    assert new.masks[1].carried == ()
    pending = asked(steps, bag, ref="main~2")
    assert drawn(pending)["masks/sam"] == ("pending", extended)
    assert pending.verdict is None


def test_other_weights_draw_anew_and_the_same_mask_again_does_not(steps: Steps) -> None:
    steps.ingest({"a.jpg": ["shoe"]})
    steps.label("sam")
    second = steps.label("sam", weights=2)
    steps.label("other")
    [shoe] = steps.ids()
    found = asked(steps, shoe)
    assert found.masks[1].drawn.commit_id == second
    assert found.masks[1].signals["area_px"] == area_px(2)
    steps.label("sam", weights=1)
    third = steps.label("sam", weights=2)
    assert asked(steps, shoe).masks[1].drawn.commit_id == third


def test_a_verdict_has_the_policy_in_force_and_since_when_it_is_so(steps: Steps) -> None:
    shard = steps.ingest({"a.jpg": ["shoe"]})
    steps.label("sam")
    first = steps.filter("loose", "sam")
    steps.filter("strict", "sam", keep=False)
    again = steps.filter("loose", "sam")
    steps.label("other")
    steps.more_boxes(shard, "bag")
    shoe, _ = steps.ids()
    assert asked(steps, shoe).verdict is None
    last = steps.filter("lax", "sam")
    verdict = asked(steps, shoe).verdict
    assert verdict is not None
    assert (verdict.given.commit_id, verdict.since.commit_id) == (last, last)
    verdict = asked(steps, shoe, ref="main~2").verdict
    assert verdict is not None
    assert verdict.since.commit_id == again != first


def test_a_policy_that_judges_the_same_again_is_in_force(steps: Steps) -> None:
    steps.ingest({"a.jpg": ["shoe"]})
    steps.ingest({"b.jpg": ["hat", "bag"]})
    steps.label("sam")
    first = steps.filter("loose", "sam")
    shoe, hat, bag = steps.ids()
    second = _drop_last_row(steps, "lax")
    verdict = asked(steps, bag).verdict
    assert verdict is not None
    assert (verdict.keep, verdict.given.commit_id, verdict.since.commit_id) == (
        False, second, second,
    )  # fmt: skip
    verdict = asked(steps, hat).verdict  # judged again, and the same
    assert verdict is not None
    assert (verdict.keep, verdict.given.commit_id, verdict.since.commit_id) == (
        True, second, first,
    )  # fmt: skip
    verdict = asked(steps, shoe).verdict  # the cell of this shard is the very same object
    assert verdict is not None
    assert (verdict.given.commit_id, verdict.since.commit_id) == (first, first)


def _drop_last_row(steps: Steps, policy: str) -> str:
    dataset = steps.dataset()
    shard = dataset.manifest.shards()[1]
    rows = dataset.table(shard, "verdicts").to_pylist()
    rows[-1] |= {"keep": False, "reason": policy}
    cell = write_cell(
        steps.store, pa.Table.from_pylist(rows, schema=schemas.VERDICTS_SCHEMA),
        shard=shard, layer="verdicts",
    )  # fmt: skip
    return steps.commit(dataset.manifest.with_cells([cell]), "filter", config={"name": policy})


def test_merges_are_followed_to_the_side_that_made_the_row(steps: Steps) -> None:
    steps.ingest({"a.jpg": ["shoe"]})
    ingest = Refs(steps.store).resolve("main")
    Refs(steps.store).create_branch("side", ingest)
    ours = steps.label("sam", weights=1)
    theirs = steps.label("other", weights=2, branch="side")
    steps.ingest({"b.jpg": ["hat"]}, branch="side", source="other")
    hats = Refs(steps.store).resolve("side")
    merged = merge_into(steps.store, "main", "side").commit_id
    shoe, hat = steps.ids()
    found = asked(steps, shoe)
    assert found.commit_id == merged
    assert drawn(found) == {"masks/other": ("ok", theirs), "masks/sam": ("ok", ours)}
    assert found.brought.commit_id == ingest
    assert all(mask.carried == () for mask in found.masks)
    assert asked(steps, hat).brought.commit_id == hats


def test_both_sides_of_a_merge_gave_boxes_to_the_same_shard(steps: Steps) -> None:
    shard = steps.ingest({"a.jpg": ["shoe"]})
    first = steps.label("sam")
    Refs(steps.store).create_branch("side", first)
    ours = steps.more_boxes(shard, "bag")
    theirs = steps.more_boxes(shard, "hat", branch="side")
    drew = steps.label("sam", branch="side")
    merged = merge_into(
        steps.store, "main", "side", settlement=Settlement(default="ours")
    ).commit_id
    found = {asked(steps, id_).box["category"]: asked(steps, id_) for id_ in steps.ids()}
    assert {name: one.brought.commit_id for name, one in found.items()}["hat"] == theirs
    assert found["bag"].brought.commit_id == ours
    assert drawn(found["shoe"])["masks/sam"] == ("ok", first)
    assert drawn(found["hat"])["masks/sam"] == ("ok", drew)
    assert [step.commit_id for step in found["hat"].masks[0].carried] == [merged]


def test_a_takedown_gives_the_shard_another_id(steps: Steps) -> None:
    shard = steps.ingest({"a.jpg": ["shoe"], "b.jpg": ["hat"], "c.jpg": ["bag"]}, human=["bag"])
    ingest = Refs(steps.store).resolve("main")
    label = steps.label("sam")
    judged = steps.filter("loose", "sam")
    shoe, hat, bag = steps.ids()
    index = steps.dataset().table(shard, "image_index").to_pylist()
    for row in index[:2]:
        [now] = steps.dataset().manifest.shards()
        gone = take_down(
            steps.store, "main", {now: [row["image_id"]]}, reason="licence", author="ann"
        ).commit_id
    found = asked(steps, bag)
    assert found.shard != shard
    assert found.row == 0
    assert found.brought.commit_id == ingest
    assert drawn(found) == {"masks/human": ("ok", ingest), "masks/sam": ("ok", label)}
    assert found.masks[1].carried[0].commit_id == gone
    assert [step.operation for step in found.masks[1].carried] == ["rm", "rm"]
    assert found.verdict is not None
    assert found.verdict.given.commit_id == found.verdict.since.commit_id == judged
    for annotation in (shoe, hat[:10]):
        with pytest.raises(
            InputError, match=r"no more in commit .* was taken down on .* by ann"
        ) as said:
            asked(steps, annotation)
        assert "(licence)" in str(said.value)
    assert asked(steps, hat, ref="main~1").box["category"] == "hat"
    with pytest.raises(InputError, match=r"a\.jpg was taken down"):
        asked(steps, "shop:1")


# -- which annotation ----------------------------------------------------------------------------


def test_beginnings_and_source_ids(steps: Steps) -> None:
    steps.ingest({"a.jpg": ["shoe", "hat"]})
    steps.ingest({"b.jpg": ["bag"]}, source="other")
    shoe, hat, bag = steps.ids()
    dataset = steps.dataset()
    for text, annotation in (
        (shoe[:6], shoe), (hat.upper(), hat), ("shop:2", hat), ("other:1", bag),
    ):  # fmt: skip
        assert find_annotation(dataset, text).annotation_id == annotation


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected an annotation id"), ("abcde", "6 hex digits of its beginning or more"),
        ("shoe", "expected an annotation id"), ("0" * 33, "expected an annotation id"),
        ("123456", "no annotation '123456' in commit"), ("0" * 32, "which has 1;"),
        ("shop:99", "no annotation 'shop:99'"), (":", "no annotation"), ("shop:", "no annotation"),
    ],
)  # fmt: skip
def test_what_means_no_annotation(steps: Steps, text: str, message: str) -> None:
    steps.ingest({"a.jpg": ["shoe"]})
    with pytest.raises(InputError, match=message):
        asked(steps, text)


def test_an_ambiguous_beginning_lists_what_it_could_be(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    init(store)
    dataset = Dataset.open(store)
    ids = [f"abcdef{number:026x}" for number in range(12)]
    row = {"image_id": "1", "image_row": 0, "category": "shoe", "box_xyxy": [0, 0, 1, 1],
           "is_crowd": False, "is_group_of": False, "flags": [], "source": "a:b",
           "source_annotation_id": "c"}  # fmt: skip
    rows = [row | {"annotation_id": annotation_id} for annotation_id in ids]
    table = pa.Table.from_pylist(rows, schema=schemas.BOXES_SCHEMA)
    dataset.manifest = Manifest([
        write_cell(store, part, shard=mark * 64, layer="boxes")
        for part, mark in ((table.slice(0, 5), "1"), (table.slice(5), "2"))
    ])  # fmt: skip
    with pytest.raises(InputError, match=f"'abcdef' means 12 annotations: {ids[0]}, .* and 4 more"):
        find_annotation(dataset, "abcdef")
    with pytest.raises(InputError, match="means 12 annotations"):
        find_annotation(dataset, "a:b:c")
    assert find_annotation(dataset, ids[7]).row == 2


# -- what is read --------------------------------------------------------------------------------


class RecordingStore(Store):
    """Remembers which objects are read, and how many bytes."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.read: dict[str, int] = {}

    def get_bytes(self, object_id: str) -> bytes:
        data = super().get_bytes(object_id)
        self.read[object_id] = self.read.get(object_id, 0) + len(data)
        return data

    def read_range(self, object_id: str, *, start: int, num_bytes: int) -> bytes:
        self.read[object_id] = self.read.get(object_id, 0) + num_bytes
        return super().read_range(object_id, start=start, num_bytes=num_bytes)


def test_finding_reads_the_ids_alone(tmp_path: Path) -> None:
    store = RecordingStore(str(tmp_path / "store"))
    init(store)
    rng = np.random.default_rng(0)
    size = 20_000
    ids = [rng.bytes(16).hex() for _ in range(size)]
    row = {"image_id": "1", "image_row": 0, "category": "shoe", "is_crowd": False,
           "is_group_of": False, "source": "a"}  # fmt: skip
    rows = [
        row | {"annotation_id": ids[n], "box_xyxy": rng.random(4).tolist(), "flags": [],
               "source_annotation_id": rng.bytes(40).hex()}
        for n in range(size)
    ]  # fmt: skip
    dataset = Dataset.open(store)
    table = pa.Table.from_pylist(rows, schema=schemas.BOXES_SCHEMA)
    cell = write_cell(store, table, shard="1" * 64, layer="boxes")
    dataset.manifest = Manifest([cell])
    store.read.clear()
    assert find_annotation(dataset, ids[-1]).row == size - 1
    assert store.read[cell.object_id] < 0.45 * cell.num_bytes


def test_commits_that_did_not_change_the_shard_are_not_opened(tmp_path: Path) -> None:
    steps = Steps(str(tmp_path / "store"))
    steps.ingest({"a.jpg": ["shoe"]})
    ingest = Refs(steps.store).resolve("main")
    manifests = []
    for number in range(6):
        steps.ingest({f"{number}.jpg": ["hat"]}, source=f"s{number}")
        manifests.append(steps.dataset().commit.manifest)
    label = steps.label("sam")
    for number in range(5):
        steps.filter(f"p{number}", "sam", keep=False)
        manifests.append(steps.dataset().commit.manifest)
    shoe = steps.ids()[0]
    store = RecordingStore(steps.store.url)
    found = blame(Dataset.open(store), shoe, ref="main")
    assert found.brought.commit_id == ingest
    assert drawn(found) == {"masks/sam": ("ok", label)}
    other_shards = {
        cell.object_id for cell in steps.dataset().manifest
        if cell.shard != found.shard and cell.layer not in ("boxes", "verdicts")
    }  # fmt: skip
    own = {cell.object_id for cell in steps.dataset().manifest.of_shard(found.shard)}
    assert not (other_shards - own) & set(store.read)
    # Commits that say that they changed verdicts alone need no manifest for the masks' sake: only
    # the newest two verdicts are compared, and what brought the shard in.
    assert not set(manifests[6:-2]) & set(store.read)


def test_a_missing_object_on_the_way_is_named(steps: Steps) -> None:
    shard = steps.ingest({"a.jpg": ["shoe"]})
    steps.label("sam")
    lost = steps.dataset().cell(shard, "masks/sam")
    steps.more_boxes(shard, "bag")
    shoe, _ = steps.ids()
    (Path(steps.store.root) / layout.object_path(lost.object_id)).unlink()
    with pytest.raises(ObjectMissingError, match=f"shard {shard[:12]} of masks/sam is missing"):
        asked(steps, shoe)


def test_confidence_and_its_calibrator(steps: Steps) -> None:
    steps.ingest({"a.jpg": ["shoe"], "b.jpg": ["hat"]})
    steps.label("sam")
    steps.label("other", weights=2)
    assert asked(steps, steps.ids()[0]).confidence is None
    calibrated = steps.calibrate("sam", "other", calibrator=b"c")
    steps.filter("sure", "sam", by_confidence=True)
    shard = steps.dataset().manifest.shards()[0]
    index = steps.dataset().table(shard, "image_index")
    gone = index["image_id"].to_pylist()[0]
    take_down(steps.store, "main", {shard: [gone]}, reason="asked")
    found = asked(steps, steps.ids()[0]).confidence
    assert found is not None
    assert (found.layer, found.candidate) == ("masks/sam", 0)
    assert found.confidence == found.outputs["sam"] > found.outputs["other"]
    assert found.given.commit_id == calibrated
    attached = Dataset(steps.store, calibrated).commit.attached or {}
    assert found.calibrator == attached["calibrator"]


def test_a_verdict_that_only_got_a_weight_is_the_same_verdict(steps: Steps) -> None:
    shard = steps.ingest({"a.jpg": ["shoe"]})
    steps.label("sam")
    since = steps.filter("loose", "sam")
    dataset = steps.dataset()
    verdicts = dataset.cell(shard, "verdicts")
    for weight in (None, 0.5):
        table = dataset.table(shard, "verdicts").drop(["weight"])
        if weight:
            table = table.append_column("weight", pa.array([weight], pa.float32()))
        cell = write_cell(steps.store, table, shard=shard, layer="verdicts", inputs=verdicts.inputs)
        given = steps.commit(dataset.manifest.with_cells([cell]), "filter")
        found = asked(steps, steps.ids()[0]).verdict
        assert found is not None
        assert (found.since.commit_id, found.given.commit_id) == (since, given)
        assert found.weight == weight
