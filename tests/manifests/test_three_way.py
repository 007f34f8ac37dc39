"""Merging cells: whatever one side did is taken, and only what both did can be a conflict."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.commit import Category
from manifests.errors import InputError
from manifests.manifest import Cell, Manifest
from manifests.three_way import (
    Settlement,
    cell_changes,
    merge_categories,
    merge_layers,
    new_cells,
)

_LAYERS = ("boxes", "masks/a", "masks/b", "verdicts")


def _cell(layer: str, content: int, shard: str = "s") -> Cell:
    return Cell(shard=shard, layer=layer, object_id=f"{content:064x}", num_rows=1, num_bytes=1)


_sides = st.dictionaries(st.sampled_from(_LAYERS), st.integers(0, 3)).map(
    lambda contents: {layer: _cell(layer, content) for layer, content in contents.items()}
)


@given(base=_sides, side=_sides)
def test_one_side_alone_is_taken(base: dict[str, Cell], side: dict[str, Cell]) -> None:
    assert merge_layers("s", base, side, base, Settlement()) == (side, [])
    assert merge_layers("s", base, base, side, Settlement()) == (side, [])
    assert merge_layers("s", base, side, side, Settlement()) == (side, [])


@given(base=_sides, ours=_sides, theirs=_sides)
def test_conflicts_are_what_both_changed_and_can_be_settled(
    base: dict[str, Cell], ours: dict[str, Cell], theirs: dict[str, Cell]
) -> None:
    merged, conflicts = merge_layers("s", base, ours, theirs, Settlement())
    disputed = {
        layer
        for layer in _LAYERS
        if len({repr(side.get(layer)) for side in (base, ours, theirs)}) == 3
        or (ours.get(layer) != theirs.get(layer) and base.get(layer) not in (
            ours.get(layer), theirs.get(layer)))
    }  # fmt: skip
    assert {conflict.layer for conflict in conflicts} == disputed
    for default, side in (("ours", ours), ("theirs", theirs)):
        settled, left = merge_layers("s", base, ours, theirs, Settlement(default=default))
        assert left == []
        for layer in _LAYERS:
            wanted = side.get(layer) if layer in disputed else merged.get(layer)
            assert settled.get(layer) == wanted


@given(base=_sides, ours=_sides, theirs=_sides)
def test_sides_can_change_places(
    base: dict[str, Cell], ours: dict[str, Cell], theirs: dict[str, Cell]
) -> None:
    one = merge_layers("s", base, ours, theirs, Settlement(default="ours"))
    assert one == merge_layers("s", base, theirs, ours, Settlement(default="theirs"))


def test_layers_are_settled_one_by_one() -> None:
    base = {layer: _cell(layer, 0) for layer in _LAYERS}
    ours = {layer: _cell(layer, 1) for layer in _LAYERS}
    theirs = {layer: _cell(layer, 2) for layer in _LAYERS}
    settlement = Settlement(by_layer={"masks/a": "theirs", "boxes": "ours"})
    merged, conflicts = merge_layers("s", base, ours, theirs, settlement)
    assert (merged["masks/a"], merged["boxes"]) == (theirs["masks/a"], ours["boxes"])
    assert [conflict.layer for conflict in conflicts] == ["masks/b", "verdicts"]
    assert conflicts[0].theirs == theirs["masks/b"].object_id


def test_a_settlement_knows_two_sides() -> None:
    with pytest.raises(InputError, match="settle verdicts: expected ours or theirs, got 'mine'"):
        Settlement(by_layer={"verdicts": "mine"})  # type: ignore[dict-item]


def test_same_rows_from_newer_inputs() -> None:
    """A cell that came out the same keeps the newer record of what it was computed from."""
    old, new = _cell("verdicts", 1), _cell("verdicts", 1)
    new = Cell(shard="s", layer="verdicts", object_id=old.object_id, num_rows=1, num_bytes=1,
               inputs=("x",))  # fmt: skip
    for ours, theirs in ((old, new), (new, old)):
        merged, _ = merge_layers(
            "s", {"verdicts": old}, {"verdicts": ours}, {"verdicts": theirs}, Settlement()
        )
        assert merged["verdicts"].inputs == ("x",)


def test_categories_by_name() -> None:
    cat, dog = Category(name="cat", source_ids={"a": "1"}), Category(name="dog")
    cow = Category(name="cow", supercategory="animal")
    twin = Category(name="cat", supercategory="animal", source_ids={"a": "1", "b": "7"})
    assert merge_categories([cat], [cat, dog], [twin, cow]) == (
        Category(name="cat", supercategory="animal", source_ids={"a": "1", "b": "7"}), dog, cow,
    )  # fmt: skip
    assert merge_categories([cat, dog], [cat, dog], [cat]) == (cat,)
    assert merge_categories([cat, dog], [dog], [cat, dog, cow]) == (dog, cow)
    assert merge_categories([twin], [twin], [cat]) == (cat,)


def test_changes_are_counted_by_layer() -> None:
    before = Manifest([_cell("boxes", 1), _cell("masks/a", 1), _cell("boxes", 5, "t")])
    after = Manifest([_cell("boxes", 2), _cell("verdicts", 3), _cell("boxes", 5, "t")])
    counts = {
        layer: (change.added, change.replaced, change.removed)
        for layer, change in cell_changes(before, after).items()
    }
    assert counts == {"boxes": (0, 1, 0), "masks/a": (0, 0, 1), "verdicts": (1, 0, 0)}
    assert [cell.layer for cell in new_cells(after, before)] == ["boxes", "verdicts"]
