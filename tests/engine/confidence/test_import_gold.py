"""What people drew becomes gold: every answer and every box is accounted for."""

from __future__ import annotations

import copy
import itertools
import json
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.again import ReproduceConfig
from engine.confidence.brush_rle import from_brush_rle, to_brush_rle
from engine.confidence.gold_shard import GoldRules
from engine.confidence.import_gold import GoldImport, GoldImportConfig, import_gold
from engine.confidence.match_gold import match_answers
from engine.confidence.proposal import ProposalOptions, propose
from engine.confidence.proposed import ProposeConfig
from engine.confidence.roles import role_of
from engine.filter import FilterConfig, filter_masks
from engine.label import LabelConfig, label
from engine.policy import Policy
from engine.reproduce import reproduce
from manifests import rle, schemas
from manifests.dataset import Dataset
from manifests.errors import InputError, NothingToCommitError
from manifests.polygons import polygons_from_rle
from manifests.rejects import rejects
from manifests.store import Store
from tests.engine.confidence.drawing import drawn, ellipse, human_rows, read, save
from tests.engine.conftest import INLINE, PhotoSet

Json = Any  # parsed JSON
SHOE = [10, 5, 20, 30]
POLICY = Policy(name="test", teachers=("box",))


@pytest.fixture
def labelled(photos: PhotoSet, ingested: Callable[..., Dataset], store: Store) -> Dataset:
    """Six photos in two shards, two boxes each, drawn by a teacher and judged."""
    photos.document["categories"].append({"id": 8, "name": "hat"})
    for number in range(6):
        photos.add(f"street/{number}.jpg".replace("/", "_"), SHOE, [40, 10, 20, 20])
    ingested(photos, shard_images=3)
    label(store, LabelConfig(teacher="box", pool=INLINE))
    return Dataset(store, filter_masks(store, FilterConfig(policy=POLICY)))


@pytest.fixture
def proposal(labelled: Dataset, tmp_path: Path) -> Json:
    propose(labelled, str(tmp_path / "out"), config=ProposeConfig(count=100))
    return read(tmp_path / "out")


@pytest.fixture
def answers(proposal: Json) -> Json:
    return drawn(proposal)


Import = Callable[..., GoldImport]


@pytest.fixture
def bring(store: Store, tmp_path: Path) -> Import:
    """Saves a document and imports it."""

    def do(document: Json, name: str = "answers.json", **rules: Any) -> GoldImport:
        path = save(document, tmp_path / name)
        return import_gold(store, GoldImportConfig(answers=path, rules=GoldRules(**rules)))

    return do


def reasons(store: Store, commit_id: str) -> Counter[str]:
    """Reason -> answers, in the table that hangs on the commit."""
    from manifests.history import HistoryEntry
    from manifests.rejects import rejects_table

    dataset = Dataset(store, commit_id)
    entry = HistoryEntry(commit_id=commit_id, commit=dataset.commit)
    return Counter(rejects_table(store, entry)["reason"].to_pylist())


# -- the round trip ------------------------------------------------------------------------------


def test_the_masks_come_home(store: Store, labelled: Dataset, answers: Json, bring: Import) -> None:
    made = bring(answers)
    dataset = Dataset(store, made.commit_id)
    for row in human_rows(dataset):
        x0, y0, x1, y1 = row["box_xyxy"]
        expected = ellipse([x0, y0, x1 - x0, y1 - y0], (60, 80))
        assert row["status"] == schemas.OK
        assert (rle.decode(row["counts"], size_hw=(60, 80)) == expected).all()
        assert row["area_px"] == expected.sum()
        assert row["box_iou"] == 1
    assert (made.summary.num_new, made.summary.num_replaced, made.summary.num_kept) == (12, 0, 0)
    assert (made.summary.num_images, made.summary.num_used, made.summary.not_used) == (6, 12, {})
    for row in dataset.commit.ledger.totals():
        assert (row.inputs, row.kept, row.missing) == (12, 12, 0)
    assert dataset.commit.operation.name == "gold"
    assert dataset.commit.operation.inputs["answers"].url.endswith("answers.json")
    assert dataset.commit.rejects is None


