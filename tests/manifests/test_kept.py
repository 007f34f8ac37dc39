"""Kept rows: the mask is the one the verdict names, and every row is accounted for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from manifests import rle, schemas
from manifests.cells import write_cell
from manifests.dataset import Dataset
from manifests.errors import MaskmillError, ObjectDamagedError, RefError
from manifests.kept import KEPT_IMAGES_SCHEMA, KEPT_SCHEMA, KeptOptions, kept_shards
from manifests.manifest import Manifest

SIZE = (12, 20)


def square(side: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=np.uint8)
    mask[:side, :side] = 1
    return mask


def fields(mask: np.ndarray) -> dict[str, Any]:
    empty = {field.name: None for field in schemas.MASK_FIELDS}
    return empty | {"counts": rle.encode(mask), "area_px": int(mask.sum())}


def row(*masks: np.ndarray) -> dict[str, Any]:
    first, *others = [fields(mask) for mask in masks]
    more = {"status": "ok", "reason": None, "height": SIZE[0], "width": SIZE[1]}
    return first | more | {"candidates": others}


def areas(dataset: Dataset, **options: Any) -> list[list[int | None]]:
    shards = kept_shards(dataset, KeptOptions(**options))
    return [shard.annotations["area_px"].to_pylist() for shard in shards]


def test_masks_come_from_the_layer_and_candidate_of_the_verdict(builder: Any) -> None:
    builder.image("a.jpg")
    three = {"masks/sam": row(square(1), square(2), square(3)), "masks/box": row(square(4))}
    for teacher, candidate in [("sam", 2), ("box", 0), ("sam", 0), ("sam", 1), ("sam", 2)]:
        builder.box("hat", (0, 0, 5, 5), teacher=teacher, candidate=candidate, layers=three)
    builder.shard()
    (kept,) = kept_shards(builder.commit(), KeptOptions())
    assert kept.annotations.schema == KEPT_SCHEMA
    assert kept.images.schema == KEPT_IMAGES_SCHEMA
    assert kept.annotations["area_px"].to_pylist() == [9, 16, 1, 4, 9]
    assert kept.annotations["teacher"].to_pylist() == ["sam", "box", "sam", "sam", "sam"]
    for mask in kept.annotations.to_pylist():
        assert rle.decode(mask["counts"], size_hw=(12, 20)).sum() == mask["area_px"]


def test_every_row_is_kept_or_skipped_for_a_reason(builder: Any) -> None:
    builder.image("a.jpg")
    builder.box("hat", (0, 0, 5, 5))
    builder.box("hat", (0, 0, 5, 5), keep=False, reason="low_confidence")
    builder.box("hat", (0, 0, 5, 5), keep=False, reason="low_confidence")
    builder.box("hat", (0, 0, 5, 5), keep=False)
    builder.image("b.jpg", quarantine="too_dark")
    builder.box("hat", (0, 0, 5, 5))
    builder.shard()
    (kept,) = kept_shards(builder.commit(), KeptOptions())
    assert kept.skipped == {"image_quarantined": 1, "low_confidence": 2, "unexplained": 1}
    assert kept.annotations.num_rows == 1
    assert kept.images["image_row"].to_pylist() == [0]
    assert areas(builder.commit(), include_quarantined=True) == [[25, 25]]


@pytest.mark.parametrize("flag", ["is_crowd", "is_group_of"])
def test_crowds_come_through_whatever_the_verdict(builder: Any, flag: str) -> None:
    builder.image("a.jpg")
    crowd = {"teacher": None, "keep": False, "reason": "no_mask", flag: True}
    builder.box("hat", (0, 0, 5, 5), **crowd)
    builder.box("hat", (0, 0, 5, 5), **crowd, layers={schemas.MASKS_HUMAN: row(square(2))})
    builder.box("hat", (0, 0, 5, 5), layers={"masks/sam": row(square(3))}, teacher="sam")
    builder.shard()
    dataset = builder.commit()
    (kept,) = kept_shards(dataset, KeptOptions())
    assert kept.annotations["teacher"].to_pylist() == [None, "human", "sam"]
    assert kept.annotations["area_px"].to_pylist() == [None, 4, 9]
    assert kept.skipped == {}
    (without,) = kept_shards(dataset, KeptOptions(boxes_only_crowds=False))
    assert without.annotations["teacher"].to_pylist() == ["sam"]
    assert without.skipped == {"no_mask": 2}
    assert areas(dataset, layer="masks/sam") == [[None, 4, 9]]


def test_layer_takes_its_own_choices(builder: Any) -> None:
    builder.image("a.jpg")
    failed = row(square(1)) | {"status": "failed", "reason": "box_too_small"}
    builder.box("hat", (0, 0, 5, 5), keep=False, layers={"masks/sam": row(square(3))})
    builder.box("hat", (0, 0, 5, 5), layers={"masks/sam": failed})
    builder.shard()
    (kept,) = kept_shards(builder.commit(), KeptOptions(layer="masks/sam"))
    assert kept.annotations["area_px"].to_pylist() == [9]
    assert kept.skipped == {"box_too_small": 1}


def test_shards_without_human_masks_have_none(builder: Any) -> None:
    for mask in (square(3), None):
        builder.image("a.jpg")
        layers = {} if mask is None else {schemas.MASKS_HUMAN: row(mask)}
        builder.box("hat", (0, 0, 5, 5), layers=layers)
        builder.shard()
    assert areas(builder.commit(), layer=schemas.MASKS_HUMAN) == [[9], []]


def test_shard_without_verdicts_says_what_to_run(builder: Any) -> None:
    for verdicts in (True, False):
        builder.image("a.jpg")
        builder.box("hat", (0, 0, 5, 5))
        builder.shard(verdicts=verdicts)
    with pytest.raises(RefError, match=r"no 'verdicts' for 1 of 2 shards.*run 'maskmill filter'"):
        areas(builder.commit())


def test_unknown_layer_names_those_there_are(builder: Any) -> None:
    builder.image("a.jpg")
    builder.box("hat", (0, 0, 5, 5))
    builder.shard()
    with pytest.raises(RefError, match=r"no layer 'masks/typo'.*masks/mobile_sam"):
        areas(builder.commit(), layer="masks/typo")


@pytest.mark.parametrize("candidate", [2, -1])
def test_candidate_that_is_not_there_is_an_error(builder: Any, candidate: int) -> None:
    builder.image("a.jpg")
    two = {"masks/sam": row(square(1), square(2))}
    builder.box("hat", (0, 0, 5, 5), teacher="sam", candidate=candidate, layers=two)
    builder.shard()
    with pytest.raises(ObjectDamagedError, match="run 'maskmill filter' again"):
        areas(builder.commit())


@pytest.mark.parametrize("teacher", [None, "sam"])
def test_kept_row_without_a_mask_is_an_error(builder: Any, teacher: str | None) -> None:
    builder.image("a.jpg")
    failed = dict.fromkeys(schemas.MASKS_SCHEMA.names) | {"status": "failed", "candidates": []}
    sam = failed | {"height": SIZE[0], "width": SIZE[1]}
    builder.box("hat", (0, 0, 5, 5), teacher=teacher, layers={"masks/sam": sam})
    builder.shard()
    with pytest.raises(MaskmillError, match="run 'maskmill filter' again"):
        areas(builder.commit())


def test_misaligned_layer_is_an_error(builder: Any) -> None:
    builder.image("a.jpg")
    builder.box("hat", (0, 0, 5, 5))
    builder.box("hat", (0, 0, 5, 5))
    shard = builder.shard()
    dataset = builder.commit()
    short = dataset.table(shard, schemas.VERDICTS).slice(0, 1)
    cell = write_cell(builder.store, short, shard=shard, layer=schemas.VERDICTS)
    builder.cells = [*Manifest(builder.cells).with_cells([cell])]
    with pytest.raises(ObjectDamagedError, match="expected the 2 rows of boxes, found 1"):
        areas(builder.commit())
