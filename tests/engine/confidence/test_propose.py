"""Proposals of images to draw: whom chance takes, what is chosen, and what is written."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from engine.confidence.best_masks import best_masks, preferred_teachers
from engine.confidence.proposal import ProposalOptions, propose
from engine.confidence.propose import choose, random_order
from engine.confidence.proposed import ProposeConfig
from engine.confidence.roles import CALIBRATE, CERTIFY, role_of
from engine.confidence.telling_images import OpenImage, image_worth, openness, spread
from engine.label import LabelConfig, label
from manifests import rle, schemas
from manifests.cells import write_cell
from manifests.dataset import Dataset, operation
from manifests.errors import InputError
from manifests.ledger import Ledger
from manifests.store import Store
from manifests.writer import Writer
from tests.engine.conftest import INLINE, PhotoSet

Ingested = Callable[..., Dataset]
EVERYTHING = ProposeConfig(count=1000)


def fill(photos: PhotoSet, number: int = 12) -> PhotoSet:
    for image in range(number):
        photos.add(f"{image}.jpg", [5, 5, 30, 40], [40, 10, 20, 20])
    return photos


@pytest.fixture
def labelled(photos: PhotoSet, ingested: Ingested, store: Store) -> Dataset:
    ingested(fill(photos), shard_images=5)
    return Dataset(store, label(store, LabelConfig(teacher="box", pool=INLINE)))


def document(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (folder / "annotations" / "instances_default.json").read_text()
    )
    return found


def rows_of(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((folder / "proposal.json").read_text())
    return rows


# -- who is chosen -------------------------------------------------------------------------------


def test_every_image_keeps_its_role_and_chance_alone_takes_those_that_certify(
    labelled: Dataset,
) -> None:
    everything = choose(labelled, EVERYTHING).images
    ids = {proposed.image.image_id: proposed.role for proposed in everything}
    assert len(ids) == 12
    assert ids == {image_id: role_of(image_id) for image_id in ids}
    wanted = sorted(
        (name for name in ids if ids[name] == CERTIFY), key=lambda name: random_order(name, 0)
    )
    few = choose(labelled, ProposeConfig(count=4, num_certify=2)).images
    certify = {proposed.image.image_id for proposed in few if proposed.role == CERTIFY}
    assert certify == set(wanted[:2])
    assert all(proposed.score is None for proposed in few if proposed.role == CERTIFY)
    assert [p.image.image_id for p in few] == sorted(p.image.image_id for p in few)


def test_the_random_order_has_a_seed(labelled: Dataset) -> None:
    orders = []
    for seed in range(6):
        images = choose(labelled, ProposeConfig(count=3, num_certify=3, seed=seed)).images
        orders.append({proposed.image.image_id for proposed in images})
    assert len({frozenset(order) for order in orders}) > 1


def test_half_certify_and_where_one_role_is_short_the_other_fills_in(labelled: Dataset) -> None:
    four = choose(labelled, ProposeConfig(count=4))
    assert [p.role for p in four.images].count(CERTIFY) == 2
    assert four.num_open[CERTIFY] + four.num_open[CALIBRATE] == 12
    only = choose(labelled, ProposeConfig(count=12, num_certify=0))
    assert len(only.images) == 12
    nobody = choose(labelled, ProposeConfig(count=5, certify_share=0))
    assert {p.role for p in nobody.images} == {CALIBRATE}
    all_of_them = choose(labelled, ProposeConfig(count=5, certify_share=1))
    assert {p.role for p in all_of_them.images} == {CERTIFY}


def test_the_share_is_that_of_the_newest_calibration(labelled: Dataset, store: Store) -> None:
    Writer(store, "main").commit(
        labelled.manifest, message="calibrated", ledger=Ledger(), even_if_unchanged=True,
        operation=operation("calibrate", version=1, config={"certify_share": 1.0}),
    )  # fmt: skip
    found = choose(Dataset.open(store), ProposeConfig(count=3))
    assert found.certify_share == 1
    assert {proposed.role for proposed in found.images} == {CERTIFY}


def test_gold_quarantined_and_crowded_images_are_not_asked_for(
    photos: PhotoSet, ingested: Ingested
) -> None:
    open_id = photos.add("open.jpg", [5, 5, 30, 40])
    photos.annotate(open_id, [0, 0, 80, 60], iscrowd=1)
    gold = photos.add("gold.jpg")
    photos.annotate(gold, [10, 5, 20, 30], segmentation=[[10, 5, 30, 5, 30, 35, 10, 35]])
    photos.annotate(gold, [1, 1, 5, 5])
    crowd = photos.add("crowd.jpg")
    photos.annotate(crowd, [10, 5, 20, 30], iscrowd=1)
    photos.add("none.jpg")
    black = Image.fromarray(np.zeros((60, 80, 3), np.uint8))
    sink = io.BytesIO()
    black.save(sink, "JPEG")
    photos.add("black.jpg", [5, 5, 30, 40], content=sink.getvalue())
    found = choose(ingested(photos), EVERYTHING)
    assert [len(proposed.image.categories) for proposed in found.images] == [1]
    assert (found.num_with_gold, found.num_quarantined, found.num_without_boxes) == (1, 1, 2)


# -- what is telling -----------------------------------------------------------------------------


def an_image(name: str, category: str, *, cell: int = 0, worth: float = 1.0) -> OpenImage:
    return OpenImage(
        image_id=name, shard="s", categories=[category], cells=[cell],
        expected=np.array([0.7], np.float32), worth=np.array([worth], np.float32),
    )  # fmt: skip


def test_open_questions_are_those_near_a_bound() -> None:
    values = np.array([0.0, 0.65, 0.7, 0.9, np.nan], np.float32)
    far, near, at, above, unknown = openness(values, [0.7]).tolist()
    assert far < near < at == unknown == 1
    assert far < above < near
    assert openness(np.array([0.95], np.float32), [0.7, 0.95]).tolist() == [1]


def test_a_proposal_says_the_score_that_it_was_chosen_by(labelled: Dataset) -> None:
    found = choose(labelled, EVERYTHING).images
    for proposed in found:
        if proposed.role == CALIBRATE:
            assert proposed.score == pytest.approx(image_worth(proposed.image, {}))
            assert proposed.score > 0


def test_rare_categories_and_no_twins() -> None:
    pool = [an_image(f"a{n}", "shoe") for n in range(4)] + [an_image("b", "hat")]
    assert spread(pool, {"shoe": 3}, 1)[0].image_id == "b"
    # An equal twin of what was taken counts half, and less for each gold box of its category.
    twins = [
        an_image("t1", "shoe"),
        an_image("t2", "shoe"),
        an_image("u", "shoe", cell=1, worth=0.7),
    ]
    assert [image.image_id for image in spread(twins, {}, 2)] == ["t1", "u"]
    assert len(spread(twins, {}, 10)) == 3
    assert spread([], {}, 3) == []


def test_an_image_costs_a_look_and_each_box_a_drawing() -> None:
    """Four equal boxes are worth twice as much as one: neither four times, nor the same."""
    one = an_image("a", "shoe")
    four = OpenImage(
        image_id="b", shard="s", categories=["shoe"] * 4, cells=[0] * 4,
        expected=np.repeat(one.expected, 4), worth=np.repeat(one.worth, 4),
    )  # fmt: skip
    assert image_worth(four, {}) == pytest.approx(2 * image_worth(one, {}))
    assert image_worth(one, {"shoe": 3}) == pytest.approx(image_worth(one, {}) / 2)


@pytest.mark.parametrize("seed", range(20))
def test_looking_again_only_at_the_best_is_as_good_as_looking_at_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pool = [
        OpenImage(
            image_id=f"{n:03}", shard="s",
            categories=rng.choice(["a", "b", "c"], size=size).tolist(),
            cells=rng.integers(0, 3, size).tolist(),
            expected=np.zeros(size, np.float32), worth=rng.random(size).astype(np.float32),
        )
        for n, size in enumerate(rng.integers(1, 5, 30))
    ]  # fmt: skip
    gold: dict[str, int] = {"a": 5}
    taken, alike, slow = dict(gold), {}, []
    rest = list(pool)
    for _ in range(10):
        best = min(rest, key=lambda image: (-image_worth(image, taken, alike), image.image_id))
        rest.remove(best)
        slow.append(best.image_id)
        for pair in zip(best.categories, best.cells, strict=True):
            taken[pair[0]] = taken.get(pair[0], 0) + 1
            alike[pair] = alike.get(pair, 0) + 1
    assert [image.image_id for image in spread(pool, gold, 10)] == slow


# -- the best mask of a box ----------------------------------------------------------------------


def with_layer(dataset: Dataset, layer: str, table: pa.Table, shard: str) -> Dataset:
    cell = write_cell(dataset.store, table, shard=shard, layer=layer)
    writer = Writer(dataset.store, "main")
    commit_id = writer.commit(
        writer.dataset.manifest.with_cells([cell]), message="x", ledger=Ledger(),
        operation=operation("test", version=1, config={}),
    )  # fmt: skip
    return Dataset(dataset.store, commit_id)


def test_confidence_comes_before_verdicts_before_the_first_teacher(
    photos: PhotoSet, ingested: Ingested, store: Store
) -> None:
    photos.add("a.jpg", [5, 5, 30, 40], [40, 10, 20, 20], [2, 2, 10, 10])
    dataset = ingested(photos)
    [shard] = dataset.manifest.shards()
    assert best_masks(dataset, shard, (), num_rows=3).layers.tolist() == [None] * 3
    for teacher in ("box", "grabcut"):
        dataset = Dataset(store, label(store, LabelConfig(teacher=teacher, pool=INLINE)))
    assert preferred_teachers(dataset) == ("box", "grabcut")
    best = best_masks(dataset, shard, ("grabcut", "box"), num_rows=3)
    assert set(best.layers.tolist()) <= {"masks/grabcut", "masks/box"}
    verdicts = pa.table(
        {"keep": [False, True, True], "reason": ["x", None, None],
         "teacher": ["masks/box", "masks/box", None], "candidate": [0, 0, 0],
         "weight": [0.0, 1.0, 1.0]},
        schema=schemas.VERDICTS_SCHEMA,
    )  # fmt: skip
    dataset = with_layer(dataset, schemas.VERDICTS, verdicts, shard)
    confidence = pa.table(
        {"confidence": [None, 0.4, None], "teacher": ["masks/gone", "masks/grabcut", None],
         "candidate": [0, 0, 0]},
        schema=schemas.CONFIDENCE_SCHEMA,
    )  # fmt: skip
    dataset = with_layer(dataset, schemas.CONFIDENCE, confidence, shard)
    best = best_masks(dataset, shard, ("box",), num_rows=3)
    assert best.layers.tolist() == ["masks/box", "masks/grabcut", "masks/box"]
    assert best.expected[1] == np.float32(0.4)
    assert np.isnan(best.expected[[0, 2]]).all()


def test_what_is_proposed_is_the_candidate_that_confidence_names(
    labelled: Dataset, tmp_path: Path
) -> None:
    """A teacher's second opinion: its own choice with one row of pixels less."""
    shard = labelled.manifest.shards()[0]
    masks = labelled.table(shard, "masks/box")
    other = []
    for row in masks.to_pylist():
        size_hw = row["height"], row["width"]
        mask = rle.decode(row["counts"], size_hw=size_hw)
        mask[np.flatnonzero(mask.any(axis=1))[0]] = 0
        own = {field.name: row[field.name] for field in schemas.MASK_FIELDS}
        other.append([{**own, "counts": rle.encode(mask), "area_px": int(mask.sum())}])
    place = masks.schema.get_field_index("candidates")
    field = schemas.MASKS_SCHEMA.field("candidates")
    changed = masks.set_column(place, field, pa.array(other, field.type))
    dataset = with_layer(labelled, "masks/box", changed, shard)
    size = masks.num_rows
    confidence = pa.table(
        {"confidence": [0.7] * size, "teacher": ["masks/box"] * size, "candidate": [1] * size},
        schema=schemas.CONFIDENCE_SCHEMA,
    )
    dataset = with_layer(dataset, schemas.CONFIDENCE, confidence, shard)
    propose(dataset, str(tmp_path / "out"), config=EVERYTHING)
    proposed = Counter(
        entry["segmentation"]["counts"].encode()
        for entry in document(tmp_path / "out")["annotations"]
    )
    expected = Counter(made[0]["counts"] for made in other)
    for name in labelled.manifest.shards()[1:]:
        expected.update(labelled.table(name, "masks/box")["counts"].to_pylist())
    assert proposed == expected


