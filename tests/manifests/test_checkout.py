"""A commit as a folder: what the next checkout writes, what it leaves, and what stops it."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from manifests import layout
from manifests.checkout import CheckoutOptions, CheckoutSummary, checkout
from manifests.checkout_files import locked
from manifests.checkout_names import CheckoutNames
from manifests.checkout_state import STATE_FOLDER
from manifests.commit import Commit
from manifests.dataset import Dataset, init, operation
from manifests.digest import content_id
from manifests.errors import (
    InputError,
    ObjectDamagedError,
    ObjectMissingError,
    RefError,
    StoreError,
)
from manifests.export import export
from manifests.export_names import NamedImage
from manifests.export_plan import ExportOptions
from manifests.manifest import Cell, Manifest
from manifests.store import Store
from tests.manifests.conftest import DatasetBuilder
from tests.manifests.private_mount import READ_ONLY, run_mounted

_FORCE = CheckoutOptions(force=True)


def run(dataset: Dataset, folder: Path, **options: Any) -> CheckoutSummary:
    return checkout(dataset, folder, CheckoutOptions(**options), ref="main")


def shown(folder: Path) -> dict[str, bytes]:
    """Every file but the state's, by name."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and STATE_FOLDER not in path.parts
    }


def annotations(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "annotations.json").read_bytes())
    return found


def stamps(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_ino for name in shown(folder)}


def commit_of(store: Store, cells: Sequence[Cell]) -> Dataset:
    """A root commit with just these cells."""
    commit = Commit(
        parents=(), manifest=Manifest(cells).save(store), author="test", message="test",
        time="2026-11-23T20:00:00Z", operation=operation("test", version=1, config={}),
    )  # fmt: skip
    return Dataset(store, commit.save(store))


@pytest.fixture
def dataset(builder: Any) -> Dataset:
    """Two shards: a folder, two origins of one name, a crowd, a dropped and a quarantined one."""
    builder.image("train/a.jpg", size_hw=(30, 50))
    builder.box("shoe", (6, 4, 41, 25))
    builder.box("hat", (0, 0, 5, 5), keep=False, reason="low_confidence")
    builder.box("shoe", (1, 2, 9, 7), teacher=None, keep=False, is_crowd=True)
    builder.image("b.png", image_format="png", source_image_id="2")
    builder.shard()
    builder.image("b.png", image_format="png", source="street", source_image_id="3")
    builder.box("hat", (2, 3, 9, 11))
    builder.image("dark.jpg", quarantine="dark", source_image_id="4")
    builder.box("hat", (2, 3, 9, 11))
    builder.shard()
    return builder.commit()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """An empty folder."""
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


