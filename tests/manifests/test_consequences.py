"""Sentences about what is lost, and who says them when something cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifests import image_tar, layout, schemas
from manifests.consequences import cell_lost, listed, remedy_of, telling
from manifests.dataset import Dataset
from manifests.errors import ObjectDamagedError, ObjectMissingError, StoreError
from manifests.find_images import Wanted, find_images
from manifests.refs import Refs
from manifests.rejects import rejects
from manifests.store import Store
from manifests.takedown import take_down
from tests.manifests.conftest import DatasetBuilder
from tests.manifests.damage import HURTS, flipped, make_whole_store

_MASKS = schemas.masks_layer("mobile_sam")


class TestTelling:
    def test_the_sentence(self) -> None:
        loss = cell_lost(shard="3f9a41c2d07e99", layer="masks/sam", object_id="81c0d27e55aabb")
        with pytest.raises(ObjectMissingError) as caught, telling(loss, who="main"):
            raise ObjectMissingError("object 81c0d27e55aa is missing in s3://b; restore it")
        assert str(caught.value) == (
            "shard 3f9a41c2d07e of masks/sam is missing (object 81c0d27e55aa): main cannot be "
            "filtered or exported; run 'maskmill label sam' to draw it again"
        )
        with pytest.raises(ObjectDamagedError) as caught_too, telling(loss, who="main"):
            raise ObjectDamagedError(
                "object 81c0 in st is damaged: it is short; restore it from a copy"
            )
        assert "of masks/sam is damaged (object 81c0 in st: it is short): main" in str(
            caught_too.value
        )

    def test_other_errors_pass(self) -> None:
        loss = cell_lost(shard="1", layer="boxes", object_id="2")
        with pytest.raises(StoreError, match=r"^no answer$"), telling(loss, who="main"):
            raise StoreError("no answer")

    def test_what_was_meant_to_go(self) -> None:
        loss = cell_lost(shard="1", layer=schemas.IMAGES, object_id="2")
        with (
            pytest.raises(
                ObjectMissingError, match=r"^it was taken down; main cannot .* any more$"
            ),
            telling(loss, who="main", why_gone=lambda: "it was taken down"),
        ):
            raise ObjectMissingError("gone")
        with (
            pytest.raises(ObjectDamagedError, match="shard 1 of images is damaged"),
            telling(loss, who="main", why_gone=lambda: "it was taken down"),
        ):
            raise ObjectDamagedError("short")

    @pytest.mark.parametrize(
        ("layer", "says"),
        [
            (schemas.IMAGES, "restore it from a copy, or repeat its ingest on a branch that"),
            (schemas.IMAGE_INDEX, "restore it from a copy, or repeat its ingest on a branch that"),
            (schemas.BOXES, "restore it from a copy, or repeat its ingest on a branch that"),
            (schemas.MASKS_HUMAN, "restore it from a copy, or repeat its ingest on a branch that"),
            ("masks/x", "run 'maskmill label x --branch b' to draw it again"),
            (schemas.VERDICTS, "run 'maskmill filter --branch b' with the same policy"),
            (schemas.AGREEMENT, "run 'maskmill agree --branch b' to compute it again"),
            (schemas.CONFIDENCE, "run 'maskmill calibrate --branch b' to compute it again"),
            ("novelty", "restore it from a copy, or run the step that makes novelty again"),
        ],
    )
    def test_every_layer_has_a_remedy(self, layer: str, says: str) -> None:
        assert remedy_of(layer, branch="b").startswith(says)

    def test_lists(self) -> None:
        names = ["a", "b", "c", "d", "e"]
        found = [listed(names[:count]) for count in range(6)]
        assert found == ["", "a", "a and b", "a, b and c", "a, b, c and d", "a, b, c and 2 more"]


class TestReaders:
    """Each kind of object, read by those who need it."""

    @pytest.mark.parametrize("how", HURTS)
    def test_cells(self, tmp_path: Path, how: str) -> None:
        whole = make_whole_store(str(tmp_path / "store"))
        kind = ObjectMissingError if how == "missing" else ObjectDamagedError
        for layer in (schemas.IMAGE_INDEX, schemas.BOXES, schemas.MASKS_HUMAN, _MASKS,
                      schemas.VERDICTS):  # fmt: skip
            says = rf"^shard {whole.shard[:12]} of {layer} is .*: commit .{{12}} cannot be"
            with whole.damaged(whole.positions()[layer], HURTS[how]):
                with pytest.raises(kind, match=says):
                    whole.dataset.table(whole.shard, layer)
                with pytest.raises(kind, match=says):
                    whole.dataset.table(whole.shard, layer, columns=["status"]
                                        if "masks" in layer else None)  # fmt: skip

    @pytest.mark.parametrize("how", HURTS)
    def test_images(self, store_url: str, how: str) -> None:
        whole = make_whole_store(store_url)
        index = whole.dataset.table(whole.shard, schemas.IMAGE_INDEX)
        sound = list(whole.dataset.images(whole.shard, index))
        assert len(sound) == 2
        with whole.damaged(whole.positions()[schemas.IMAGES], HURTS[how]):
            kind = ObjectMissingError if how == "missing" else ObjectDamagedError
            with pytest.raises(kind, match=rf"^shard {whole.shard[:12]} of images is .* labelled"):
                list(whole.dataset.images(whole.shard, index))

    def test_one_image_of_many(
        self, builder: DatasetBuilder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Most of the tar is not read, so only the image's own id tells."""
        monkeypatch.setattr(image_tar, "_SMALL_BYTES", 0)
        for number in range(9):
            builder.image(f"{number}.jpg")
        shard = builder.shard(boxes=False)
        dataset = builder.commit()
        index = dataset.table(shard, schemas.IMAGE_INDEX)
        offsets, path = index["offset"].to_pylist(), layout.object_path(shard)
        data = builder.store.read_optional(path) or b""
        builder.store.overwrite(path, flipped(data, offsets[4] + 100))
        assert len(list(dataset.images(shard, index.slice(3, 1)))) == 1
        for first, count in ((4, 1), (3, 3), (0, 9)):
            with pytest.raises(ObjectDamagedError, match=r"images is damaged .*hash to its name"):
                list(dataset.images(shard, index.slice(first, count)))

    def test_an_image_whose_id_is_not_of_its_bytes(
        self, builder: DatasetBuilder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(image_tar, "_SMALL_BYTES", 0)
        for number in range(9):
            builder.image(f"{number}.jpg", image_id=f"{number:032x}")
        shard = builder.shard(boxes=False)
        dataset = builder.commit()
        index = dataset.table(shard, schemas.IMAGE_INDEX)
        assert len(list(dataset.images(shard, index.slice(1, 2)))) == 2  # the tar itself is sound

    def test_commits_and_manifests(self, tmp_path: Path) -> None:
        whole = make_whole_store(str(tmp_path / "store"))
        for name, says in (
            ("head commit", r"^commit .{12} is .*: it cannot be opened, .*maskmill fsck"),
            ("head manifest", r"^manifest .{12} is .*: commit .{12} cannot be opened: nobody"),
        ):
            for hurt in HURTS.values():
                with (
                    whole.damaged(whole.positions()[name], hurt),
                    pytest.raises((ObjectMissingError, ObjectDamagedError), match=says),
                ):
                    Dataset.open(whole.store)

    def test_rejects(self, tmp_path: Path) -> None:
        whole = make_whole_store(str(tmp_path / "store"))
        for hurt in HURTS.values():
            with (
                whole.damaged(whole.positions()["rejects"], hurt),
                pytest.raises(StoreError, match=r"^the table of rejects .* cannot say which"),
            ):
                list(rejects(whole.dataset))


class TestTakenDown:
    def test_old_commits_say_who_took_their_images(self, tmp_path: Path) -> None:
        whole = make_whole_store(str(tmp_path / "store"))
        found = find_images(whole.dataset, Wanted(file_names=("a.jpg",)))
        take_down(whole.store, "main", found, reason="licence", author="Ada")
        whole.store.remove(layout.object_path(whole.shard))  # as gc does
        index = whole.dataset.table(whole.shard, schemas.IMAGE_INDEX)
        says = rf"images of shard {whole.shard[:12]} are gone because 1 image .* by Ada \(licence\)"
        with pytest.raises(ObjectMissingError, match=says):
            list(whole.dataset.images(whole.shard, index))

    def test_a_damaged_ref_does_not_hide_the_others(self, tmp_path: Path) -> None:
        whole = make_whole_store(str(tmp_path / "store"))
        found = find_images(whole.dataset, Wanted(file_names=("a.jpg",)))
        done = take_down(whole.store, "main", found, reason="licence")
        Refs(whole.store).create_tag("v2", done.commit_id)
        whole.store.remove(layout.object_path(whole.shard))
        whole.store.overwrite(layout.ref_entry_path(layout.HEADS, "main", 5), b"{")
        index = whole.dataset.table(whole.shard, schemas.IMAGE_INDEX)
        with pytest.raises(ObjectMissingError, match="are gone because"):
            list(whole.dataset.images(whole.shard, index))


def test_a_store_that_does_not_answer_is_no_damage(tmp_path: Path) -> None:
    whole = make_whole_store(str(tmp_path / "store"))
    path = Path(Store(str(tmp_path / "store")).root) / whole.positions()[schemas.BOXES]
    path.unlink()
    path.mkdir()
    with pytest.raises(StoreError, match="directory") as caught:
        whole.dataset.table(whole.shard, schemas.BOXES)
    assert not isinstance(caught.value, ObjectMissingError | ObjectDamagedError)
