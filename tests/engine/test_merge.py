"""Merging, reverting and taking down what real steps made on two branches."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engine.filter import FilterConfig, draft_filter, filter_masks
from engine.ingest import ingest
from engine.label import LabelConfig, label
from engine.policy import Policy
from manifests import schemas
from manifests.commit import Commit
from manifests.dataset import Dataset
from manifests.errors import (
    CommitConflictError,
    CommitError,
    InputError,
    MergeConflictError,
    NothingToCommitError,
    ObjectMissingError,
    RefError,
)
from manifests.find_images import Wanted, find_images
from manifests.fsck import FsckOptions, fsck
from manifests.gc import GcOptions, collect_garbage
from manifests.merge import create_branch, create_tag, merge_into, reset, revert
from manifests.refs import Refs
from manifests.removed import Removals
from manifests.store import Store
from manifests.takedown import take_down
from manifests.three_way import Settlement
from manifests.writer import Writer
from tests.engine.conftest import INLINE, PhotoSet

_NOW = GcOptions(grace_s=0, keep_log_s=0)


def _ingest(store: Store, photos: PhotoSet, name: str, branch: str = "main") -> str:
    return ingest(store, replace(photos.config(name), branch=branch))


def _label(store: Store, branch: str = "main", teacher: str = "box") -> str:
    return label(store, LabelConfig(teacher=teacher, branch=branch, pool=INLINE))


def _filter(store: Store, branch: str = "main", **rules: float) -> str:
    policy = Policy(name="p", teachers=("box",), rules=rules)
    return filter_masks(store, FilterConfig(policy=policy, branch=branch))


def _rows(dataset: Dataset, layer: str) -> dict[str, dict[str, object]]:
    """annotation_id -> row of a layer, over all shards."""
    found: dict[str, dict[str, object]] = {}
    for cell in dataset.manifest.of_layer(schemas.BOXES):
        ids = dataset.table(cell.shard, schemas.BOXES)["annotation_id"].to_pylist()
        if dataset.manifest.get(cell.shard, layer):
            rows = dataset.table(cell.shard, layer).to_pylist()
            found |= dict(zip(ids, rows, strict=True))
    return found


def _image_ids(dataset: Dataset) -> list[str]:
    return [
        image_id
        for cell in dataset.manifest.of_layer(schemas.IMAGE_INDEX)
        for image_id in dataset.table(cell.shard, cell.layer)["image_id"].to_pylist()
    ]


def _check_aligned(dataset: Dataset) -> None:
    """Every annotation layer has the rows of boxes, and no picture or box comes twice."""
    for shard in dataset.manifest.shards():
        boxes = dataset.cell(shard, schemas.BOXES)
        for cell in dataset.manifest.of_shard(shard):
            if cell.layer not in (schemas.IMAGES, schemas.IMAGE_INDEX):
                assert cell.num_rows == boxes.num_rows, cell.layer
                assert dataset.table(shard, cell.layer).num_rows == boxes.num_rows
        stored = dataset.table(shard, schemas.IMAGE_INDEX)
        index = stored.to_pylist()
        data = list(dataset.images(shard, stored))
        assert [len(entry) for entry in data] == [row["size"] for row in index]
        rows = dataset.table(shard, schemas.BOXES).to_pylist()
        assert [row["image_id"] for row in rows] == [
            index[row["image_row"]]["image_id"] for row in rows
        ]
    images = _image_ids(dataset)
    assert len(set(images)) == len(images)
    boxes_there = sum(cell.num_rows for cell in dataset.manifest.of_layer(schemas.BOXES))
    assert len(_rows(dataset, schemas.BOXES)) == boxes_there
    dataset.commit.ledger.check()


@pytest.fixture
def two(photos: PhotoSet, more_photos: PhotoSet) -> tuple[PhotoSet, PhotoSet]:
    """Two sets of different pictures: three and two photos, four and two boxes."""
    photos.add("a.jpg", [10, 5, 20, 30], [0, 0, 40, 40])
    photos.add("b.jpg", [1, 2, 30, 30])
    photos.add("c.jpg", [5, 5, 30, 30])
    for name, seed in (("x.jpg", 101), ("y.jpg", 102)):
        more_photos.add(name, [4, 4, 30, 20], content=_picture(seed))
    return photos, more_photos


def _picture(seed: int) -> bytes:
    from tests.engine.conftest import jpeg, make_photo

    return jpeg(make_photo(seed))


class TestMerge:
    def test_different_data_needs_nothing(
        self, store: Store, two: tuple[PhotoSet, PhotoSet]
    ) -> None:
        create_branch(store, "side", "main")
        _ingest(store, two[0], "one")
        _label(store)
        theirs = _ingest(store, two[1], "two", "side")
        _label(store, "side")
        done = merge_into(store, "main", "side")
        assert (done.outcome, done.settled, done.stale) == ("merged", (), {})
        dataset = Dataset.open(store)
        _check_aligned(dataset)
        assert dataset.commit.parents[1] == Refs(store).resolve("side")
        assert len(_image_ids(dataset)) == 5
        assert {row["status"] for row in _rows(dataset, "masks/box").values()} == {"ok"}
        assert merge_into(store, "main", theirs).outcome == "up_to_date"
        assert merge_into(store, "side", "main").outcome == "fast_forward"
        assert Refs(store).resolve("side") == Refs(store).resolve("main")

    def test_both_orders_hold_the_same(self, store: Store, two: tuple[PhotoSet, PhotoSet]) -> None:
        create_branch(store, "side", "main")
        _ingest(store, two[0], "one")
        _ingest(store, two[1], "two", "side")
        create_branch(store, "copy", "main")
        merge_into(store, "main", "side")
        merge_into(store, "side", "copy")
        one, other = Dataset.open(store), Dataset.open(store, "side")
        assert {cell.object_id for cell in one.manifest} == {
            cell.object_id for cell in other.manifest
        }

    def test_a_picture_that_both_ingested_is_one(
        self, store: Store, two: tuple[PhotoSet, PhotoSet]
    ) -> None:
        """It keeps our shard, gets both sides' boxes, and their boxes get both sides' masks."""
        photos, more = two
        more.add(
            "again.jpg",
            [10, 5, 20, 30],
            [2, 2, 9, 9],
            content=(photos.images / "a.jpg").read_bytes(),
        )
        create_branch(store, "side", "main")
        _ingest(store, photos, "one")
        _label(store)
        _filter(store)
        _ingest(store, more, "two", "side")
        _label(store, "side")
        done = merge_into(store, "main", "side")
        assert (done.num_duplicates, done.stale) == (1, {"verdicts": 1})
        dataset = Dataset.open(store)
        _check_aligned(dataset)
        boxes = _rows(dataset, schemas.BOXES)
        assert len(boxes) == 4 + 2 + 1  # the twin of [10, 5, 20, 30] is left out
        assert {row["status"] for row in _rows(dataset, "masks/box").values()} == {"ok"}
        ledger = {row.layer: row for row in dataset.commit.ledger.totals()}
        assert ledger["images"].dropped == {"duplicate_image": 1}
        assert ledger["boxes"].dropped == {"duplicate_box": 1}
        index = dataset.table(dataset.manifest.shards()[0], schemas.IMAGE_INDEX).to_pylist()
        assert [o["source"] for o in index[0]["origins"]] == ["one", "two"]
        _filter(store)
        assert all(row["keep"] for row in _rows(Dataset.open(store), "verdicts").values())

    @pytest.mark.parametrize("name", ["one", "two"])
    def test_masks_of_a_box_that_both_have_come_over(
        self, store: Store, two: tuple[PhotoSet, PhotoSet], name: str
    ) -> None:
        """People drew it on their side only, and a teacher saw it only there."""
        photos, more = two
        picture = more.add("again.jpg", content=(photos.images / "a.jpg").read_bytes())
        polygon = [[10, 5, 30, 5, 30, 35, 10, 35]]
        more.annotate(picture, [10, 5, 20, 30], segmentation=polygon)
        create_branch(store, "side", "main")
        _ingest(store, photos, "one")
        _ingest(store, more, name, "side")
        _label(store, "side")
        merge_into(store, "main", "side")
        dataset = Dataset.open(store)
        _check_aligned(dataset)
        boxes = _rows(dataset, schemas.BOXES)
        assert len(boxes) == 4 + 2
        [drawn] = [key for key, row in boxes.items() if row["box_xyxy"] == [10, 5, 30, 35]]
        for layer in ("masks/human", "masks/box"):
            assert _rows(dataset, layer)[drawn]["status"] == schemas.OK

    def test_a_picture_in_quarantine_there_is_still_drawn_here(
        self, store: Store, two: tuple[PhotoSet, PhotoSet]
    ) -> None:
        photos, more = two
        more.document["images"].clear()
        more.document["annotations"].clear()
        more.add("again.jpg", [2, 2, 9, 9], content=(photos.images / "a.jpg").read_bytes())
        create_branch(store, "side", "main")
        _ingest(store, photos, "one")
        ingest(store, replace(more.config("two", min_sharpness=1e9), branch="side"))
        _label(store, "side")
        merge_into(store, "main", "side")
        _label(store)
        assert {row["status"] for row in _rows(Dataset.open(store), "masks/box").values()} == {"ok"}

    def test_two_sources_with_the_same_pictures_and_boxes(
        self, store: Store, two: tuple[PhotoSet, PhotoSet]
    ) -> None:
        create_branch(store, "side", "main")
        _ingest(store, two[0], "one")
        _ingest(store, two[0], "two", "side")
        merge_into(store, "main", "side")
        dataset = Dataset.open(store)
        _check_aligned(dataset)
        assert len(_rows(dataset, schemas.BOXES)) == 4
        ledger = {row.layer: row for row in dataset.commit.ledger.totals()}
        assert ledger["boxes"].dropped == {"duplicate_box": 4}

    def test_a_teacher_came_to_a_shard_that_a_merge_had_written_again(
        self, store: Store, two: tuple[PhotoSet, PhotoSet]
    ) -> None:
        """Whichever side is taken, no picture is there twice."""
        photos, more = two
        more.add("again.jpg", [2, 2, 9, 9], content=(photos.images / "a.jpg").read_bytes())
        create_branch(store, "side", "main")
        _ingest(store, photos, "one")
        _ingest(store, more, "two", "side")
        merge_into(store, "main", "side")
        _label(store, "side")
        with pytest.raises(MergeConflictError):
            merge_into(store, "main", "side")
        merge_into(store, "main", "side", settlement=Settlement(default="theirs"))
        dataset = Dataset.open(store)
        _check_aligned(dataset)
        assert len(_image_ids(dataset)) == 5
        drawn = [row["status"] for row in _rows(dataset, "masks/box").values()]
        assert drawn.count("ok") == 3

    def test_what_both_took_back_counts_once(
        self, store: Store, two: tuple[PhotoSet, PhotoSet]
    ) -> None:
        photos, more = two
        _ingest(store, photos, "one")
        content = (photos.images / "a.jpg").read_bytes()
        more.document["images"].clear()
        more.document["annotations"].clear()
        for number, (name, branch) in enumerate([("x", "main"), ("y", "main"), ("z", "side")]):
            more.document["annotations"].clear()
            more.document["images"].clear()
            more.add("again.jpg", [number, 2, 9, 9], content=content)
            commit_id = _ingest(store, more, name, branch)
            if name == "x":
                create_branch(store, "side", "main")
                revert(store, "main", commit_id)
                revert(store, "side", commit_id, message="on this side, too")
        merge_into(store, "main", "side")
        dataset = Dataset.open(store)
        _check_aligned(dataset)
        assert len(_rows(dataset, schemas.BOXES)) == 4 + 2

    def test_a_layer_that_one_side_took_back_stays_out(
        self, store: Store, two: tuple[PhotoSet, PhotoSet]
    ) -> None:
        photos, more = two
        _ingest(store, photos, "one")
        labelled = _label(store)
        create_branch(store, "side", "main")
        revert(store, "main", labelled)
        content = (photos.images / "a.jpg").read_bytes()
        more.add("again.jpg", [2, 2, 9, 9], content=content)
        _ingest(store, more, "two")
        more.annotate(3, [3, 3, 9, 9])
        _ingest(store, more, "three", "side")
        merge_into(store, "main", "side")
        assert "masks/box" not in Dataset.open(store).manifest.layers()
        _label(store, "side")
        with pytest.raises(MergeConflictError, match="masks/box of shard"):
            merge_into(store, "main", "side")
        merge_into(store, "main", "side", settlement=Settlement(default="theirs"))
        _check_aligned(Dataset.open(store))
        assert "masks/box" in Dataset.open(store).manifest.layers()

    def test_boxes_grew_here_and_a_teacher_came_there(
        self, store: Store, two: tuple[PhotoSet, PhotoSet]
    ) -> None:
        """The new layer is realigned: new boxes are pending, and labelling draws only these."""
        photos, more = two
        _ingest(store, photos, "one")
        create_branch(store, "side", "main")
        _label(store, "side")
        drawn = _rows(Dataset.open(store, "side"), "masks/box")
        more.add("again.jpg", [2, 2, 9, 9], content=(photos.images / "b.jpg").read_bytes())
        _ingest(store, more, "two")
        for branch, other in (("main", "side"), ("side", "main~0")):
            create_branch(store, f"{branch}-merged", branch)
            merge_into(
                store,
                f"{branch}-merged",
                other if other == "side" else Refs(store).history("main")[-1].commit,
            )
            dataset = Dataset.open(store, f"{branch}-merged")
            _check_aligned(dataset)
            rows = _rows(dataset, "masks/box")
            assert {id_: rows[id_] for id_ in drawn} == drawn
            pending = [row for id_, row in rows.items() if id_ not in drawn]
            assert {row["status"] for row in pending} == {"pending"}
        _label(store, "main-merged")
        done = _rows(Dataset.open(store, "main-merged"), "masks/box")
        assert {row["status"] for row in done.values()} == {"ok"}

    def test_boxes_grew_on_both_sides(
        self, store: Store, two: tuple[PhotoSet, PhotoSet], tmp_path: Path
    ) -> None:
        photos, more = two
        third = PhotoSet(tmp_path / "third")
        content = (photos.images / "a.jpg").read_bytes()
        more.document["images"].clear(), more.document["annotations"].clear()
        more.add("p.jpg", [2, 2, 9, 9], content=content)
        third.add("q.jpg", [3, 3, 9, 9], content=content)
        _ingest(store, photos, "one")
        _label(store)
        create_branch(store, "side", "main")
        _ingest(store, more, "two")
        _ingest(store, third, "three", "side")
        _label(store, "side")
        merge_into(store, "main", "side")
        dataset = Dataset.open(store)
        _check_aligned(dataset)
        assert len(_rows(dataset, schemas.BOXES)) == 6
        statuses = [row["status"] for row in _rows(dataset, "masks/box").values()]
        assert sorted(statuses) == ["ok"] * 5 + ["pending"]
        index = dataset.table(dataset.manifest.shards()[0], schemas.IMAGE_INDEX).to_pylist()
        assert [o["source"] for o in index[0]["origins"]] == ["one", "two", "three"]

    def test_two_policies_are_a_conflict_that_can_be_settled(
        self, store: Store, two: tuple[PhotoSet, PhotoSet]
    ) -> None:
        _ingest(store, two[0], "one")
        _label(store)
        create_branch(store, "side", "main")
        _filter(store)
        _filter(store, "side", min_area_px=700)
        with pytest.raises(
            MergeConflictError, match=r"changed 1 cell differently: verdicts of"
        ) as e:
            merge_into(store, "main", "side")
        assert len(e.value.conflicts) == 1
        create_branch(store, "ours", "main")
        merge_into(store, "ours", "side", settlement=Settlement(default="ours"))
        done = merge_into(
            store, "main", "side", settlement=Settlement(by_layer={"verdicts": "theirs"})
        )
        assert [conflict.layer for conflict in done.settled] == ["verdicts"]
        kept = {b: [r["keep"] for r in _rows(Dataset.open(store, b), "verdicts").values()]
                for b in ("ours", "main", "side")}  # fmt: skip
        assert all(kept["ours"])
        assert kept["main"] == kept["side"] != kept["ours"]

    def test_verdicts_on_old_masks_are_taken_out(
        self, store: Store, two: tuple[PhotoSet, PhotoSet]
    ) -> None:
        """One side filters, the other draws anew: nobody may keep verdicts on masks that went."""
        photos, more = two
        _ingest(store, photos, "one")
        _label(store)
        create_branch(store, "side", "main")
        _filter(store)
        more.add("again.jpg", [2, 2, 9, 9], content=(photos.images / "b.jpg").read_bytes())
        _ingest(store, more, "two", "side")
        done = merge_into(store, "main", "side")
        assert done.stale == {"verdicts": 1}
        dataset = Dataset.open(store)
        assert "verdicts" not in dataset.manifest.layers()
        ledger = {row.layer: row for row in dataset.commit.ledger.totals()}
        assert ledger["verdicts"].dropped == {"inputs_changed": 4}

    def test_unrelated_histories(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from manifests.dataset import init

        # First commits by one author in one second are the same commit.
        monkeypatch.setenv("MASKMILL_AUTHOR", "somebody else")
        other = Store(str(tmp_path / "other"))
        foreign = init(other)
        path = Path("objects") / foreign[:2] / foreign
        (Path(store.root) / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(other.root) / path, Path(store.root) / path)
        manifest = Dataset(other, foreign).commit.manifest
        assert store.object_size(manifest) is not None  # both are empty
        with pytest.raises(CommitError, match="have no common commit"):
            merge_into(store, "main", foreign)

    def test_nothing_of_that_name(self, store: Store) -> None:
        with pytest.raises(RefError, match="the nearest is 'main'"):
            merge_into(store, "main", "mian")

    def test_crosswise(self, store: Store, two: tuple[PhotoSet, PhotoSet]) -> None:
        create_branch(store, "side", "main")
        _ingest(store, two[0], "one")
        _ingest(store, two[1], "two", "side")
        first = Refs(store).resolve("main")
        merge_into(store, "main", "side")
        merge_into(store, "side", first)
        _label(store)
        _filter(store)
        done = merge_into(store, "side", "main")
        assert done.outcome == "merged"
        one, other = Dataset.open(store), Dataset.open(store, "side")
        assert {cell.object_id for cell in one.manifest} == {
            cell.object_id for cell in other.manifest
        }


class TestMeanwhile:
    """The branch moves while a step is at work."""

    def test_an_ingest_lands_on_top_of_another(
        self, store: Store, two: tuple[PhotoSet, PhotoSet], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        photos, more = two
        more.add("again.jpg", [10, 5, 20, 30], content=(photos.images / "a.jpg").read_bytes())
        _while_at_work(monkeypatch, lambda: _ingest(store, photos, "one"))
        _ingest(store, more, "two")
        dataset = Dataset.open(store)
        _check_aligned(dataset)
        assert dataset.commit.operation.config["source"]["name"] == "two"
        assert len(_image_ids(dataset)) == 5

    @pytest.mark.parametrize("is_judged_again", [False, True])
    def test_a_filter_is_refused_where_boxes_came(
        self, store: Store, two: tuple[PhotoSet, PhotoSet], is_judged_again: bool
    ) -> None:
        """Its verdicts are not lost unsaid, whether others judged the new masks or not."""
        photos, more = two
        _ingest(store, photos, "one")
        _label(store)
        _filter(store)
        writer = Writer(store, "main")
        strict = Policy(name="strict", teachers=("box",), rules={"min_area_px": 9999})
        draft = draft_filter(writer.dataset, FilterConfig(policy=strict))
        more.add("again.jpg", [2, 2, 9, 9], content=(photos.images / "b.jpg").read_bytes())
        _ingest(store, more, "two")
        if is_judged_again:
            _label(store)
            _filter(store)
        with pytest.raises(CommitConflictError, match="branch 'main' moved"):
            writer.publish(draft)

    def test_a_filter_is_refused_where_masks_were_drawn_anew(
        self, store: Store, two: tuple[PhotoSet, PhotoSet], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        photos, more = two
        _ingest(store, photos, "one")
        _label(store)
        more.add("again.jpg", [2, 2, 9, 9], content=(photos.images / "b.jpg").read_bytes())
        _while_at_work(monkeypatch, lambda: _ingest(store, more, "two"))
        with pytest.raises(CommitConflictError, match="repeat the command"):
            _filter(store)
        _label(store)
        _filter(store)
        assert all(row["keep"] for row in _rows(Dataset.open(store), "verdicts").values())


def _while_at_work(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], object]) -> None:
    """Lets something happen once, just before the next commit is published."""
    from manifests.writer import Writer

    publish = Writer.publish

    def late(self: Writer, draft: object) -> str:
        monkeypatch.setattr(Writer, "publish", publish)
        meanwhile()
        return publish(self, draft)  # type: ignore[arg-type]

    monkeypatch.setattr(Writer, "publish", late)


class TestRevert:
    def test_an_ingest_is_taken_back(self, store: Store, two: tuple[PhotoSet, PhotoSet]) -> None:
        _ingest(store, two[0], "one")
        before = Dataset.open(store)
        undone = _ingest(store, two[1], "two")
        _label_one = revert(store, "main", undone)
        assert _label_one.outcome == "reverted"
        dataset = Dataset.open(store)
        assert dataset.commit.manifest == before.commit.manifest
        assert dataset.commit.categories == before.commit.categories
        assert revert(store, "main", "main").outcome == "reverted"
        assert len(_image_ids(Dataset.open(store))) == 5

    def test_origins_go_with_the_ingest(self, store: Store, two: tuple[PhotoSet, PhotoSet]) -> None:
        """Also where another source brought boxes for the same picture since."""
        photos, more = two
        _ingest(store, photos, "one")
        content = (photos.images / "a.jpg").read_bytes()
        more.add("again.jpg", [2, 2, 9, 9], content=content)
        undone = _ingest(store, more, "two")
        more.annotate(3, [3, 3, 9, 9])
        _ingest(store, more, "three")
        revert(store, "main", undone, settlement=Settlement(default="ours"))
        dataset = Dataset.open(store)
        _check_aligned(dataset)
        index = dataset.table(dataset.manifest.shards()[0], schemas.IMAGE_INDEX).to_pylist()
        assert [origin["source"] for origin in index[0]["origins"]] == ["one", "three"]

    def test_what_later_steps_built_on_is_a_conflict(
        self, store: Store, two: tuple[PhotoSet, PhotoSet]
    ) -> None:
        undone = _ingest(store, two[0], "one")
        _label(store)
        with pytest.raises(MergeConflictError, match="masks/box"):
            revert(store, "main", undone)
        revert(store, "main", undone, settlement=Settlement(default="theirs"))
        assert len(Dataset.open(store).manifest) == 0

    def test_verdicts_of_an_older_policy_come_back(
        self, store: Store, two: tuple[PhotoSet, PhotoSet]
    ) -> None:
        _ingest(store, two[0], "one")
        _label(store)
        _filter(store)
        before = Dataset.open(store).commit.manifest
        _filter(store, min_area_px=700)
        revert(store, "main", "main")
        assert Dataset.open(store).commit.manifest == before

    def test_first_and_foreign_commits(self, store: Store, two: tuple[PhotoSet, PhotoSet]) -> None:
        with pytest.raises(CommitError, match="is the first"):
            revert(store, "main", "main")
        create_branch(store, "side", "main")
        foreign = _ingest(store, two[0], "one", "side")
        with pytest.raises(CommitError, match="is not in the history of 'main'"):
            revert(store, "main", foreign)


class TestReset:
    def test_is_a_new_entry_of_the_log(self, store: Store, two: tuple[PhotoSet, PhotoSet]) -> None:
        first = _ingest(store, two[0], "one")
        second = _label(store)
        assert reset(store, "main", first).outcome == "reset"
        log = Refs(store).history("main")
        assert [entry.reason for entry in log] == ["init", "ingest", "label", "reset"]
        assert Refs(store).resolve("main") == first
        assert Refs(store).resolve("main@{1}") == second
        assert reset(store, "main", "main@{1}").commit_id == second
        assert reset(store, "main", second).outcome == "up_to_date"


class TestTakedown:
    def _down(self, store: Store, name: str, branch: str = "main") -> str:
        dataset = Dataset.open(store, branch)
        found = find_images(dataset, Wanted(file_names=(name,)))
        return take_down(store, branch, found, reason="asked").commit_id

    def test_image_boxes_masks_and_bytes_go(
        self, store: Store, two: tuple[PhotoSet, PhotoSet]
    ) -> None:
        _ingest(store, two[0], "one")
        _label(store)
        _filter(store)
        before = Dataset.open(store)
        [old] = before.manifest.shards()
        gone = before.table(old, schemas.IMAGE_INDEX)["image_id"][0].as_py()
        done = take_down(
            store, "main", find_images(before, Wanted(image_ids=(gone[:8],))), reason="asked"
        )
        assert (done.num_boxes, done.still_in) == (2, ())
        assert [row.file_name for row in done.images] == ["a.jpg"]
        dataset = Dataset.open(store)
        _check_aligned(dataset)
        assert gone not in _image_ids(dataset)
        kept = _rows(before, "masks/box")
        assert all(kept[id_] == row for id_, row in _rows(dataset, "masks/box").items())
        ledger = {row.layer: row for row in dataset.commit.ledger.totals()}
        assert ledger["images"].dropped == {"taken_down": 1}
        assert ledger["boxes"].dropped == {"taken_down": 2}
        assert collect_garbage(store, GcOptions()).num_taken_down == 1
        assert store.object_size(old) is None
        with pytest.raises(ObjectMissingError, match=r"1 image of it was taken down .* \(asked\)"):
            list(before.images(old, before.table(old, schemas.IMAGE_INDEX)))
        assert before.table(old, "masks/box").num_rows == 4  # history can still be read
        _check_aligned(dataset)

    def test_nothing_is_drawn_again(self, store: Store, two: tuple[PhotoSet, PhotoSet]) -> None:
        _ingest(store, two[0], "one")
        _label(store)
        self._down(store, "a.jpg")
        with pytest.raises(NothingToCommitError):
            _label(store)

    def test_no_ingest_brings_it_back(self, store: Store, two: tuple[PhotoSet, PhotoSet]) -> None:
        _ingest(store, two[0], "one")
        self._down(store, "a.jpg")
        two[0].add("new.jpg", [1, 1, 30, 30], content=_picture(7))
        _ingest(store, two[0], "one")
        dataset = Dataset.open(store)
        _check_aligned(dataset)
        assert len(_image_ids(dataset)) == 3
        ledger = {row.layer: row for row in dataset.commit.ledger.totals()}
        assert ledger["images"].dropped == {"taken_down": 1, "already_in_dataset": 2}
        assert ledger["boxes"].dropped["image_taken_down"] == 2

    def test_no_merge_brings_it_back(self, store: Store, two: tuple[PhotoSet, PhotoSet]) -> None:
        """Work that another branch did on the old shard comes over to its successor."""
        _ingest(store, two[0], "one")
        create_branch(store, "side", "main")
        _label(store, "side")
        self._down(store, "a.jpg")
        collect_garbage(store, _NOW)
        done = merge_into(store, "main", "side")
        assert done.settled == ()
        dataset = Dataset.open(store)
        _check_aligned(dataset)
        assert len(_image_ids(dataset)) == 2
        assert {row["status"] for row in _rows(dataset, "masks/box").values()} == {"ok"}
        merge_into(store, "side", "main")
        assert len(_image_ids(Dataset.open(store, "side"))) == 2
        assert collect_garbage(store, _NOW).num_taken_down == 1  # side does not show it any more

    @pytest.mark.parametrize(("into", "other"), [("main", "side"), ("side", "main")])
    def test_a_picture_that_the_other_side_ingested_itself(
        self, store: Store, two: tuple[PhotoSet, PhotoSet], into: str, other: str
    ) -> None:
        photos, more = two
        more.add("again.jpg", [2, 2, 9, 9], content=(photos.images / "a.jpg").read_bytes())
        create_branch(store, "side", "main")
        _ingest(store, photos, "one")
        _ingest(store, more, "two", "side")
        gone = Removals.load(store, Commit.load(store, self._down(store, "a.jpg"))).image_ids
        with pytest.raises(CommitError, match="a reset would bring them back"):
            reset(store, "main", "side")
        merge_into(store, into, other)
        dataset = Dataset.open(store, into)
        _check_aligned(dataset)
        assert gone.isdisjoint(_image_ids(dataset))
        assert len(_image_ids(dataset)) == 4
        reset(store, other, into)
        assert collect_garbage(store, _NOW).num_taken_down == 2
        assert fsck(store, FsckOptions(full=True)).is_sound

    def test_a_picture_of_a_shard_that_a_merge_had_written_again(
        self, store: Store, two: tuple[PhotoSet, PhotoSet]
    ) -> None:
        """Our side has the rest of a shard, the other took an image out of the whole of it."""
        photos, more = two
        more.add("again.jpg", [2, 2, 9, 9], content=(photos.images / "a.jpg").read_bytes())
        create_branch(store, "side", "main")
        _ingest(store, photos, "one")
        _ingest(store, more, "two", "side")
        merge_into(store, "main", "side")
        found = find_images(Dataset.open(store, "side"), Wanted(file_names=("x.jpg", "again.jpg")))
        take_down(store, "side", found, reason="asked to")
        merge_into(store, "main", "side")
        dataset = Dataset.open(store)
        _check_aligned(dataset)
        assert len(_image_ids(dataset)) == 3
        assert not {image_id for ids in found.values() for image_id in ids} & {*_image_ids(dataset)}

    def test_a_shard_that_neither_side_has_any_more(
        self, store: Store, two: tuple[PhotoSet, PhotoSet]
    ) -> None:
        """Its images object may be gone, and is not needed for the merge."""
        first = _ingest(store, two[0], "one")
        create_branch(store, "side", "main")
        self._down(store, "a.jpg")
        revert(store, "main", first)
        revert(store, "side", first)
        _ingest(store, two[1], "two", "side")
        assert collect_garbage(store, _NOW).num_taken_down == 1
        merge_into(store, "main", "side")
        assert len(_image_ids(Dataset.open(store))) == 2

    def test_two_branches_take_down_different_images(
        self, store: Store, two: tuple[PhotoSet, PhotoSet]
    ) -> None:
        _ingest(store, two[0], "one")
        _label(store)
        create_branch(store, "side", "main")
        self._down(store, "a.jpg")
        self._down(store, "b.jpg", "side")
        collect_garbage(store, _NOW)
        merge_into(store, "main", "side")
        dataset = Dataset.open(store)
        _check_aligned(dataset)
        index = dataset.table(dataset.manifest.shards()[0], schemas.IMAGE_INDEX)
        assert index["file_name"].to_pylist() == ["c.jpg"]
        assert len(Removals.load(store, dataset.commit).image_ids) == 2

    def test_everything_of_a_shard(self, store: Store, two: tuple[PhotoSet, PhotoSet]) -> None:
        _ingest(store, two[1], "two")
        dataset = Dataset.open(store)
        ids = _image_ids(dataset)
        take_down(store, "main", {dataset.manifest.shards()[0]: ids}, reason="all of it")
        assert len(Dataset.open(store).manifest) == 0
        with pytest.raises(NothingToCommitError):
            _ingest(store, two[1], "two")

    def test_reverted_in_time_and_too_late(
        self, store: Store, two: tuple[PhotoSet, PhotoSet]
    ) -> None:
        _ingest(store, two[0], "one")
        before = Dataset.open(store)
        self._down(store, "a.jpg")
        second = self._down(store, "b.jpg")
        revert(store, "main", "main~1")  # a.jpg comes back, b.jpg does not
        dataset = Dataset.open(store)
        _check_aligned(dataset)
        index = dataset.table(dataset.manifest.shards()[0], schemas.IMAGE_INDEX)
        assert index["file_name"].to_pylist() == ["a.jpg", "c.jpg"]
        revert(store, "main", second)
        dataset = Dataset.open(store)
        _check_aligned(dataset)
        assert sorted(_image_ids(dataset)) == sorted(_image_ids(before))
        assert not Removals.load(store, dataset.commit)
        down = self._down(store, "c.jpg")
        collect_garbage(store, _NOW)
        with pytest.raises(InputError, match="ingest the images again instead"):
            revert(store, "main", down)

    def test_reverted_and_no_longer_at_a_head(
        self, store: Store, two: tuple[PhotoSet, PhotoSet]
    ) -> None:
        """What a tag shows is kept, since by its own account nothing was taken down."""
        first = _ingest(store, two[0], "one")
        revert(store, "main", self._down(store, "a.jpg"))
        create_tag(store, "release", "main")
        revert(store, "main", first)
        assert collect_garbage(store, _NOW).num_taken_down == 0
        _check_aligned(Dataset.open(store, "release"))
        assert fsck(store).is_sound

    def test_known_to_a_tag_alone(self, store: Store, two: tuple[PhotoSet, PhotoSet]) -> None:
        _ingest(store, two[0], "one")
        create_branch(store, "side", "main~1")
        self._down(store, "a.jpg")
        create_tag(store, "release", "main")
        Refs(store).delete_branch("main")
        assert collect_garbage(store, _NOW).num_taken_down == 1

    def test_no_reset_brings_it_back(self, store: Store, two: tuple[PhotoSet, PhotoSet]) -> None:
        first = _ingest(store, two[0], "one")
        self._down(store, "a.jpg")
        with pytest.raises(CommitError, match="a reset would bring them back"):
            reset(store, "main", first)

    def test_who_else_shows_it(self, store: Store, two: tuple[PhotoSet, PhotoSet]) -> None:
        """Also where the picture lies in another shard, from another source."""
        photos, more = two
        create_branch(store, "side", "main")
        _ingest(store, photos, "one")
        Refs(store).create_tag("v1", Refs(store).resolve("main"))
        more.add("again.jpg", [2, 2, 9, 9], content=(photos.images / "a.jpg").read_bytes())
        _ingest(store, more, "two", "side")
        found = find_images(Dataset.open(store), Wanted(file_names=("a.jpg",)))
        done = take_down(store, "main", found, reason="asked")
        assert done.still_in == ("branch side", "tag v1")

    @pytest.mark.parametrize(
        ("wanted", "message"),
        [
            ({"file_names": ("nope.jpg",)}, "no image with file nope.jpg"),
            ({"image_ids": ("abc",)}, "at least 6 hex digits"),
            ({"image_ids": ("ffffffff", "eeeeeeee")}, "id ffffffff and 1 more"),
            ({"source_image_ids": ("77",)}, "no image with source id 77"),
        ],
    )
    def test_words_that_mean_nothing(
        self, store: Store, two: tuple[PhotoSet, PhotoSet], wanted: dict[str, tuple[str, ...]],
        message: str,
    ) -> None:  # fmt: skip
        _ingest(store, two[0], "one")
        with pytest.raises(InputError, match=message):
            find_images(Dataset.open(store), Wanted(**wanted))

    def test_a_reason_is_needed(self, store: Store, two: tuple[PhotoSet, PhotoSet]) -> None:
        _ingest(store, two[0], "one")
        found = find_images(Dataset.open(store), Wanted(source_image_ids=("1",)))
        with pytest.raises(InputError, match="needs a reason"):
            take_down(store, "main", found, reason=" ")
        with pytest.raises(InputError, match="no image was named"):
            take_down(store, "main", {}, reason="why not")