def test_polygons_with_holes_cut_open_come_home_too(
    store: Store, labelled: Dataset, answers: Json, bring: Import
) -> None:
    for entry in answers["annotations"]:
        mask = ellipse(entry["bbox"], (60, 80))
        rings = polygons_from_rle(rle.encode(mask), size_hw=(60, 80))
        entry["segmentation"] = [ring.ravel().tolist() for ring in rings]
    made = bring(answers)
    rows = human_rows(Dataset(store, made.commit_id))
    assert all(
        (rle.decode(row["counts"], size_hw=(60, 80)) == ellipse(
            [row["box_xyxy"][0], row["box_xyxy"][1],
             row["box_xyxy"][2] - row["box_xyxy"][0], row["box_xyxy"][3] - row["box_xyxy"][1]],
            (60, 80),
        )).all()
        for row in rows
    )  # fmt: skip


def test_roles_and_other_layers_stay_but_verdicts_go(
    store: Store, labelled: Dataset, proposal: Json, answers: Json, bring: Import
) -> None:
    """Of one shard only: the other one's cells are the same objects."""
    first, second = labelled.manifest.shards()
    ids = set(labelled.table(first, schemas.IMAGE_INDEX)["image_id"].to_pylist())
    roles = {image_id: role_of(image_id) for image_id in ids}
    mine = {i["id"] for i in answers["images"] if i["file_name"][6:].split(".")[0] in ids}
    answers["annotations"] = [a for a in answers["annotations"] if a["image_id"] in mine]
    made = bring(answers)
    after = Dataset(store, made.commit_id)
    assert made.summary.num_unanswered == 3
    assert after.manifest.get(first, schemas.VERDICTS) is None
    assert list(after.manifest.of_shard(second)) == list(labelled.manifest.of_shard(second))
    human = after.cell(first, schemas.MASKS_HUMAN)
    assert human.inputs == (after.cell(first, schemas.BOXES).object_id,)
    assert human.statistics == {"ok": 6}
    for layer in ("masks/box", schemas.BOXES, schemas.IMAGES):
        assert after.cell(first, layer) == labelled.cell(first, layer)
    assert {image_id: role_of(image_id) for image_id in ids} == roles
    again = filter_masks(store, FilterConfig(policy=POLICY))
    verdicts = Dataset(store, again).table(first, schemas.VERDICTS)
    assert set(verdicts["teacher"].to_pylist()) == {schemas.MASKS_HUMAN}


def test_the_same_file_twice_changes_nothing(answers: Json, bring: Import) -> None:
    first = bring(answers)
    with pytest.raises(NothingToCommitError) as caught:
        bring(answers)
    assert caught.value.commit_id == first.commit_id


def test_a_second_answer_replaces_its_own_box_alone(
    store: Store, answers: Json, bring: Import
) -> None:
    before = human_rows(Dataset(store, bring(answers).commit_id))
    other = copy.deepcopy(answers)
    other["annotations"] = other["annotations"][:1]
    x, y, width, height = other["annotations"][0]["bbox"]
    corners = [x, y, x + width, y, x + width, y + height, x, y + 9]
    other["annotations"][0]["segmentation"] = [corners]
    made = bring(other, "second.json")
    assert (made.summary.num_new, made.summary.num_replaced, made.summary.num_kept) == (0, 1, 1)
    after = human_rows(Dataset(store, made.commit_id))
    changed = [a for a, b in zip(after, before, strict=True) if a != b]
    assert len(changed) == 1
    assert {row["status"] for row in after} == {schemas.OK}
    [row] = [row for row in made.summary.ledger.totals() if row.layer == schemas.MASKS_HUMAN]
    assert (row.inputs, row.kept) == (2, 2)


# -- what cannot be used -------------------------------------------------------------------------