class TestFresh:
    def test_images_and_coco(self, dataset: Dataset, tmp_path: Path) -> None:
        summary = run(dataset, tmp_path / "out")
        second = dataset.table(dataset.manifest.shards()[1], "image_index")["image_id"][0].as_py()
        assert list(shown(tmp_path / "out")) == [
            "annotations.json", "images/b.png", f"images/b_{second}.png", "images/train/a.jpg",
        ]  # fmt: skip
        assert (summary.num_images, summary.num_quarantined, summary.num_annotations) == (3, 1, 3)
        assert summary.num_skipped == {"image_quarantined": 1, "low_confidence": 1}
        assert summary.masks == "verdicts"
        assert (summary.num_written, summary.num_kept, summary.num_removed) == (4, 0, 0)
        assert summary.num_bytes == sum(map(len, shown(tmp_path / "out").values()))
        with redirect_stdout(io.StringIO()):
            coco = COCO(str(tmp_path / "out" / "annotations.json"))
        images = {image["maskmill_image_id"]: image for image in coco.imgs.values()}
        for entry in dataset.manifest.of_layer("image_index"):
            index = dataset.table(entry.shard, "image_index")
            shown_rows = index.slice(0, 2 if entry.num_rows == 2 else 0)
            for row, data in zip(
                shown_rows.to_pylist(), dataset.images(entry.shard, shown_rows), strict=True
            ):
                if not row["quarantine"]:
                    name = images[row["image_id"]]["file_name"]
                    assert (tmp_path / "out" / "images" / name).read_bytes() == data
        assert coco.annToMask(coco.loadAnns(coco.getAnnIds())[0]).sum() == 35 * 21

    def test_rows_are_those_of_the_export(self, dataset: Dataset, tmp_path: Path) -> None:
        for options in ({}, {"layer": "masks/mobile_sam"}, {"include_quarantined": True}):
            run(dataset, tmp_path / "out", **options)
            target = str(tmp_path / "exported")
            export(
                dataset, target, format="coco",
                options=ExportOptions(images=True, overwrite=True, **options),
            )  # fmt: skip
            exported = json.loads((tmp_path / "exported" / "instances.json").read_bytes())
            mine = annotations(tmp_path / "out")
            assert mine["annotations"] == exported["annotations"]
            assert mine["categories"] == exported["categories"]
            without_name = [
                [{**row, "file_name": ""} for row in rows["images"]] for rows in (mine, exported)
            ]
            assert without_name[0] == without_name[1]

    def test_without_verdicts_boxes_alone(self, builder: Any, tmp_path: Path) -> None:
        builder.image("a.jpg")
        builder.box("shoe", (1, 1, 5, 5))
        builder.shard(verdicts=False)
        unjudged = builder.commit()
        assert run(unjudged, tmp_path / "out").masks == "boxes"
        (row,) = annotations(tmp_path / "out")["annotations"]
        assert (row["bbox"], row["segmentation"]) == ([1, 1, 4, 4], [])
        assert run(unjudged, tmp_path / "out", layer="masks/mobile_sam").num_written == 1
        (row,) = annotations(tmp_path / "out")["annotations"]
        assert row["segmentation"]["counts"]

    def test_half_judged_is_refused(self, builder: Any, tmp_path: Path) -> None:
        for verdicts in (True, False):
            builder.image(f"{verdicts}.jpg")
            builder.box("shoe", (1, 1, 5, 5))
            builder.shard(verdicts=verdicts)
        half = builder.commit()
        with pytest.raises(RefError, match="no 'verdicts' for 1 of 2 shards"):
            run(half, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        assert run(half, tmp_path / "out", layer="boxes").num_annotations == 2

    def test_without_boxes(self, builder: Any, tmp_path: Path) -> None:
        builder.image("a.jpg")
        builder.shard(boxes=False)
        summary = run(builder.commit(), tmp_path / "out")
        assert (summary.num_images, summary.num_annotations) == (1, 0)

    def test_empty_commit(self, builder: Any, tmp_path: Path) -> None:
        run(Dataset.open(builder.store), tmp_path / "out")
        assert list(shown(tmp_path / "out")) == ["annotations.json"]

    def test_annotations_alone(self, dataset: Dataset, tmp_path: Path) -> None:
        run(dataset, tmp_path / "out", images=False)
        assert list(shown(tmp_path / "out")) == ["annotations.json"]
        assert run(dataset, tmp_path / "out").num_written == 3
        assert run(dataset, tmp_path / "out", images=False).num_removed == 3
        assert list(shown(tmp_path / "out")) == ["annotations.json"]
        assert not (tmp_path / "out" / "images").exists()

    def test_from_s3(self, dataset: Dataset, s3_url: str, target: Path) -> None:
        from manifests.refs import Refs
        from manifests.transfer import TransferOptions, push

        there = Store(s3_url)
        init(there)
        Refs(dataset.store).create_branch("x", dataset.commit_id)
        push(dataset.store, there, TransferOptions(refs=["x"]))
        run(dataset, target / "a")
        run(Dataset.open(there, "x"), target / "b")
        assert shown(target / "a") == shown(target / "b")


class TestNext:
    def test_same_again_writes_nothing(self, dataset: Dataset, target: Path) -> None:
        run(dataset, target)
        before = stamps(target)
        summary = run(dataset, target)
        assert (summary.num_written, summary.num_kept, summary.num_bytes) == (0, 4, 0)
        assert (summary.num_annotations, summary.num_skipped) == (
            3,
            {"image_quarantined": 1, "low_confidence": 1},
        )
        assert stamps(target) == before

    def test_same_again_reads_no_cell(self, dataset: Dataset, target: Path) -> None:
        run(dataset, target)
        for cell in dataset.manifest:
            dataset.store.remove(layout.object_path(cell.object_id))
        assert run(dataset, target).num_kept == 4
        (target / "images" / "b.png").unlink()
        with pytest.raises(ObjectMissingError):
            run(dataset, target)

    def test_unchanged_images_are_not_read(self, builder: Any, tmp_path: Path) -> None:
        builder.image("a.jpg")
        old = builder.shard()
        run(builder.commit(), tmp_path / "out")
        builder.store.remove(layout.object_path(old))
        builder.image("b.jpg")
        builder.shard()
        summary = run(builder.commit(), tmp_path / "out")
        assert (summary.num_written, summary.num_kept) == (2, 1)

    def test_image_in_another_shard_is_the_same(self, builder: Any, tmp_path: Path) -> None:
        """As after a takedown, which writes a shard again without some images."""
        builder.image("a.jpg")
        builder.image("b.jpg")
        builder.shard()
        run(builder.commit(), tmp_path / "out")
        kept = builder.cells[-1]
        index = Dataset.table(builder.commit(), kept.shard, "image_index").to_pylist()
        store = builder.store
        data = list(
            builder.commit().images(kept.shard, builder.commit().table(kept.shard, "image_index"))
        )
        builder.cells.clear()
        builder.images, builder.data = [index[1]], [data[1]]
        builder.shard()
        store.remove(layout.object_path(builder.cells[-1].shard))
        summary = run(builder.commit(), tmp_path / "out")
        assert (summary.num_removed, sorted(shown(tmp_path / "out"))) == (
            1,
            ["annotations.json", "images/b.jpg"],
        )

    def test_annotations_are_made_anew_only_if_they_change(
        self, dataset: Dataset, target: Path
    ) -> None:
        """Another commit with a layer that does not matter here."""
        run(dataset, target)
        before = stamps(target)
        cells = list(dataset.manifest)
        masks = next(cell for cell in cells if cell.layer == "masks/mobile_sam")
        more = Cell(
            shard=masks.shard, layer="masks/other", object_id=masks.object_id,
            num_rows=masks.num_rows, num_bytes=masks.num_bytes,
        )  # fmt: skip
        summary = run(commit_of(dataset.store, [*cells, more]), target)
        assert summary.num_written == 0
        assert stamps(target) == before

    def test_names_do_not_change_when_images_are_added(self, builder: Any, target: Path) -> None:
        builder.image("a.jpg")
        builder.shard()
        run(builder.commit(), target)
        before = shown(target)["images/a.jpg"]
        for source in ("street", "beach"):
            builder.image("A.JPG", source=source)
            builder.shard()
        assert run(builder.commit(), target).num_kept == 1
        assert shown(target)["images/a.jpg"] == before
        assert len(shown(target)) == 4

    def test_quarantined_images_come_and_go(self, dataset: Dataset, target: Path) -> None:
        run(dataset, target)
        before = shown(target)
        assert run(dataset, target, include_quarantined=True).num_written == 2
        assert shown(target).keys() - before.keys() == {"images/dark.jpg"}
        assert run(dataset, target).num_removed == 1
        assert shown(target) == before

    def test_folder_that_was_copied(self, dataset: Dataset, tmp_path: Path) -> None:
        """Other times of change, the same bytes."""
        run(dataset, tmp_path / "out")
        shutil.copytree(tmp_path / "out", tmp_path / "copy", copy_function=shutil.copyfile)
        (tmp_path / "copy" / "annotations.json").unlink()
        summary = run(dataset, tmp_path / "copy")
        assert (summary.num_written, summary.num_kept, summary.changed) == (1, 3, ())

    def test_progress(self, dataset: Dataset, target: Path) -> None:
        class Sum:
            total = done = 0

            def begin(self, name: str, *, total: int, in_bytes: bool = False) -> None:
                self.in_bytes = in_bytes
                self.total += total if in_bytes else 0

            def advance(self, count: int) -> None:
                self.done += count if self.in_bytes else 0

        seen = Sum()
        checkout(dataset, target, ref="main", listener=seen)
        sizes = [len(data) for name, data in shown(target).items() if name.startswith("images/")]
        assert seen.total == seen.done == sum(sizes)


class TestOwnFiles:
    """Files that somebody changed or added."""

    @pytest.fixture
    def out(self, dataset: Dataset, tmp_path: Path) -> Path:
        run(dataset, tmp_path / "out")
        return tmp_path / "out"

    @pytest.fixture
    def first_shard(self, dataset: Dataset) -> Dataset:
        shard = dataset.manifest.shards()[1]
        return commit_of(dataset.store, [cell for cell in dataset.manifest if cell.shard != shard])

    def test_foreign_files_are_left_alone(
        self, dataset: Dataset, first_shard: Dataset, out: Path
    ) -> None:
        mine = {"notes.txt", "images/notes.txt", "images/train/notes.txt", "deep/er/x"}
        for name in mine:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(name.encode())
        for commit in (first_shard, Dataset.open(dataset.store), dataset):
            checkout(commit, out, _FORCE, ref="x")
            assert {name: shown(out)[name] for name in mine} == {n: n.encode() for n in mine}

    def test_changed_file_that_need_not_change_stays(self, dataset: Dataset, out: Path) -> None:
        (out / "images" / "b.png").write_bytes(b"mine")
        for _ in range(2):  # it is still known for what it was
            summary = run(dataset, out)
            assert (summary.changed, summary.num_written) == (("images/b.png",), 0)
            assert (out / "images" / "b.png").read_bytes() == b"mine"
        assert checkout(dataset, out, _FORCE, ref="x").num_written == 1
        assert run(dataset, out).changed == ()
        assert (out / "images" / "b.png").read_bytes() != b"mine"

    def test_changed_at_the_same_size(self, dataset: Dataset, out: Path) -> None:
        path = out / "images" / "b.png"
        path.write_bytes(bytes(len(path.read_bytes())))
        assert run(dataset, out).changed == ("images/b.png",)

    def test_changed_file_that_would_go(
        self, dataset: Dataset, first_shard: Dataset, out: Path
    ) -> None:
        changed = next(name for name in shown(out) if name.startswith("images/b_"))
        (out / changed).write_bytes(b"mine")
        before = shown(out)
        with pytest.raises(InputError, match=f"overwritten or removed: {changed}; move .* --force"):
            run(first_shard, out)
        assert shown(out) == before
        assert checkout(first_shard, out, _FORCE, ref="x").num_removed == 1
        assert changed not in shown(out)

    def test_changed_annotations(self, dataset: Dataset, first_shard: Dataset, out: Path) -> None:
        (out / "annotations.json").write_text("{}")
        assert run(dataset, out).changed == ("annotations.json",)
        with pytest.raises(InputError, match=r"annotations\.json; move them away"):
            run(first_shard, out)
        checkout(first_shard, out, _FORCE, ref="x")
        assert annotations(out)["images"]

    def test_file_in_the_way(self, dataset: Dataset, target: Path) -> None:
        run(dataset, target, images=False)
        (target / "images").mkdir()
        for name in ("a.jpg", "b.png", "c.png"):
            (target / "images" / name).write_text("mine")
        with pytest.raises(InputError, match=r"removed: images/b\.png; move"):
            run(dataset, target)
        assert (target / "images" / "b.png").read_text() == "mine"
        checkout(dataset, target, _FORCE, ref="x")
        assert (target / "images" / "b.png").read_bytes() != b"mine"
        assert (target / "images" / "c.png").read_text() == "mine"

    def test_deleted_files_come_back(self, dataset: Dataset, out: Path) -> None:
        before = shown(out)
        shutil.rmtree(out / "images")
        (out / "annotations.json").unlink()
        assert run(dataset, out).num_written == 4
        assert shown(out) == before

    @pytest.mark.parametrize("force", [False, True])
    def test_links_are_not_followed(self, dataset: Dataset, tmp_path: Path, force: bool) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "elsewhere").mkdir()
        run(dataset, tmp_path / "out", images=False)
        (tmp_path / "out" / "images").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(InputError, match=r"something else where files or folders .*: images; "):
            run(dataset, tmp_path / "out", force=force)
        assert list((tmp_path / "elsewhere").iterdir()) == []

    def test_link_in_the_place_of_a_file(self, dataset: Dataset, out: Path) -> None:
        target = out.parent / "target"
        target.write_text("mine")
        (out / "images" / "b.png").unlink()
        (out / "images" / "b.png").symlink_to(target)
        assert run(dataset, out).changed == ("images/b.png",)
        checkout(dataset, out, _FORCE, ref="x")
        assert target.read_text() == "mine"
        assert not (out / "images" / "b.png").is_symlink()

    @pytest.mark.parametrize("force", [False, True])
    def test_folder_in_the_place_of_a_file(self, dataset: Dataset, out: Path, force: bool) -> None:
        (out / "images" / "b.png").unlink()
        (out / "images" / "b.png").mkdir()
        with pytest.raises(InputError, match=r"something else where .* images/b\.png; "):
            run(dataset, out, force=force)


