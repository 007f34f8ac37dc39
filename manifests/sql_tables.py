"""The layers of a commit as SQL views: their names, and the statements that make them.

A shard's layers have the same rows in the same order, so `annotations` joins them by position:
no hash table, no memory, whatever the number of rows.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pyarrow as pa

from manifests import schemas
from manifests.errors import InputError, ObjectDamagedError
from manifests.manifest import Cell, Manifest
from manifests.sql_files import cell_url
from manifests.sql_schemas import reader_options, sql_type

SHARD_TYPE = "shard_id"
ANNOTATIONS = "annotations"
# Tables that are no layers; see manifests.sql.
RESERVED = (ANNOTATIONS, "manifest", "commits", "removed")
MISALIGNED = "the layers of a shard do not have the same rows"
_MASKS = schemas.masks_layer("")
_SIGNALS = tuple(
    field for field in schemas.MASK_FIELDS
    if pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
)  # fmt: skip
_CONFIDENCE = schemas.CONFIDENCE_SCHEMA.field("confidence")


class TableNames:
    """Which layer a table name means. Any layer can also be had by its own name in quotes."""

    def __init__(self, layers: Iterable[str]) -> None:
        self._layers = tuple(layer for layer in layers if layer != schemas.IMAGES)
        self._by_table: dict[str, list[str]] = defaultdict(list)
        for layer in self._layers:
            self._by_table[_table_of(layer)].append(layer)

    def layer(self, table: str) -> str | None:
        """The layer of a table, or None.

        Raises:
            InputError: several layers would have that name.
        """
        if table in self._layers:
            return table
        found = self._by_table.get(table.lower(), [])
        if len(found) > 1:
            quoted = " or ".join(f'"{layer}"' for layer in found)
            raise InputError(
                f"table {table} could be layer {' or '.join(found)}; write {quoted}, with the "
                "quotes"
            )
        return found[0] if found else None

    def tables(self) -> dict[str, str]:
        """Table name, quoted where it must be, -> layer; in the layers' order."""
        return {
            name if len(self._by_table[name]) == 1 else f'"{layer}"': layer
            for layer in self._layers
            if (name := _table_of(layer)) not in RESERVED
        }


def _table_of(layer: str) -> str:
    if layer == schemas.IMAGE_INDEX:
        return "images"
    return re.sub(r"[^0-9a-z]+", "_", layer.lower()).strip("_") or "_"


def shard_type(shards: Sequence[str]) -> str:
    """The statement that makes the type of `shard`: two bytes a row, in the order of ingest."""
    return f"CREATE TYPE {SHARD_TYPE} AS ENUM ({', '.join(map(_text, shards))})"


def layer_view(table: str, cells: Sequence[Cell]) -> str:
    """The statement that makes a layer's view: shard, row, and the columns of its cells."""
    return f"CREATE VIEW {_name(table)} AS {_rows(cells, reader_options(cells[0].layer))}"


def annotations_view(manifest: Manifest, *, has_candidates: bool) -> str:
    """The statement that makes `annotations`: boxes, confidence, verdicts, chosen masks' signals.

    Args:
        manifest: the commit's.
        has_candidates: whether a verdict chooses another mask than a teacher's own choice; only
            then the large column `candidates` is looked at.

    Raises:
        InputError: the commit has no boxes.
        ObjectDamagedError: a layer of a shard does not have the rows of its boxes.
    """
    masks = [layer for layer in manifest.layers() if layer.startswith(_MASKS)]
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for cell in manifest.of_layer(schemas.BOXES):
        has_verdicts = manifest.get(cell.shard, schemas.VERDICTS) is not None
        wanted = [schemas.CONFIDENCE, *([schemas.VERDICTS, *masks] if has_verdicts else [])]
        groups[tuple(layer for layer in wanted if manifest.get(cell.shard, layer))].append(
            cell.shard
        )
    if not groups:
        raise InputError("there are no boxes, so there are no annotations; run 'maskmill ingest'")
    selects = [
        _group(manifest, layers, shards, has_candidates=has_candidates)
        for layers, shards in groups.items()
    ]
    return f"CREATE VIEW {ANNOTATIONS} AS " + "\nUNION ALL\n".join(selects)