# -- what is written -----------------------------------------------------------------------------


def test_the_folder_is_coco_as_cvat_reads_it(labelled: Dataset, tmp_path: Path) -> None:
    made = propose(labelled, str(tmp_path / "out"), config=ProposeConfig(count=5), ref="main")
    assert (made.num_images, made.num_boxes, made.num_masks) == (5, 10, 10)
    found = document(tmp_path / "out")
    assert [category["id"] for category in found["categories"]] == [1]
    assert len(found["images"]) == 5
    stored = stored_images(labelled)
    size = {image["id"]: (image["height"], image["width"]) for image in found["images"]}
    for image in found["images"]:
        image_id, _, suffix = image["file_name"].partition(".")
        assert suffix == "jpg"
        assert (tmp_path / "out" / "images" / image["file_name"]).read_bytes() == stored[image_id]
    for number, annotation in enumerate(found["annotations"], start=1):
        assert annotation["id"] == number
        assert annotation["iscrowd"] == 0
        counts = rle.from_segmentation(
            annotation["segmentation"], size_hw=size[annotation["image_id"]]
        )
        assert counts is not None
        tight = rle.box_xyxy(counts, size_hw=size[annotation["image_id"]])
        x, y, width, height = annotation["bbox"]
        assert tight.tolist() == [x, y, x + width, y + height]


