"""What is drawn from a commit, what is left out of it, and what is said about a useless one."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manifests import rle
from manifests.commit import Category
from manifests.dataset import init
from manifests.errors import InputError, ObjectDamagedError, RefError
from manifests.refs import Refs
from manifests.schemas import ABSENT, FAILED, MASKS_HUMAN
from manifests.store import Store
from student.config import SourceConfig
from student.data.training_data import TrainingData
from tests.manifests.conftest import DatasetBuilder, filled_box, mask_row
from tests.student.data.conftest import BOX, categories, config_of, many_images

SIZE = (24, 32)
Open = Callable[..., TrainingData]


def _names(data: TrainingData, image: int) -> list[str]:
    return [data.categories[number] for number in data.image(image).categories]


def _judged(data: TrainingData, image: int) -> set[str]:
    return {data.categories[number] for number in np.flatnonzero(data.image(image).judged)}


def test_rows_and_bytes_are_those_of_the_commit(builder: DatasetBuilder, opened: Open) -> None:
    dataset = many_images(builder, 12)
    data = opened(dataset)
    assert data.commits == ((builder.store.url, dataset.commit_id),)
    assert data.categories == ("bag", "hat", "shoe")
    assert data.num_images == 12
    seen = 0
    for shard in dataset.manifest.shards():
        index = dataset.table(shard, "image_index").to_pylist()
        boxes = dataset.table(shard, "boxes").to_pylist()
        stored = list(dataset.images(shard, dataset.table(shard, "image_index")))
        for place, row in enumerate(index):
            mine = [box for box in boxes if box["image_row"] == place]
            image = data.image(seen)
            assert image.image_id == row["image_id"]
            assert image.shard == shard
            assert image.size_hw == SIZE
            assert _names(data, seen) == [box["category"] for box in mine]
            assert image.boxes_xyxy.tolist() == [box["box_xyxy"] for box in mine]
            assert data.image_bytes(seen) == stored[place]
            seen += 1
    assert seen == 12


def test_each_row_gets_its_own_chosen_mask(builder: DatasetBuilder, opened: Open) -> None:
    """By teacher, candidate and human, also behind rows that were dropped."""
    builder.image("a.jpg", size_hw=SIZE)
    boxes = [(1.0, 1.0, 5.0, 5.0), (2.0, 2.0, 9.0, 9.0), (3.0, 3.0, 20.0, 20.0), BOX]
    expected = [filled_box(box, SIZE) for box in boxes]
    human = {MASKS_HUMAN: mask_row(expected[2], SIZE)}
    other = mask_row(expected[3], SIZE)
    candidate = {name: other[name] for name in ("counts", "area_px", "predicted_iou")}
    layers = {"masks/b": mask_row(expected[0], SIZE) | {"candidates": [candidate]}}
    builder.box("bag", boxes[0], teacher="a")
    builder.box("hat", boxes[1], teacher="a", keep=False, reason="min_box_iou")
    builder.box("shoe", boxes[2], teacher="human", layers=human)
    builder.box("shoe", boxes[3], teacher="b", candidate=1, layers=layers)
    builder.shard()
    data = opened(builder.commit(categories()))
    row = data.image(0)
    has_mask = row.mask_rows >= 0
    assert has_mask.tolist() == [True, False, True, True]
    counts = data.mask_counts(0, row.mask_rows[has_mask]).to_pylist()
    for place, found in zip([0, 2, 3], counts, strict=True):
        assert (rle.decode(found, size_hw=SIZE) == expected[place]).all()
    assert data.dropped == {"min_box_iou": 1}
    assert data.num_masks == 3


def test_dropped_boxes_are_targets_without_masks_or_are_not_judged(
    builder: DatasetBuilder, opened: Open
) -> None:
    builder.image("a.jpg", size_hw=SIZE)
    builder.box("bag", BOX)
    builder.box("hat", BOX, keep=False, reason="min_box_iou")
    builder.box("shoe", BOX, teacher=None, keep=False)
    builder.shard()
    dataset = builder.commit(categories())
    with_boxes = opened(dataset)
    assert _names(with_boxes, 0) == ["bag", "hat", "shoe"]
    assert _judged(with_boxes, 0) == {"bag", "hat", "shoe"}
    assert with_boxes.dropped == {"min_box_iou": 1, "unexplained": 1}
    without = opened(dataset, dropped_boxes=False)
    assert _names(without, 0) == ["bag"]
    assert _judged(without, 0) == {"bag"}
    assert without.skipped["min_box_iou"] == 1


def test_a_layer_is_taken_as_it_is(builder: DatasetBuilder, opened: Open) -> None:
    builder.image("a.jpg", size_hw=SIZE)
    builder.box("bag", BOX, keep=False, teacher="a")
    failed = mask_row(None, SIZE, status=FAILED, reason="teacher_error")
    builder.box("hat", BOX, teacher="a", layers={"masks/a": failed})
    builder.shard()
    data = opened(builder.commit(categories()), masks="masks/a")
    assert (data.image(0).mask_rows >= 0).tolist() == [True, False]
    assert data.image(0).weights.tolist() == [1, 1]
    assert data.dropped == {"teacher_error": 1}


def test_weights_are_the_verdicts_and_humans_count_one(
    builder: DatasetBuilder, opened: Open
) -> None:
    builder.image("a.jpg", size_hw=SIZE)
    human = {MASKS_HUMAN: mask_row(filled_box(BOX, SIZE), SIZE)}
    builder.box("bag", BOX, teacher="a")
    builder.box("bag", BOX, teacher="a")
    builder.box("bag", BOX, teacher="human", layers=human)
    builder.verdicts[0]["weight"] = 0.25
    builder.verdicts[2]["weight"] = 0.25  # nonsense, and no matter
    builder.shard()
    assert opened(builder.commit(categories())).image(0).weights.tolist() == [0.25, 1, 1]


@pytest.mark.parametrize("kind", ["is_crowd", "is_group_of"])
def test_crowds_are_no_targets_and_not_judged(
    builder: DatasetBuilder, opened: Open, kind: str
) -> None:
    builder.image("a.jpg", size_hw=SIZE)
    builder.box("bag", BOX, **{kind: True})
    builder.box("hat", BOX)
    builder.shard()
    data = opened(builder.commit(categories()))
    assert _names(data, 0) == ["hat"]
    assert _judged(data, 0) == {"hat", "shoe"}
    assert data.skipped[kind] == 1
    row = data.image(0)
    assert len(data.mask_counts(0, row.mask_rows)) == 1


def test_federated_images_judge_what_was_looked_for(builder: DatasetBuilder, opened: Open) -> None:
    more = {"size_hw": SIZE, "source": "lvis"}
    builder.image("a.jpg", negative=["hat"], not_exhaustive=["bag"], **more)
    builder.box("bag", BOX)
    builder.image("b.jpg", **more)  # without lists of its own, and federated all the same
    builder.box("shoe", BOX)
    builder.image("c.jpg", size_hw=SIZE, source="coco")
    builder.box("hat", BOX)
    builder.shard()
    data = opened(builder.commit(categories()))
    assert [_judged(data, image) for image in range(3)] == [
        {"hat"},
        {"shoe"},
        {"bag", "hat", "shoe"},
    ]
    present, absent = data.present(np.array([0, 1]))
    assert present.tolist() == [0, 2]
    assert absent.tolist() == [1]


def test_quarantined_images_are_left_out(builder: DatasetBuilder, opened: Open) -> None:
    builder.image("a.jpg", size_hw=SIZE, quarantine="too_dark")
    builder.box("hat", BOX)
    builder.image("b.jpg", size_hw=SIZE)
    builder.box("bag", BOX)
    builder.shard()
    data = opened(builder.commit(categories()))
    assert data.num_images == 1
    assert _names(data, 0) == ["bag"]
    assert data.skipped["image_quarantined"] == 1
    assert len(data.mask_counts(0, data.image(0).mask_rows)) == 1


@pytest.mark.parametrize(("skip", "most"), [(0, 4), (3, 0), (4, 3), (5, 5), (2, 100)])
def test_parts_of_a_source(builder: DatasetBuilder, opened: Open, skip: int, most: int) -> None:
    dataset = many_images(builder, 12)
    every = opened(dataset)
    ids = [every.image(image).image_id for image in range(12)][skip:]
    ids = ids[:most] if most else ids
    part = opened(dataset, mix=(SourceConfig(skip_images=skip, max_images=most),))
    assert [part.image(image).image_id for image in range(part.num_images)] == ids
    for image in range(part.num_images):
        same = every.image(image + skip)
        assert part.image(image).boxes_xyxy.tolist() == same.boxes_xyxy.tolist()
        assert (
            part.mask_counts(image, part.image(image).mask_rows).to_pylist()
            == every.mask_counts(image + skip, same.mask_rows).to_pylist()
        )
    assert sum(part.skipped.values()) + part.num_images == 12


def test_skipping_all_images_is_said(builder: DatasetBuilder, opened: Open) -> None:
    dataset = many_images(builder, 3)
    with pytest.raises(InputError, match=r"no image is left .*image_before_skip_images 3"):
        opened(dataset, mix=(SourceConfig(skip_images=5),))


def test_a_mix_of_stores_knows_whose_categories_are_whose(tmp_path: Path) -> None:
    stores = []
    for name, words in [("one", ("bag", "hat")), ("two", ("shoe", "hat"))]:
        store = Store(str(tmp_path / name))
        init(store)
        builder = DatasetBuilder(store)
        builder.image(f"{name}.jpg", size_hw=SIZE, source=name)
        builder.box(words[0], BOX, teacher="human" if name == "one" else "a")
        builder.shard()
        dataset = builder.commit(categories(*words, source=name))
        stores.append((store, dataset.commit_id))
    (one, first), (two, second) = stores
    mix = (
        SourceConfig(weight=2.0),
        SourceConfig(store=two.url, ref=second, weight=0.5),
    )
    config = config_of(tmp_path, mix=mix, human_weight=3.0, pseudo_weight=0.5)
    data = TrainingData.open(one, first, config)
    assert data.commits == ((one.url, first), (two.url, second))
    assert data.categories == ("bag", "hat", "shoe")
    assert [_names(data, image) for image in range(2)] == [["bag"], ["shoe"]]
    assert [_judged(data, image) for image in range(2)] == [{"bag", "hat"}, {"hat", "shoe"}]
    assert data.weights().tolist() == [6.0, 0.25]
    again = pickle.loads(pickle.dumps(data))  # noqa: S301  own bytes
    assert again.commits == data.commits
    assert again.image_bytes(1) == data.image_bytes(1)


def test_images_without_boxes_keep_their_weight(builder: DatasetBuilder, opened: Open) -> None:
    builder.image("a.jpg", size_hw=SIZE)
    builder.box("bag", BOX)
    builder.image("b.jpg", size_hw=SIZE)
    builder.shard()
    data = opened(builder.commit(categories()), pseudo_weight=0.5)
    assert data.weights().tolist() == [0.5, 1.0]
    assert _names(data, 1) == []


def test_a_branch_that_moves_is_not_followed(builder: DatasetBuilder, tmp_path: Path) -> None:
    dataset = many_images(builder, 5)
    refs = Refs(builder.store)
    head = refs.head("main")
    assert head is not None
    refs.advance("main", expected=head, commit=dataset.commit_id, reason="test")
    data = TrainingData.open(builder.store, "main", config_of(tmp_path))
    refs.advance("main", expected=refs.head("main"), commit=head.commit, reason="test")
    assert pickle.loads(pickle.dumps(data)).num_images == 5  # noqa: S301  own bytes


def test_a_second_opening_reads_no_boxes(builder: DatasetBuilder, opened: Open) -> None:
    dataset = many_images(builder, 12)
    first = opened(dataset)
    for cell in dataset.manifest:
        if cell.layer in ("boxes", "verdicts", "image_index"):
            builder.store.remove(f"objects/{cell.object_id[:2]}/{cell.object_id}")
    second = opened(dataset)
    assert second.num_targets == first.num_targets
    assert second.image(7).boxes_xyxy.tolist() == first.image(7).boxes_xyxy.tolist()


def test_bytes_that_changed_are_noticed(builder: DatasetBuilder, opened: Open) -> None:
    dataset = many_images(builder, 3)
    data = opened(dataset)
    object_id = dataset.manifest.of_layer("images")[0].object_id
    path = Path(builder.store.path(f"objects/{object_id[:2]}/{object_id}"))
    stored = bytearray(path.read_bytes())
    stored[700] ^= 1
    path.write_bytes(stored)
    with pytest.raises(ObjectDamagedError, match="not those that were stored"):
        data.image_bytes(0)
    data.image_bytes(1)


# -- useless commits -------------------------------------------------------------------------------


def _one_image(builder: DatasetBuilder, *, verdicts: bool = True, **box: Any) -> None:
    builder.image("a.jpg", size_hw=SIZE)
    builder.box("bag", BOX, **box)
    builder.shard(verdicts=verdicts)


def test_no_verdicts(builder: DatasetBuilder, opened: Open) -> None:
    _one_image(builder, verdicts=False)
    with pytest.raises(InputError, match=r"no 'verdicts'.*maskmill filter.*masks=masks/mobile_sam"):
        opened(builder.commit(categories()))


def test_no_masks_at_all(builder: DatasetBuilder, opened: Open) -> None:
    _one_image(builder, verdicts=False, teacher=None)
    with pytest.raises(InputError, match="run 'maskmill label', then 'maskmill filter'"):
        opened(builder.commit(categories()))


def test_some_shards_lack_a_layer(builder: DatasetBuilder, opened: Open) -> None:
    _one_image(builder, teacher="a")
    _one_image(builder, teacher="b")
    with pytest.raises(InputError, match=r"no 'masks/a' for 1 of 2 shards.*label.*'a'"):
        opened(builder.commit(categories()), masks="masks/a")


def test_humans_need_not_have_masked_every_shard(builder: DatasetBuilder, opened: Open) -> None:
    _one_image(builder, teacher="human")
    _one_image(builder, teacher="b")
    data = opened(builder.commit(categories()), masks=MASKS_HUMAN)
    assert data.num_images == 2
    assert data.num_masks == 1
    assert data.dropped == {ABSENT: 1}


def test_unknown_layer(builder: DatasetBuilder, opened: Open) -> None:
    _one_image(builder)
    with pytest.raises(
        InputError, match=r"no layer 'masks/sam'.*one of: verdicts, masks/mobile_sam"
    ):
        opened(builder.commit(categories()), masks="masks/sam")


def test_all_masks_dropped(builder: DatasetBuilder, opened: Open) -> None:
    _one_image(builder, keep=False, reason="min_box_iou")
    with pytest.raises(
        InputError, match=r"all masks of 'verdicts' were dropped.*min_box_iou 1.*maskmill filter"
    ):
        opened(builder.commit(categories()))


def test_masks_that_are_never_drawn_are_none(builder: DatasetBuilder, opened: Open) -> None:
    """Images without boxes keep their weight, and would be all that is trained on."""
    builder.image("a.jpg", size_hw=(24, 32))
    builder.box("bag", BOX)
    builder.image("b.jpg", size_hw=(24, 32), source_image_id="2")
    builder.shard()
    dataset = builder.commit(categories())
    with pytest.raises(InputError, match="no image with a mask is left to train on: each has weig"):
        opened(dataset, pseudo_weight=0.0)


def test_an_image_without_kept_masks_is_no_matter(builder: DatasetBuilder, opened: Open) -> None:
    _one_image(builder, keep=False, reason="min_box_iou")
    _one_image(builder)
    data = opened(builder.commit(categories()))
    assert [_names(data, image) for image in range(2)] == [["bag"], ["bag"]]
    assert data.num_masks == 1


def test_nothing_ingested(builder: DatasetBuilder, opened: Open) -> None:
    with pytest.raises(InputError, match="no boxes to train on"):
        opened(builder.commit(categories()))
    builder.image("a.jpg", size_hw=SIZE)
    builder.shard(boxes=False)
    with pytest.raises(InputError, match="no boxes to train on"):
        opened(builder.commit(categories()))


@pytest.mark.parametrize("name", ["", "  ", "_"])
def test_category_without_text(builder: DatasetBuilder, opened: Open, name: str) -> None:
    _one_image(builder)
    with pytest.raises(InputError, match="category without a name"):
        opened(builder.commit((*categories(), Category(name=name))))


def test_unknown_ref_in_the_mix(builder: DatasetBuilder, tmp_path: Path) -> None:
    _one_image(builder)
    dataset = builder.commit(categories())
    config = config_of(tmp_path, mix=(SourceConfig(), SourceConfig(ref="mein")))
    with pytest.raises(RefError, match=r"data\.mix, dataset 2: .*mein"):
        TrainingData.open(builder.store, dataset.commit_id, config)
    with pytest.raises(RefError, match="mein"):
        TrainingData.open(builder.store, "mein", config_of(tmp_path))


def test_boxes_of_an_unlisted_category(builder: DatasetBuilder, opened: Open) -> None:
    _one_image(builder)
    with pytest.raises(ObjectDamagedError, match=r"category 'bag'.*fsck"):
        opened(builder.commit(categories("hat")))


def test_empty_shards_need_nothing(builder: DatasetBuilder, opened: Open) -> None:
    """A shard whose images have no boxes has no verdicts and no masks either."""
    builder.image("a.jpg", size_hw=SIZE)
    builder.shard(boxes=False)
    _one_image(builder)
    data = opened(builder.commit(categories()))
    assert [_names(data, image) for image in range(2)] == [[], ["bag"]]
    assert _judged(data, 0) == {"bag", "hat", "shoe"}


def test_two_commits_of_one_store_are_two_tables(builder: DatasetBuilder, opened: Open) -> None:
    many_images(builder, 5)
    small = builder.commit(categories())
    _one_image(builder)
    large = builder.commit(categories())
    assert [opened(small).num_images, opened(large).num_images] == [5, 6]


@pytest.mark.parametrize("num_bytes", [0, 100])
def test_a_damaged_file_of_the_cache_is_made_again(
    builder: DatasetBuilder, opened: Open, num_bytes: int, caplog: pytest.LogCaptureFixture
) -> None:
    """As a power cut leaves it: cut off, or empty."""
    dataset = many_images(builder, 3)
    whole = opened(dataset)
    expected = whole.mask_counts(0, whole.image(0).mask_rows).to_pylist()
    files = [path for path in whole._cache.folder.glob("made/*/*") if path.is_file()]
    assert len(files) >= 3
    for path in files:
        data = path.read_bytes()[:num_bytes]
        path.unlink()  # who has mapped it keeps it
        path.write_bytes(data)
    again = opened(dataset)
    assert again.mask_counts(0, again.image(0).mask_rows).to_pylist() == expected
    assert caplog.text.count("and is made again") == len(files)