def _group(
    manifest: Manifest, layers: tuple[str, ...], shards: Sequence[str], *, has_candidates: bool
) -> str:
    """Shards that have the same layers, so that all of them can be joined by position."""
    alias = {layer: f"layer_{number}" for number, layer in enumerate(layers)}
    cells = {layer: list(_aligned(manifest, layer, shards)) for layer in (schemas.BOXES, *layers)}
    options = {layer: reader_options(layer, only=_only(layer)) for layer in cells}
    rows = {layer: _rows(found, options[layer]) for layer, found in cells.items()}
    joins = [f"({rows[schemas.BOXES]}) AS boxes"]
    joins += [f"({rows[layer]}) AS {alias[layer]}" for layer in layers]
    columns = ["boxes.* RENAME (score AS box_score)", _confidence(alias)]
    masks = [layer for layer in layers if layer.startswith(_MASKS)]
    if schemas.VERDICTS in alias:
        verdict = alias[schemas.VERDICTS]
        columns += [f"{verdict}.{field.name}" for field in schemas.VERDICTS_SCHEMA]
        columns += [
            f"{_signal(field.name, verdict, alias, masks, has_candidates)} AS {field.name}"
            for field in _SIGNALS
        ]
    else:
        columns += [
            f"NULL::{sql_type(field.type)} AS {field.name}"
            for field in (*schemas.VERDICTS_SCHEMA, *_SIGNALS)
        ]
    statement = f"SELECT {', '.join(columns)}\nFROM " + "\nPOSITIONAL JOIN ".join(joins)
    return f"{statement}\nWHERE {_is_aligned(alias.values())}" if layers else statement


def _only(layer: str) -> tuple[pa.Field, ...]:
    """The columns that `annotations` wants of a layer; none: all."""
    return (_CONFIDENCE,) if layer == schemas.CONFIDENCE else ()


def _confidence(alias: Mapping[str, str]) -> str:
    if schemas.CONFIDENCE in alias:
        return f"{alias[schemas.CONFIDENCE]}.{_CONFIDENCE.name}"
    return f"NULL::{sql_type(_CONFIDENCE.type)} AS {_CONFIDENCE.name}"


def _signal(
    name: str, verdict: str, alias: dict[str, str], masks: Sequence[str], has_candidates: bool
) -> str:
    """The value that the mask which a verdict names has."""
    if not masks:
        return f"NULL::{sql_type(schemas.MASKS_SCHEMA.field(name).type)}"
    whens = []
    for layer in masks:
        value = f"{alias[layer]}.{name}"
        if has_candidates:
            other = f"{alias[layer]}.candidates[{verdict}.candidate].{name}"
            value = f"CASE WHEN {verdict}.candidate = 0 THEN {value} ELSE {other} END"
        whens.append(f"WHEN {_text(layer)} THEN {value}")
    return f"CASE {verdict}.teacher {' '.join(whens)} END"


def _is_aligned(aliases: Iterable[str]) -> str:
    """True, or an error: a row must never be joined with another row's mask.

    A LIMIT that ends the scan of boxes early leaves rows of the others over, which are left out.
    """
    same = " AND ".join(
        f"{name}.shard IS NOT DISTINCT FROM boxes.shard "
        f"AND {name}.row IS NOT DISTINCT FROM boxes.row"
        for name in aliases
    )
    return (
        f"CASE WHEN boxes.row IS NULL THEN false WHEN {same} THEN true "
        f"ELSE error({_text(MISALIGNED)}) END"
    )


def _aligned(manifest: Manifest, layer: str, shards: Iterable[str]) -> Iterator[Cell]:
    for shard in shards:
        cell, boxes = manifest.get(shard, layer), manifest.get(shard, schemas.BOXES)
        if cell is None or boxes is None:
            continue
        if cell.num_rows != boxes.num_rows:
            raise ObjectDamagedError(
                f"{layer} of shard {shard[:12]}: expected the {boxes.num_rows} rows of boxes, the "
                f"manifest says {cell.num_rows}; run the step that makes {layer} again"
            )
        yield cell


def _rows(cells: Sequence[Cell], options: str) -> str:
    files = ", ".join(_text(cell_url(cell.object_id)) for cell in cells)
    shards = ", ".join(_text(cell.shard) for cell in cells)
    # `file_index` is one value a file, so that naming the shard costs nothing a row.
    columns = (
        f"list_extract([{shards}]::{SHARD_TYPE}[], file_index::BIGINT + 1) AS shard, "
        "file_row_number::INTEGER AS row, * EXCLUDE (file_row_number)"
    )
    source = f"read_parquet([{files}], file_row_number = true{options})"
    return f"SELECT {columns} FROM {source}"  # noqa: S608


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _name(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'