def stored_images(dataset: Dataset) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for shard in dataset.manifest.shards():
        index = dataset.table(shard, schemas.IMAGE_INDEX)
        found.update(zip(index["image_id"].to_pylist(), dataset.images(shard, index), strict=True))
    return found


def test_the_tables_say_why(labelled: Dataset, tmp_path: Path) -> None:
    propose(labelled, str(tmp_path / "out"), config=ProposeConfig(count=4))
    rows = rows_of(tmp_path / "out")
    with (tmp_path / "out" / "proposal.csv").open(newline="") as file:
        sheet = list(csv.DictReader(file))
    assert [row["image_id"] for row in rows] == [row["image_id"] for row in sheet]
    for row in rows:
        assert row["role"] == role_of(row["image_id"])
        assert ("at random" in row["why"]) == (row["role"] == CERTIFY)
        assert (row["score"] is None) == (row["role"] == CERTIFY)
        assert row["original_file_name"].endswith(".jpg")


def test_the_same_commit_gives_the_same_files(labelled: Dataset, tmp_path: Path) -> None:
    for name in ("a", "b"):
        propose(labelled, str(tmp_path / name), config=ProposeConfig(count=5))
    a, b = (
        {path.relative_to(tmp_path / name): path.read_bytes()
         for path in (tmp_path / name).rglob("*") if path.is_file()}
        for name in ("a", "b")
    )  # fmt: skip
    assert a == b