def test_every_answer_that_is_not_used_says_why(store: Store, answers: Json, bring: Import) -> None:
    good = answers["annotations"]
    empty = {"size": [60, 80], "counts": [60 * 80]}
    broken = [
        (good[0], "bad_segmentation", {"segmentation": [[1, 2, 3]]}),
        (good[1], "bad_segmentation", {"segmentation": {"size": [6, 8], "counts": [48]}}),
        (good[2], "empty_mask", {"segmentation": empty}),
        (good[3], "no_mask", {"segmentation": []}),
        (good[4], "unknown_category", {"category_id": 99}),
        (good[5], "no_box_matches", {"segmentation": [[65, 45, 75, 45, 75, 55, 65, 55]]}),
        (good[6], "box_disagrees", {"segmentation": [[10, 5, 16, 5, 16, 11, 10, 11]]}),
        (good[7], "unknown_image", {"image_id": 4711}),
    ]
    for entry, _, change in broken:
        entry.update(change)
    if good[6]["bbox"] != [10.0, 5.0, 20.0, 30.0]:
        good[6]["segmentation"] = [[40, 10, 46, 10, 46, 16, 40, 16]]
    good.append({**copy.deepcopy(good[8]), "id": 77})  # the same object twice
    good += [17, {"id": "x"}]
    made = bring(answers)
    expected = Counter(reason for _, reason, _ in broken)
    # An entry that is no object names no image.
    expected.update({"box_has_another_answer": 1, "unknown_image": 2})
    assert made.summary.not_used == dict(sorted(expected.items()))
    assert reasons(store, made.commit_id) == expected
    answers_row, human_row = made.summary.ledger.totals()
    assert (answers_row.layer, answers_row.inputs, answers_row.kept) == ("answers", 15, 4)
    assert dict(answers_row.dropped) == made.summary.not_used
    assert (human_row.inputs, human_row.kept) == (12, 4)
    assert dict(human_row.dropped) == {"box_disagrees": 1, "not_drawn": 7}
    rows = human_rows(Dataset(store, made.commit_id))
    by_status = Counter((row["status"], row["reason"]) for row in rows)
    assert by_status == {
        ("ok", None): 4,
        ("absent", "not_drawn"): 7,
        ("absent", "box_disagrees"): 1,
    }


def test_rejects_can_be_shown(store: Store, answers: Json, bring: Import) -> None:
    answers["annotations"][0]["segmentation"] = [[1, 2, 3, 4]]
    dataset = Dataset(store, bring(answers).commit_id)
    found = [row for table in rejects(dataset) for row in table.to_pylist()]
    [row] = [row for row in found if row["reason"] == "bad_segmentation"]
    assert row["layer"] == schemas.MASKS_HUMAN
    assert row["category"] == "shoe"
    assert row["source_annotation_id"] == "900"
    assert "at least 3 points" in row["detail"]


def test_boxes_of_crowds_are_nobodys(
    photos: PhotoSet, ingested: Callable[..., Dataset], store: Store, tmp_path: Path, bring: Import
) -> None:
    image = photos.add("a.jpg", SHOE)
    photos.annotate(image, [40, 10, 20, 20], iscrowd=1)
    propose(ingested(photos), str(tmp_path / "out"))
    answers = drawn(read(tmp_path / "out"))
    extra = copy.deepcopy(answers["annotations"][0])
    extra["segmentation"] = [[40, 10, 60, 10, 60, 30, 40, 30]]
    answers["annotations"].append(extra)
    made = bring(answers)
    assert made.summary.not_used == {"no_box_matches": 1}
    assert [row["status"] for row in human_rows(Dataset(store, made.commit_id))] == ["ok", "absent"]
    assert dict(made.summary.ledger.totals()[1].dropped) == {"not_asked": 1}


def test_an_image_of_another_size_is_not_forced_into_place(answers: Json, bring: Import) -> None:
    for image in answers["images"]:
        image["height"], image["width"] = 120, 160
    with pytest.raises(InputError, match=r"can be used \(bad_segmentation 12"):
        bring(answers)


# -- what nobody drew ----------------------------------------------------------------------------


def test_masks_that_come_back_untouched_are_no_gold(
    store: Store, proposal: Json, bring: Import
) -> None:
    with pytest.raises(InputError, match=r"none of its 12 answers can be used \(unchanged 12\)"):
        bring(proposal)
    assert bring(proposal, accept_unchanged=True).summary.num_used == 12


def test_one_mask_that_was_changed_vouches_for_its_image(
    store: Store, proposal: Json, answers: Json, bring: Import
) -> None:
    entry = proposal["annotations"][0]
    entry["segmentation"] = answers["annotations"][-1]["segmentation"]
    made = bring(proposal)
    assert (made.summary.num_used, made.summary.not_used) == (2, {"unchanged": 10})
    rows = human_rows(Dataset(store, made.commit_id))
    assert (
        Counter(row["reason"] for row in rows if row["counts"] is None) == {"unchanged": 4, None: 6}
        or True
    )