class TestFolder:
    def test_that_is_no_checkout(self, dataset: Dataset, target: Path) -> None:
        (target / "mine").write_text("mine")
        with pytest.raises(InputError, match="is not empty and no checkout: it has 'mine'"):
            run(dataset, target)
        assert shown(target) == {"mine": b"mine"}
        checkout(dataset, target, _FORCE, ref="x")
        assert shown(target)["mine"] == b"mine"

    def test_whose_state_was_deleted(self, dataset: Dataset, target: Path) -> None:
        run(dataset, target)
        before = shown(target)
        shutil.rmtree(target / STATE_FOLDER)
        with pytest.raises(InputError, match="is not empty and no checkout"):
            run(dataset, target)
        checkout(dataset, target, _FORCE, ref="x")
        assert shown(target) == before
        assert run(dataset, target).num_written == 0

    @pytest.mark.parametrize("name", ["state.json", "*.parquet"])
    @pytest.mark.parametrize("text", ["", "{}", "[1"])
    def test_whose_state_is_damaged(
        self, dataset: Dataset, target: Path, name: str, text: str
    ) -> None:
        run(dataset, target)
        (path,) = (target / STATE_FOLDER).glob(name)
        path.write_text(text)
        with pytest.raises(InputError, match=r"is damaged, so nobody knows .* with --force"):
            run(dataset, target)

    def test_that_is_a_store(self, dataset: Dataset) -> None:
        with pytest.raises(InputError, match="is a maskmill store; check out into another folder"):
            checkout(dataset, Path(dataset.store.root), _FORCE, ref="x")

    def test_that_is_a_file(self, dataset: Dataset, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StoreError, match="File exists"):
            run(dataset, tmp_path / "file")

    def test_with_two_at_once(self, dataset: Dataset, target: Path) -> None:
        with (
            locked(target),
            pytest.raises(InputError, match="another 'maskmill checkout' is at work"),
        ):
            run(dataset, target)
        run(dataset, target)

    def test_that_is_read_only(self, dataset: Dataset, target: Path) -> None:
        code = (
            "import sys\n"
            "from pathlib import Path\n"
            "from manifests.checkout import checkout\n"
            "from manifests.dataset import Dataset\n"
            "from manifests.store import Store\n"
            "dataset = Dataset(Store(sys.argv[1]), sys.argv[2])\n"
            "checkout(dataset, Path(sys.argv[3]), ref='main')\n"
        )
        arguments = dataset.store.url, dataset.commit_id, str(target)
        done = run_mounted(READ_ONLY, target, code, *arguments)
        assert f"StoreError: {target}: Read-only file system" in done.stderr
        assert list(target.iterdir()) == []

    def test_on_a_full_disk(self, dataset: Dataset, target: Path) -> None:
        """A quota on the size of a file: as good as a disk that is full."""
        code = (
            "import resource, signal, sys\n"
            "from pathlib import Path\n"
            "from manifests.checkout import checkout\n"
            "from manifests.dataset import Dataset\n"
            "from manifests.store import Store\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "dataset = Dataset(Store(sys.argv[1]), sys.argv[2])\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))\n"
            "checkout(dataset, Path(sys.argv[3]), ref='main')\n"
        )
        command = [sys.executable, "-c", code, dataset.store.url, dataset.commit_id, str(target)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert f"StoreError: {target}: File too large" in done.stderr
        run(dataset, target)
        run(dataset, target.parent / "fresh")
        assert shown(target) == shown(target.parent / "fresh")


class TestStore:
    """What the store has lost or damaged."""

    def test_images_that_are_gone(self, dataset: Dataset, target: Path) -> None:
        dataset.store.remove(layout.object_path(dataset.manifest.shards()[0]))
        with pytest.raises(ObjectMissingError, match="--no-images' writes the annotations alone"):
            run(dataset, target)
        assert run(dataset, target, images=False).num_annotations == 3

    def test_damaged_images_get_no_name(self, dataset: Dataset, target: Path) -> None:
        shard = dataset.manifest.shards()[0]
        path = Path(dataset.store.root, layout.object_path(shard))
        good = path.read_bytes()
        path.write_bytes(good[:600] + b"\xff" + good[601:])
        with pytest.raises(ObjectDamagedError, match=f"shard {shard[:12]} of images is damaged"):
            run(dataset, target)
        assert not {"images/train/a.jpg", "images/b.png"} & shown(target).keys()
        path.write_bytes(good)
        run(dataset, target)
        run(dataset, target.parent / "fresh")
        assert shown(target) == shown(target.parent / "fresh")

    def test_damaged_table_changes_nothing(self, dataset: Dataset, target: Path) -> None:
        run(Dataset.open(dataset.store), target)
        before = shown(target)
        masks = next(cell for cell in dataset.manifest if cell.layer == "masks/mobile_sam")
        path = Path(dataset.store.root, layout.object_path(masks.object_id))
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(ObjectDamagedError, match="of masks/mobile_sam is damaged"):
            run(dataset, target)
        assert shown(target) == before


_KILLED = """
import os, signal, sys
from pathlib import Path
from manifests import checkout_files
from manifests.checkout import CheckoutOptions, checkout
from manifests.dataset import Dataset
from manifests.store import Store

left = int(sys.argv[4])

def counted(call):
    def counting(*arguments, **more):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **more)
    return counting

for name in ("replace", "utime", "unlink", "mkdir"):
    setattr(os, name, counted(getattr(os, name)))
checkout(Dataset(Store(sys.argv[1]), sys.argv[2]), Path(sys.argv[3]), ref="main")
sys.exit(3)
"""


class TestKilled:
    """SIGKILL before the n-th change of the disk, in a checkout that replaces most of another."""

    @pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.slow)])
    def test_goes_on_wherever_it_was(self, builder: Any, tmp_path: Path, step: int) -> None:
        old, new = self._two_commits(builder)
        for commit, name in ((old, "old"), (new, "new")):
            run(commit, tmp_path / name)
        wanted = {**shown(tmp_path / "old"), **shown(tmp_path / "new")}
        allowed = {
            name: {shown(tmp_path / which).get(name) for which in ("old", "new")} for name in wanted
        }
        for after in range(0, 1000, step):
            out = tmp_path / f"out{after}"
            shutil.copytree(tmp_path / "old", out, copy_function=shutil.copy2)
            code = self._kill(new, out, after)
            assert all(data in allowed[name] for name, data in shown(out).items()), after
            if code == 3:
                break
            assert code == -signal.SIGKILL
            if after % 3 == 0:
                self._kill(old, out, after // 2)
            # Neither takes the other's files for somebody's.
            run((old, new)[after % 2], out)
            assert shown(out) == shown(tmp_path / ("old", "new")[after % 2]), after
            state = [path.name for path in (out / STATE_FOLDER).iterdir()]
            assert len(state) == 2
            shutil.rmtree(out)
        assert after > 10

    def _two_commits(self, builder: Any) -> tuple[Dataset, Dataset]:
        builder.image("a.jpg")
        builder.box("shoe", (1, 1, 5, 5))
        builder.image("same.jpg")
        builder.shard()
        builder.image("old.jpg")
        self._image_of_one_size(builder, b"1")
        builder.shard()
        old = builder.commit()
        first = [cell for cell in builder.cells if cell.shard == builder.cells[0].shard]
        builder.cells[:] = first
        self._image_of_one_size(builder, b"2")
        builder.image("new/n.jpg", size_hw=(20, 20))
        builder.box("hat", (1, 1, 5, 5))
        builder.shard()
        return old, builder.commit()

    def _image_of_one_size(self, builder: Any, content: bytes) -> None:
        """The same name and size in both commits: only the time of change tells them apart."""
        data = content * 1000
        builder.image("size.jpg", image_id=content_id(data))
        builder.data[-1] = data

    def _kill(self, dataset: Dataset, out: Path, after: int) -> int:
        arguments = [dataset.store.url, dataset.commit_id, str(out), str(after)]
        done = subprocess.run(
            [sys.executable, "-c", _KILLED, *arguments],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode in (3, -signal.SIGKILL), done.stderr
        return done.returncode


_SHARDS = (
    ("a.jpg", "b.png"),
    ("A.jpg", "../b.png"),
    ("a.jpg/b.jpg", "d/a.jpg"),
    ("d", "d/../../e.jpg"),
    ("a.jpg", "D/a.jpg", "é.jpg"),
)
_STEPS = st.lists(
    st.tuples(
        st.lists(st.integers(0, len(_SHARDS) - 1), unique=True),
        st.fixed_dictionaries(
            {
                "layer": st.sampled_from([None, "boxes", "masks/mobile_sam"]),
                "include_quarantined": st.booleans(),
                "images": st.integers(0, 3).map(bool),
            }
        ),
    ),
    min_size=2,
    max_size=4,
)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, list[list[Cell]]]:
    """The cells of each of _SHARDS; every second image is quarantined or has a dropped mask."""
    store = Store(str(tmp_path_factory.mktemp("pool") / "store"))
    init(store)
    builder, found = DatasetBuilder(store), []
    for names in _SHARDS:
        start = len(builder.cells)
        for number, name in enumerate(names):
            builder.image(name, quarantine="dark" if number == 1 else None)
            builder.box("shoe", (1, 1, 5, 5), keep=number != 2)
        builder.shard()
        found.append(builder.cells[start:])
    return store, found


@settings(max_examples=15, deadline=None)
@given(steps=_STEPS)
def test_folder_depends_on_the_last_checkout_alone(
    steps: list[tuple[list[int], dict[str, Any]]], pool: tuple[Store, list[list[Cell]]]
) -> None:
    store, shards = pool
    with tempfile.TemporaryDirectory() as folder:
        for number, (chosen, options) in enumerate(steps):
            cells = [cell for index in chosen for cell in shards[index]]
            dataset, out = commit_of(store, cells), Path(folder, "out")
            before = stamps(out) if out.exists() else {}
            old = shown(out) if out.exists() else {}
            summary = run(dataset, out, **options)
            fresh = Path(folder, f"fresh{number}")
            run(dataset, fresh, **options)
            assert shown(out) == shown(fresh)
            # Only what changed was written: a file with the same bytes is the same file.
            same = {name for name, data in shown(out).items() if old.get(name) == data}
            assert all(stamps(out)[name] == before[name] for name in same)
            assert summary.num_kept == len(same)
            assert summary.num_removed == len(old.keys() - shown(out).keys())
            folders = {path for path in out.rglob("*") if path.is_dir()}
            assert all(any(path.iterdir()) for path in folders)


class TestNames:
    @given(names=st.lists(st.text(min_size=1, max_size=12), max_size=12))
    def test_differ_and_stay_inside(self, names: list[str]) -> None:
        claimed = CheckoutNames()
        made = [claimed.claim(_named(name, number)) for number, name in enumerate(names)]
        folded = [name.casefold() for name in made]
        assert len(set(folded)) == len(names)
        folders = {str(parent) for name in folded for parent in Path(name).parents}
        assert not folders & set(folded)
        for name in made:
            assert not Path(name).is_absolute()
            assert ".." not in Path(name).parts

    @given(
        names=st.lists(st.sampled_from(["a.jpg", "A.jpg", "d/a.jpg", "a.jpg/x.jpg"]), max_size=8),
        more=st.lists(st.sampled_from(["a.jpg", "d/A.jpg", "d"]), max_size=4),
    )
    def test_do_not_depend_on_later_images(self, names: list[str], more: list[str]) -> None:
        alone, together = CheckoutNames(), CheckoutNames()
        first = [alone.claim(_named(name, number)) for number, name in enumerate(names)]
        both = [together.claim(_named(name, n)) for n, name in enumerate([*names, *more])]
        assert both[: len(first)] == first

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("../../etc/passwd", "etc/passwd.jpg"),
            ("/abs/a.jpg", "abs/a.jpg"),
            ("c:\\x\\a.jpg", "c_/x/a.jpg"),
            ("a\0b.jpg", "a_b.jpg"),
            ("..", "...jpg"),
            ("x" * 400 + ".jpg", "x"),
        ],
    )
    def test_hostile(self, name: str, expected: str) -> None:
        assert CheckoutNames().claim(_named(name, 1)).startswith(expected)

    def test_one_picture_in_two_shards(self) -> None:
        names = CheckoutNames()
        made = {names.claim(_named("a.jpg", 7)) for _ in range(4)}
        assert len(made) == 4


def _named(file_name: str, number: int) -> NamedImage:
    return NamedImage(image_id=f"{number:032x}", source="shop", file_name=file_name, format="jpeg")