def test_boxes_only_and_boxes_that_nobody_drew(
    labelled: Dataset, photos: PhotoSet, tmp_path: Path
) -> None:
    options = ProposalOptions(masks=False)
    made = propose(labelled, str(tmp_path / "out"), options=options)
    assert made.num_masks == 0
    assert {str(a["segmentation"]) for a in document(tmp_path / "out")["annotations"]} == {"[]"}


def test_label_studio_gets_tasks_with_predictions(labelled: Dataset, tmp_path: Path) -> None:
    options = ProposalOptions(format="label-studio", image_url="http://127.0.0.1/")
    propose(labelled, str(tmp_path / "out"), config=ProposeConfig(count=3), options=options)
    tasks = json.loads((tmp_path / "out" / "tasks.json").read_text())
    assert len(tasks) == 3
    image_id = tasks[0]["data"]["maskmill_image_id"]
    assert tasks[0]["data"]["image"] == f"http://127.0.0.1/{image_id}.jpg"
    kinds = [region["type"] for region in tasks[0]["predictions"][0]["result"]]
    assert kinds == ["rectanglelabels", "brushlabels"] * 2
    setup = (tmp_path / "out" / "label_config.xml").read_text()
    assert '<Label value="shoe"/>' in setup
    assert not (tmp_path / "out" / "annotations").exists()


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0}, "count: expected at least 1 image to propose, got 0"),
        ({"count": 3, "num_certify": 4}, "certify: expected from 0 to the 3 images"),
        ({"num_certify": -1}, "certify: expected from 0"),
        ({"certify_share": 1.5}, "certify_share: expected from 0 to 1, got 1.5"),
    ],
)
def test_impossible_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ProposeConfig(**settings)


def test_an_unknown_format() -> None:
    with pytest.raises(InputError, match="format 'cvat': expected one of coco, label-studio"):
        ProposalOptions(format="cvat")  # type: ignore[arg-type]  # the point of the test


def test_no_boxes_and_nothing_left(
    store: Store, photos: PhotoSet, ingested: Ingested, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="has no boxes, so there is nothing that people"):
        propose(Dataset.open(store), str(tmp_path / "out"))
    gold = photos.add("gold.jpg")
    photos.annotate(gold, [10, 5, 20, 30], segmentation=[[10, 5, 30, 5, 30, 35, 10, 35]])
    with pytest.raises(InputError, match="nothing to propose: 1 images have human masks"):
        propose(ingested(photos), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it(labelled: Dataset, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="is not empty"):
        propose(labelled, str(tmp_path))
    with pytest.raises(InputError, match="is not an export and is not overwritten"):
        propose(labelled, str(tmp_path), options=ProposalOptions(overwrite=True))
    out = str(tmp_path / "out")
    propose(labelled, out, config=ProposeConfig(count=5))
    propose(labelled, out, config=ProposeConfig(count=2), options=ProposalOptions(overwrite=True))
    assert len(list((tmp_path / "out" / "images").iterdir())) == 2
