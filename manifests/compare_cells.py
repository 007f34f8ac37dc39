"""What became of every cell of a commit that was made again; cells of one object are never read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from manifests import schemas
from manifests.cells import read_cell, read_table
from manifests.errors import ObjectDamagedError, ObjectMissingError
from manifests.in_parallel import in_parallel, threads_for
from manifests.manifest import Cell, Manifest
from manifests.same_rows import row_difference
from manifests.store import Store

GIVEN: Final = "given"
SAME: Final = "same"
SAME_ROWS: Final = "same_rows"
DIFFERS: Final = "differs"
MISSING: Final = "missing"
EXTRA: Final = "extra"
Fate = Literal["given", "same", "same_rows", "differs", "missing", "extra"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellFate:
    """What became of one cell, and how it differs, for people.

    Attributes:
        fate: `given`: the same as in the commit that both started from; `same`, though made by
            either; `same_rows` in other Parquet bytes; `differs`; `missing` from what was made
            again; or `extra` in it.
        expected, found: object ids; None where there is no such cell.
    """

    shard: str
    layer: str
    fate: Fate
    expected: str | None = None
    found: str | None = None
    detail: str = ""


def cell_fates(
    store: Store, expected: Manifest, found: Manifest, given: Manifest
) -> Iterator[CellFate]:
    """Every cell of either, in the order of `expected`; extra ones last."""
    pairs = [(cell, found.get(cell.shard, cell.layer)) for cell in expected]
    moved = [(old, new) for old, new in pairs if new and new.object_id != old.object_id]

    def difference(pair: tuple[Cell, Cell]) -> str | None:
        return _difference(store, *pair)

    rows = dict(
        zip(
            ((old.shard, old.layer) for old, _ in moved),
            in_parallel(difference, moved, num_threads=threads_for(store)),
            strict=True,
        )
    )
    rewritten = {
        new.object_id: old.object_id for old, new in moved if rows[old.shard, old.layer] is None
    }
    for old, new in pairs:
        if new is None:
            detail = f"{old.num_rows:,} rows"
            yield _fate(MISSING, expected=old, detail=detail)
            continue
        detail = rows.get((old.shard, old.layer)) or _about(old, new, rewritten)
        if detail:
            yield _fate(DIFFERS, expected=old, found=new, detail=detail)
        elif old == new:
            is_given = old == given.get(old.shard, old.layer)
            yield _fate(GIVEN if is_given else SAME, expected=old, found=new)
        else:
            yield _fate(SAME_ROWS, expected=old, found=new)
    for new in found:
        if expected.get(new.shard, new.layer) is None:
            yield _fate(EXTRA, found=new, detail=f"{new.num_rows:,} rows")
    if expected.shards() != found.shards() and set(expected.shards()) == set(found.shards()):
        yield CellFate(shard="", layer="", fate=DIFFERS, detail="the order of the shards")


def _fate(
    fate: Fate, *, expected: Cell | None = None, found: Cell | None = None, detail: str = ""
) -> CellFate:
    [cell, *_] = [cell for cell in (expected, found) if cell is not None]
    return CellFate(
        shard=cell.shard, layer=cell.layer, fate=fate, detail=detail,
        expected=None if expected is None else expected.object_id,
        found=None if found is None else found.object_id,
    )  # fmt: skip


def _difference(store: Store, old: Cell, new: Cell) -> str | None:
    """How the rows of two cells differ; None if they are the same."""
    tables = []
    for what, cell in (("the commit's", old), ("the new", new)):
        try:
            tables.append(read_table(store, cell.object_id))
        except (ObjectMissingError, ObjectDamagedError) as error:
            return f"{what} cell cannot be read: {error}"
    return row_difference(*tables)


def _about(old: Cell, new: Cell, rewritten: dict[str, str]) -> str:
    """How what the manifest says about two cells of the same rows differs."""
    found = []
    if old.inputs != tuple(rewritten.get(object_id, object_id) for object_id in new.inputs):
        found.append("computed from other objects")
    if old.statistics != new.statistics or old.num_rows != new.num_rows:
        found.append("other statistics")
    return ", ".join(found)


def differing_images(store: Store, expected: Manifest, found: Manifest) -> Iterator[str]:
    """Images in shards of one side only, by what the other side lacks."""
    before = _image_names(store, _only_in(expected, found))
    after = _image_names(store, _only_in(found, expected))
    for what, names, others in (("missing", before, after), ("extra", after, before)):
        for image_id, name in names.items():
            if image_id not in others:
                yield f"image {name} ({image_id[:12]}) is {what}"


def _only_in(manifest: Manifest, other: Manifest) -> Iterator[Cell]:
    there = set(other.shards())
    return (cell for cell in manifest.of_layer(schemas.IMAGE_INDEX) if cell.shard not in there)


def _image_names(store: Store, cells: Iterable[Cell]) -> dict[str, str]:
    names: dict[str, str] = {}
    for cell in cells:
        try:
            table = read_cell(store, cell, columns=["image_id", "file_name"])
        except (ObjectMissingError, ObjectDamagedError):
            continue  # the cell itself is reported as missing or extra
        pairs = zip(table["image_id"].to_pylist(), table["file_name"].to_pylist(), strict=True)
        names.update(pairs)
    return names
