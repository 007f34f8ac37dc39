"""A shard that both sides gave boxes: whose row of a masks layer is taken."""

from __future__ import annotations

from typing import Any

import pytest

from manifests import schemas
from manifests.cells import read_cell
from manifests.manifest import Cell
from manifests.shard_merge import Combined, combine
from manifests.store import Store
from manifests.three_way import Settlement
from tests.manifests.conftest import DatasetBuilder, filled_box, mask_row

_LAYER = schemas.masks_layer("sam")
_SIZE = (12, 20)
_BOX = (1.0, 1.0, 9.0, 9.0)


def _drawn(side: int) -> dict[str, Any]:
    return mask_row(filled_box((1, 1, side, side), _SIZE), _SIZE)


def _failed() -> dict[str, Any]:
    return mask_row(None, _SIZE, status=schemas.FAILED, reason="out_of_memory")


def _side(store: Store, row: dict[str, Any], *, more: str) -> dict[str, Cell]:
    """One image, a box with this row, and a box that only this side has."""
    builder = DatasetBuilder(store)
    builder.image("a.png", size_hw=_SIZE, image_format="png")
    builder.box("shoe", _BOX, teacher="sam", layers={_LAYER: row})
    builder.box(more, _BOX, teacher="sam")
    builder.shard(verdicts=False)
    return {cell.layer: cell for cell in builder.cells}


def _combined(
    local: Store, ours: dict[str, Any], theirs: dict[str, Any], settlement: Settlement
) -> tuple[Combined, dict[str, Any]]:
    """What comes of the box that both have."""
    one, other = _side(local, ours, more="hat"), _side(local, theirs, more="bag")
    shard = one[schemas.IMAGES].shard
    assert shard == other[schemas.IMAGES].shard
    done = combine(local, shard, ({}, one, other), settlement)
    boxes = read_cell(local, done.cells[schemas.BOXES])["category"].to_pylist()
    assert boxes == ["shoe", "hat", "bag"]
    return done, read_cell(local, done.cells[_LAYER]).to_pylist()[0]


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_mask_is_better_than_none(local: Store, is_ours: bool) -> None:
    drawn, failed = _drawn(8), _failed()
    sides = (drawn, failed) if is_ours else (failed, drawn)
    done, row = _combined(local, *sides, Settlement())
    assert done.conflicts == []
    assert (row["status"], row["counts"]) == (schemas.OK, drawn["counts"])


@pytest.mark.parametrize("side", [None, "ours", "theirs"])
def test_two_masks_are_a_conflict(local: Store, side: Any) -> None:
    ours, theirs = _drawn(8), _drawn(6)
    done, row = _combined(local, ours, theirs, Settlement(default=side))
    assert [conflict.layer for conflict in done.conflicts] == ([] if side else [_LAYER])
    wanted = theirs if side == "theirs" else ours
    assert row["counts"] == wanted["counts"]
