"""Three-way comparison of cells: what two sides did since their common base, cell by cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from manifests.commit import Category, CellChanges
from manifests.errors import InputError
from manifests.manifest import Cell, Manifest

Side = Literal["ours", "theirs"]
Layers = Mapping[str, Cell]
"""One shard's cells by layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """A cell that both sides changed differently; None: the side has no such cell."""

    shard: str
    layer: str
    base: str | None
    ours: str | None
    theirs: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """Whose cell is taken where both sides changed one: by layer, else `default`, else nobody's."""

    default: Side | None = None
    by_layer: Mapping[str, Side] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, side in (("default", self.default), *self.by_layer.items()):
            if side not in ("ours", "theirs", None):
                raise InputError(f"settle {name}: expected ours or theirs, got {side!r}")

    def of(self, layer: str) -> Side | None:
        """Whose cell of a layer is taken."""
        return self.by_layer.get(layer, self.default)


def shard_layers(manifest: Manifest, shard: str) -> dict[str, Cell]:
    """A shard's cells by layer; {} if the manifest does not have the shard."""
    return {cell.layer: cell for cell in manifest.of_shard(shard)}


def merge_layers(
    shard: str, base: Layers, ours: Layers, theirs: Layers, settlement: Settlement
) -> tuple[dict[str, Cell], list[Conflict]]:
    """One shard's cells after a merge, and the cells that nobody can decide on (ours are kept)."""
    merged: dict[str, Cell] = {}
    conflicts: list[Conflict] = []
    for layer in sorted({*base, *ours, *theirs}):
        cells = base.get(layer), ours.get(layer), theirs.get(layer)
        chosen = _chosen(*cells)
        if isinstance(chosen, str):
            side = settlement.of(layer)
            if side is None:
                conflicts.append(_conflict(shard, layer, *cells))
            chosen = cells[2] if side == "theirs" else cells[1]
        if chosen is not None:
            merged[layer] = chosen
    return merged, conflicts


def merge_categories(
    base: Iterable[Category], ours: Iterable[Category], theirs: Iterable[Category]
) -> tuple[Category, ...]:
    """Categories by name: what either side added, without what either took away; ours first.

    So it goes with the sources' own ids of a category that both have.
    """
    known = {category.name: category for category in base}
    mine = {category.name: category for category in ours}
    other = {category.name: category for category in theirs}
    merged = []
    for name in {**mine, **other}:
        left, right = mine.get(name), other.get(name)
        if left and right:
            merged.append(_merged_category(known.get(name, Category(name=name)), left, right))
        elif name not in known:
            merged += [category for category in (left, right) if category]
    return tuple(merged)


def _merged_category(base: Category, ours: Category, theirs: Category) -> Category:
    is_theirs = ours.supercategory in (base.supercategory, None)
    gone = base.source_ids.keys() - (ours.source_ids.keys() & theirs.source_ids.keys())
    ids = {**theirs.source_ids, **ours.source_ids}
    return Category(
        name=ours.name,
        supercategory=theirs.supercategory if is_theirs else ours.supercategory,
        source_ids={source: id_ for source, id_ in ids.items() if source not in gone},
    )


def cell_changes(before: Manifest, after: Manifest) -> dict[str, CellChanges]:
    """Layer -> how many cells were added, replaced and removed; layers without any left out."""
    old = {(cell.shard, cell.layer): cell.object_id for cell in before}
    new = {(cell.shard, cell.layer): cell.object_id for cell in after}
    counts: dict[str, list[int]] = {}
    for key in {**old, **new}:
        if old.get(key) == new.get(key):
            continue
        row = counts.setdefault(key[1], [0, 0, 0])
        row[0 if key not in old else 2 if key not in new else 1] += 1
    return {
        layer: CellChanges(added=row[0], replaced=row[1], removed=row[2])
        for layer, row in sorted(counts.items())
    }


def new_cells(after: Manifest, *before: Manifest) -> list[Cell]:
    """Cells whose objects none of the older manifests names."""
    known = {cell.object_id for manifest in before for cell in manifest}
    return [cell for cell in after if cell.object_id not in known]


def _chosen(base: Cell | None, ours: Cell | None, theirs: Cell | None) -> Cell | str | None:
    """The cell to take, None for none, or "conflict"."""
    ids = tuple(None if cell is None else cell.object_id for cell in (base, ours, theirs))
    if ids[1] == ids[2]:
        # The same rows; where one side computed them anew, its record of inputs is the newer one.
        return theirs if ours == base else ours
    if ids[1] == ids[0]:
        return theirs
    return ours if ids[2] == ids[0] else "conflict"


def _conflict(
    shard: str, layer: str, base: Cell | None, ours: Cell | None, theirs: Cell | None
) -> Conflict:
    ids = [None if cell is None else cell.object_id for cell in (base, ours, theirs)]
    return Conflict(shard=shard, layer=layer, base=ids[0], ours=ids[1], theirs=ids[2])