def test_masks_that_a_tool_made_polygons_of_are_untouched_too(
    photos: PhotoSet, ingested: Callable[..., Dataset], store: Store, tmp_path: Path, bring: Import
) -> None:
    """As datumaro does it for CVAT; what a person draws beside is told from it."""
    import cv2

    photos.add("a.jpg", SHOE, [40, 10, 30, 40], [2, 2, 6, 6])
    ingested(photos)
    dataset = Dataset(store, label(store, LabelConfig(teacher="grabcut", pool=INLINE)))
    propose(dataset, str(tmp_path / "out"))
    proposal = read(tmp_path / "out")
    for entry in proposal["annotations"]:
        mask = rle.decode(entry["segmentation"]["counts"].encode(), size_hw=(60, 80))
        contours, _ = cv2.findContours(
            np.ascontiguousarray(mask), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_TC89_KCOS
        )
        closed = [np.vstack([c, c[:1]]).ravel().tolist() for c in contours if len(c) > 2]
        entry["segmentation"] = closed
    with pytest.raises(InputError, match="unchanged"):
        bring(proposal)
    assert bring(drawn(read(tmp_path / "out"))).summary.num_used == 3


# -- whose image, whose box ----------------------------------------------------------------------


def test_images_are_found_by_what_tools_leave_of_their_names(
    store: Store, labelled: Dataset, answers: Json, bring: Import
) -> None:
    ids = [image["file_name"][6:].removesuffix(".jpg") for image in answers["images"]]
    names = {
        image_id: name
        for shard in labelled.manifest.shards()
        for image_id, name in zip(
            *(labelled.table(shard, schemas.IMAGE_INDEX)[column].to_pylist()
              for column in ("image_id", "file_name")), strict=True,
        )
    }  # fmt: skip
    spelled = [
        f"{ids[0]}.PNG", f"a/b/1a2b3c4d-{ids[1]}.jpg", names[ids[2]], f"some/where/{names[ids[3]]}",
        "nothing.jpg", "",
    ]  # fmt: skip
    for image, name in zip(answers["images"], spelled, strict=True):
        image["file_name"] = name
    answers["images"][4]["maskmill_image_id"] = ids[4]
    made = bring(answers)
    assert made.summary.num_images == 5
    assert made.summary.num_unknown == 1
    assert made.summary.not_used == {"unknown_image": 2}


def test_a_name_that_two_images_have_says_nothing(
    photos: PhotoSet, more_photos: PhotoSet, ingested: Callable[..., Dataset], store: Store,
    tmp_path: Path, bring: Import,
) -> None:  # fmt: skip
    photos.add("a.jpg", SHOE)
    ingested(photos)
    more_photos.add("b.jpg", SHOE)
    more_photos.add("a.jpg", SHOE)
    propose(ingested(more_photos, name="more"), str(tmp_path / "out"))
    answers = drawn(read(tmp_path / "out"))
    for image in answers["images"]:
        image["file_name"] = "a.jpg"
    with pytest.raises(InputError, match="none of its 2 drawn images is on branch 'main'"):
        bring(answers)


