"""Label: every box gets exactly one row, whatever the teacher does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from engine.label import LabelConfig, LabelPayload, label, plan_label
from engine.label_worker import LabelWorker
from engine.pool import PoolConfig
from manifests import rle, schemas
from manifests.cells import read_table
from manifests.dataset import Dataset
from manifests.errors import InputError, JobError, NothingToCommitError
from manifests.store import Store
from teachers.box import BoxTeacher
from teachers.protocol import BoxesXyxy, ImageRgb, MaskChunk, PromptError, TeacherIdentity

INLINE = PoolConfig(executor="inline")
Ingest = Callable[..., Dataset]


def box_config(**fields: Any) -> LabelConfig:
    return LabelConfig(teacher="box", pool=INLINE, **fields)


def masks(dataset: Dataset, layer: str = "masks/box") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for shard in dataset.manifest.shards():
        found += dataset.table(shard, layer).to_pylist()
    return found


def payloads(dataset: Dataset, name: str = "box") -> list[LabelPayload]:
    return plan_label(dataset, name, asdict(TeacherIdentity(name=name, version=1)))


def work(dataset: Dataset, teacher: Any, payload: LabelPayload, **options: Any) -> list[Any]:
    worker = LabelWorker(dataset.store, teacher, **options)
    record = worker.run(payload)
    return read_table(dataset.store, record.cells[0].object_id).to_pylist()


def test_every_box_gets_its_mask_in_the_order_of_boxes(photos: Any, ingested: Ingest) -> None:
    photos.add("a.jpg", [10, 5, 20, 30], [0, 0, 80, 60])
    photos.add("empty.jpg")
    photos.add("b.jpg", [1, 2, 3, 4])
    dataset = ingested(photos)
    labelled = Dataset(dataset.store, label(dataset.store, box_config()))
    rows = masks(labelled)
    assert [row["area_px"] for row in rows] == [600, 4800, 12]
    assert all(row["status"] == "ok" and row["box_iou"] == pytest.approx(1) for row in rows)
    decoded = rle.decode(rows[0]["counts"], size_hw=(60, 80))
    assert decoded[5:35, 10:30].all()
    assert decoded.sum() == 600
    [entry] = labelled.commit.ledger.totals()
    assert (entry.layer, entry.inputs, entry.kept) == ("masks/box", 3, 3)
    assert labelled.commit.operation.teacher == {
        "name": "box", "version": 1, "weights_sha256": None, "config": {},
    }  # fmt: skip
    assert labelled.manifest.of_layer("images") == dataset.manifest.of_layer("images")


def test_crowds_and_quarantined_images_are_no_prompts(
    photos: Any, ingested: Ingest, make_jpeg: Any
) -> None:
    from PIL import Image

    image_id = photos.add("a.jpg", [10, 5, 20, 30])
    photos.annotate(image_id, [1, 1, 50, 50], iscrowd=1)
    photos.add("black.jpg", [1, 1, 9, 9], content=make_jpeg(Image.new("RGB", (80, 60))))
    dataset = ingested(photos)
    labelled = Dataset(dataset.store, label(dataset.store, box_config()))
    [entry] = labelled.commit.ledger.totals()
    assert dict(entry.dropped) == {"crowd": 1, "quarantined_too_dark": 1}
    assert [row["status"] for row in masks(labelled)] == ["ok", "skipped", "skipped"]


def test_labelling_again_changes_nothing(photos: Any, ingested: Ingest) -> None:
    photos.add("a.jpg", [10, 5, 20, 30])
    store = ingested(photos).store
    label(store, box_config())
    with pytest.raises(NothingToCommitError):
        label(store, box_config())


def test_an_empty_dataset_says_what_to_do(store: Store) -> None:
    with pytest.raises(InputError, match="maskmill ingest"):
        label(store, box_config())


def test_new_boxes_are_labelled_and_old_masks_are_carried_over(
    photos: Any, more_photos: Any, ingested: Ingest, make_jpeg: Any, make_image: Any
) -> None:
    content = make_jpeg(make_image(1))
    photos.add("a.jpg", [10, 5, 20, 30], content=content)
    photos.add("b.jpg", [1, 1, 9, 9])
    store = ingested(photos, "first").store
    first = Dataset(store, label(store, box_config()))
    more_photos.add("a.jpg", [40, 40, 10, 10], content=content)
    extended = ingested(more_photos, "second")
    assert [row["status"] for row in masks(extended)] == ["ok", "pending", "ok"]

    class OnlyNew(BoxTeacher):
        """Refuses to draw what was drawn before."""

        def predict(
            self, images: Sequence[ImageRgb], boxes_xyxy: Sequence[BoxesXyxy]
        ) -> Iterator[MaskChunk]:
            assert [boxes.tolist() for boxes in boxes_xyxy] == [[[40, 40, 50, 50]]]
            yield from super().predict(images, boxes_xyxy)

    [payload] = payloads(extended)
    assert payload.carried
    rows = work(extended, OnlyNew(), payload)
    assert [row["status"] for row in rows] == ["ok", "ok", "ok"]
    assert [rows[0], rows[2]] == masks(first)


def test_a_part_and_the_whole_agree(photos: Any, ingested: Ingest) -> None:
    for number in range(5):
        photos.add(f"{number}.jpg", *[[1, 1, 5 + k, 9] for k in range(number)])
    dataset = ingested(photos)
    [payload] = payloads(dataset)
    whole = work(dataset, BoxTeacher(), payload)
    parts = [payload.part(0, 2), payload.part(2, 5)]
    split = [row for part in parts for row in work(dataset, BoxTeacher(), part)]
    assert split == whole
    assert parts[0].part(1, 2).start == 1
    assert len({payload.work_key, *(part.work_key for part in parts)}) == 3


class Broken(BoxTeacher):
    """Never gets to answer."""

    def predict(
        self, images: Sequence[ImageRgb], boxes_xyxy: Sequence[BoxesXyxy]
    ) -> Iterator[MaskChunk]:
        raise AssertionError("asked although the part is done")


def test_assembling_takes_parts_and_failures_without_predicting(
    photos: Any, ingested: Ingest
) -> None:
    for number in range(4):
        photos.add(f"{number}.jpg", [1, 1, 5, 9], [2, 2, 6, 6])
    dataset = ingested(photos)
    [payload] = payloads(dataset)
    parts = [payload.part(0, 2), payload.part(3, 4)]
    expected = [row for part in parts for row in work(dataset, BoxTeacher(), part)]
    keys = [part.work_key for part in reversed(parts)]
    rows = work(dataset, Broken(), payload.assembled(keys, {2: "worker_died"}))
    assert [row["status"] for row in rows] == [*["ok"] * 4, *["failed"] * 2, *["ok"] * 2]
    assert rows[4]["reason"] == "worker_died"
    assert [row for row in rows if row["status"] == "ok"] == expected


class OutOfMemory(BoxTeacher):
    """A GPU that holds two images."""

    def __init__(self, limit: int) -> None:
        self.limit, self.calls = limit, []

    def predict(
        self, images: Sequence[ImageRgb], boxes_xyxy: Sequence[BoxesXyxy]
    ) -> Iterator[MaskChunk]:
        self.calls.append(len(images))
        chunks = super().predict(images, boxes_xyxy)
        if len(images) > self.limit:
            yield next(chunks)
            raise MemoryError
        yield from chunks


def test_out_of_memory_halves_the_batch(photos: Any, ingested: Ingest) -> None:
    for number in range(7):
        photos.add(f"{number}.jpg", [1, 1, 5 + number, 9])
    dataset = ingested(photos)
    [payload] = payloads(dataset)
    teacher = OutOfMemory(limit=2)
    rows = work(dataset, teacher, payload, image_batch=7)
    assert [row["area_px"] for row in rows] == [9 * (5 + number) for number in range(7)]
    assert teacher.calls == [7, 3, 1, 2, 4, 2, 2]


def test_out_of_memory_with_one_image_fails_that_image(photos: Any, ingested: Ingest) -> None:
    photos.add("a.jpg", [1, 1, 5, 9])
    dataset = ingested(photos)
    with pytest.raises(MemoryError):
        work(dataset, OutOfMemory(limit=0), payloads(dataset)[0])


class Picky(BoxTeacher):
    """Two candidates a box; refuses wide boxes and draws nothing for tall ones."""

    def predict(
        self, images: Sequence[ImageRgb], boxes_xyxy: Sequence[BoxesXyxy]
    ) -> Iterator[MaskChunk]:
        for chunk in super().predict(images, boxes_xyxy):
            boxes = boxes_xyxy[chunk.image_index]
            sides = boxes[:, 2:] - boxes[:, :2]
            is_wide, is_tall = sides[:, 0] > 40, sides[:, 1] > 40
            drawn = chunk.masks[~is_wide]
            drawn[is_tall[~is_wide]] = 0
            both = np.concatenate([drawn, 1 - drawn], axis=1)
            scores = np.tile(np.float32([0.9, 0.2]), (len(both), 1))
            yield replace(
                chunk, box_indices=np.flatnonzero(~is_wide), masks=both, predicted_iou=scores,
                failures={int(i): PromptError("too_wide") for i in np.flatnonzero(is_wide)},
            )  # fmt: skip


def test_candidates_failures_and_empty_masks(photos: Any, ingested: Ingest) -> None:
    photos.add("a.jpg", [1, 1, 5, 9], [1, 1, 60, 9], [1, 1, 9, 50])
    dataset = ingested(photos)
    rows = work(dataset, Picky(), payloads(dataset)[0])
    assert [row["status"] for row in rows] == ["ok", "failed", "failed"]
    assert [row["reason"] for row in rows] == [None, "too_wide", "empty_mask"]
    assert rows[0]["predicted_iou"] == pytest.approx(0.9)
    [other] = rows[0]["candidates"]
    assert other["area_px"] == 60 * 80 - 45
    assert other["predicted_iou"] == pytest.approx(0.2)


class Forgetful(BoxTeacher):
    """Leaves out a box."""

    def predict(
        self, images: Sequence[ImageRgb], boxes_xyxy: Sequence[BoxesXyxy]
    ) -> Iterator[MaskChunk]:
        for chunk in super().predict(images, boxes_xyxy):
            yield replace(chunk, box_indices=chunk.box_indices[1:], masks=chunk.masks[1:])


def test_a_teacher_that_forgets_a_box_is_found_out(photos: Any, ingested: Ingest) -> None:
    photos.add("a.jpg", [1, 1, 5, 9], [1, 1, 6, 9])
    dataset = ingested(photos)
    with pytest.raises(JobError, match="left 1 boxes unanswered"):
        work(dataset, Forgetful(), payloads(dataset)[0])


@pytest.mark.parametrize("image_batch", [1, 3, 100])
def test_the_batch_size_does_not_show_in_the_bytes(
    photos: Any, ingested: Ingest, image_batch: int
) -> None:
    for number in range(5):
        photos.add(f"{number}.jpg", *[[1, 1, 5 + k, 9] for k in range(number)])
    dataset = ingested(photos)
    [payload] = payloads(dataset)
    one = LabelWorker(dataset.store, BoxTeacher()).run(payload)
    dataset.store.fs.rm_file(dataset.store.root + "/results/" + _fan(payload.work_key))
    many = LabelWorker(dataset.store, BoxTeacher(), image_batch=image_batch).run(payload)
    assert one == many


def _fan(key: str) -> str:
    return f"{key[:2]}/{key}"


def test_2000_boxes_on_one_image(photos: Any, ingested: Ingest) -> None:
    photos.add("a.jpg", *[[x, y, 1.5, 1.5] for x in range(60) for y in range(40)][:2000])
    dataset = ingested(photos)
    labelled = Dataset(dataset.store, label(dataset.store, box_config()))
    assert labelled.cell(labelled.manifest.shards()[0], schemas.masks_layer("box")).num_rows == 2000


def test_an_unknown_teacher_names_the_nearest(store: Store) -> None:
    with pytest.raises(InputError, match="sam_vit_h"):
        label(store, LabelConfig(teacher="sam_vith", pool=INLINE))