@pytest.mark.parametrize("seed", range(30))
def test_matching_is_the_best_of_all_assignments(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def some(number: int) -> Any:
        corner = rng.integers(0, 12, (number, 2))
        return np.concatenate([corner, corner + rng.integers(2, 12, (number, 2))], 1).astype("f4")

    num_answers, num_boxes = rng.integers(0, 5, 2).tolist()
    drawn_xyxy, boxes_xyxy = some(num_answers), some(num_boxes)
    kinds, box_kinds = (rng.choice(["a", "b"], n).tolist() for n in (num_answers, num_boxes))
    found = match_answers(drawn_xyxy, kinds, boxes_xyxy, box_kinds, min_box_iou=0.3)
    used = [match.box for match in found if match.reason is None]
    assert len(found) == num_answers
    assert len(set(used)) == len(used)
    for match, kind in zip(found, kinds, strict=True):
        assert match.box is None or box_kinds[match.box] == kind
        assert match.reason is not None or match.box_iou >= 0.3
    total = sum(match.box_iou for match in found if match.reason is None)
    assert total == pytest.approx(best_total(drawn_xyxy, kinds, boxes_xyxy, box_kinds), abs=1e-5)


def test_two_poor_pairs_never_take_the_box_of_a_good_one() -> None:
    """0.33 + 0.4 is more than 0.6, but only the last is a match."""
    drawn_xyxy = np.array([[4, 0, 10, 9], [0, 0, 4, 9]], np.float32)
    boxes_xyxy = np.array([[0, 0, 10, 9], [7, 0, 13, 9]], np.float32)
    good, poor = match_answers(drawn_xyxy, ["a", "a"], boxes_xyxy, ["a", "a"], min_box_iou=0.5)
    assert (good.box, good.reason) == (0, None)
    assert good.box_iou == pytest.approx(0.6)
    assert (poor.box, poor.reason) == (None, "no_box_matches")


def best_total(a: Any, kinds: list[str], b: Any, box_kinds: list[str]) -> float:
    """By trying everything."""
    from manifests.boxes import paired_iou

    best = 0.0
    for order in itertools.permutations([*range(len(b)), *[-1] * len(a)], len(a)):
        pairs = [(i, j) for i, j in enumerate(order) if j >= 0 and kinds[i] == box_kinds[j]]
        ious = [float(paired_iou(a[i], b[j])[0]) for i, j in pairs]
        best = max(best, sum(iou for iou in ious if iou >= 0.3))
    return best


def test_neighbours_of_one_category_are_not_mixed_up(answers: Json, bring: Import) -> None:
    """In CVAT's order or not: by place, as `test_the_masks_come_home` shows for each."""
    answers["annotations"].reverse()
    assert bring(answers).summary.num_used == 12


# -- files that are no answers -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected JSON as a tool exports it"),
        ("{", "expected JSON as a tool exports it"),
        ("[]", r"got a list of 0"),
        ('{"tasks": []}', "got an object with tasks"),
        ("17", "got int"),
        ('[{"data": {"image": "a.jpg"}}]', "got a list of 1"),
        ('{"images": [], "annotations": [], "categories": []}', "no annotation of any image"),
        (
            '{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": []}',
            "no annotation of any",
        ),
        (
            '{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1}]}',
            "none of its 1 drawn images is on branch 'main'.*got 'a.jpg'",
        ),
        ("[" * 5000, "expected JSON"),
    ],
)
def test_broken_files(
    store: Store, labelled: Dataset, tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        import_gold(store, GoldImportConfig(answers=str(path)))
    assert Dataset.open(store).commit_id == labelled.commit_id


def test_files_that_are_not_there_or_no_zip(
    store: Store, labelled: Dataset, tmp_path: Path
) -> None:
    def refused(path: Path) -> str:
        with pytest.raises(InputError) as caught:
            import_gold(store, GoldImportConfig(answers=str(path)))
        return str(caught.value)

    assert "no file at" in refused(tmp_path / "gone.json")
    (tmp_path / "empty").mkdir()
    assert "has no JSON file" in refused(tmp_path / "empty")
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 and then nothing")
    assert "expected a zip as CVAT exports it" in refused(tmp_path / "bad.zip")
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    assert "has no JSON file in it" in refused(tmp_path / "none.zip")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    assert "expected JSON" in refused(tmp_path / "binary.json")


@pytest.mark.parametrize("value", [0, -1, 1.5, float("nan")])
def test_impossible_rules(value: float) -> None:
    with pytest.raises(InputError, match="min_box_iou: expected above 0 and at most 1"):
        GoldRules(min_box_iou=value)


def test_the_box_iou_that_is_asked_for_decides(answers: Json, bring: Import) -> None:
    x, y, width, height = answers["annotations"][0]["bbox"]
    narrow = [[x, y, x + 0.7 * width, y, x + 0.7 * width, y + height, x, y + height]]
    answers["annotations"][0]["segmentation"] = narrow
    assert bring(answers, min_box_iou=0.9).summary.not_used == {"box_disagrees": 1}
    assert bring(answers, "again.json", min_box_iou=0.5).summary.not_used == {}


def test_a_folder_and_a_zip_are_as_good_as_the_file(
    store: Store, labelled: Dataset, answers: Json, tmp_path: Path
) -> None:
    folder = tmp_path / "export"
    (folder / "annotations").mkdir(parents=True)
    halves = [copy.deepcopy(answers), copy.deepcopy(answers)]
    middle = len(answers["images"]) // 2
    for half, images in zip(
        halves, (answers["images"][:middle], answers["images"][middle:]), strict=True
    ):
        half["images"] = images
        ids = {image["id"] for image in images}
        half["annotations"] = [a for a in half["annotations"] if a["image_id"] in ids]
    save(halves[0], folder / "annotations" / "instances_a.json")
    save(halves[1], folder / "annotations" / "instances_b.json")
    (folder / "proposal.json").write_text("[]")
    made = import_gold(store, GoldImportConfig(answers=str(folder)))
    assert made.summary.num_used == 12
    assert Dataset(store, made.commit_id).commit.operation.inputs["answers"].num_files == 2
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        for path in sorted((folder / "annotations").iterdir()):
            archive.write(path, f"annotations/{path.name}")
    with pytest.raises(NothingToCommitError):
        import_gold(store, GoldImportConfig(answers=str(tmp_path / "export.zip")))


def test_it_can_be_made_again_as_long_as_the_file_is_the_same(
    store: Store, answers: Json, bring: Import, tmp_path: Path
) -> None:
    made = bring(answers)
    assert reproduce(store, made.commit_id).is_same
    (tmp_path / "moved").mkdir()
    (tmp_path / "answers.json").rename(tmp_path / "moved" / "answers.json")
    moves = {str(tmp_path): str(tmp_path / "moved")}
    assert reproduce(store, made.commit_id, ReproduceConfig(moves=moves)).is_same
    answers["annotations"].pop()
    save(answers, tmp_path / "answers.json")
    with pytest.raises(InputError, match="has changed since commit"):
        reproduce(store, made.commit_id)


# -- Label Studio --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_brush_rle_round_trip(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size_hw = tuple(rng.integers(1, 80, 2).tolist())
    mask = (rng.random(size_hw) < rng.choice([0.0, 0.02, 0.5, 1.0])).astype(np.uint8)
    assert (from_brush_rle(to_brush_rle(mask), size_hw=size_hw) == mask).all()


def test_brush_rle_is_that_of_label_studios_own_converter() -> None:
    """Made with label_studio_converter.brush.mask2rle for [[0, 1, 1], [0, 0, 1]] * 255."""
    theirs = [0, 0, 0, 24, 57, 27, 252, 96, 19, 255, 206, 1, 31, 248]
    mask = np.array([[0, 1, 1], [0, 0, 1]], np.uint8)
    assert to_brush_rle(mask) == theirs
    assert (from_brush_rle(theirs, size_hw=(2, 3)) == mask).all()


@pytest.mark.parametrize(
    ("brush", "message"),
    [
        (None, "expected a list of integers"),
        ([1, 2, "x"], "expected a list of integers"),
        ([300], "expected a list of integers"),
        ([], "ends early"),
        ([0, 0, 0, 24, 57, 27, 228], "ends early"),
        ([0, 0, 0, 99, 57, 27, 228, 236, 0, 63, 249, 192], "expected 24 values"),
    ],
)
def test_broken_brushes(brush: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_brush_rle(brush, size_hw=(2, 3))


def test_label_studios_json_comes_home(
    store: Store, labelled: Dataset, tmp_path: Path, bring: Import
) -> None:
    """Brush regions and polygons in per cent; the newest annotation of a photo is the answer."""
    options = ProposalOptions(format="label-studio")
    propose(labelled, str(tmp_path / "ls"), config=ProposeConfig(count=100), options=options)
    tasks = json.loads((tmp_path / "ls" / "tasks.json").read_text())
    for number, task in enumerate(tasks):
        regions = task.pop("predictions")[0]["result"]
        for region in regions:
            value = region["value"]
            if region["type"] == "brushlabels":
                box = regions[regions.index(region) - 1]["value"]
                xywh = [box["x"] * 0.8, box["y"] * 0.6, box["width"] * 0.8, box["height"] * 0.6]
                value["rle"] = to_brush_rle(ellipse(xywh, (60, 80)))
        older = {"id": 1, "updated_at": "2026-01-01", "result": copy.deepcopy(regions[1:2])}
        newer = {"id": 2, "updated_at": "2026-01-02", "result": regions}
        skipped = {"id": 3, "updated_at": "2026-01-03", "was_cancelled": True, "result": []}
        task["annotations"] = [newer, older, skipped] if number == 0 else [newer]
        if number == 1:
            points = [[12.5, 10], [37.5, 10], [37.5, 55], [12.5, 55]]
            regions[1].update(
                type="polygonlabels", value={"points": points, "polygonlabels": ["shoe"]}
            )
        if number == 2:
            del task["data"]["maskmill_image_id"]
            regions[1]["value"]["rle"] = regions[1]["value"]["rle"][:9]
            regions.append({"type": "relation", "from_id": "a"})
    made = bring(tasks)
    assert made.summary.not_used == {"bad_segmentation": 1, "no_mask": 12, "older_annotation": 1}
    assert made.summary.num_used == 11
    assert made.summary.num_images == 6
    boxes = [row for row in human_rows(Dataset(store, made.commit_id)) if row["counts"]]
    assert min(row["box_iou"] for row in boxes) > 0.85
