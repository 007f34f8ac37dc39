"""Finding one annotation among millions: by its id or the beginning of it, or by its source's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from manifests import schemas
from manifests.dataset import Dataset
from manifests.errors import InputError
from manifests.history import history
from manifests.in_parallel import in_parallel
from manifests.manifest import Cell
from manifests.removed import Removals

_HEX = re.compile(r"[0-9a-fA-F]+")
_ID_DIGITS = 32
_FEWEST_DIGITS = 6
_THREADS = 8
_MOST_SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Where an annotation is: a row of a shard's `boxes`, and of every layer aligned with them."""

    shard: str
    row: int
    annotation_id: str


def find_annotation(dataset: Dataset, text: str) -> Found:
    """The one annotation that a text means; of 10M boxes only the ids are read.

    Args:
        dataset: the commit to look in.
        text: an annotation_id, or at least 6 digits of its beginning, or
            `source:source_annotation_id`.

    Raises:
        InputError: it means none, or several, or cannot be an id; an annotation whose image was
            taken down is explained.
    """
    is_id = _HEX.fullmatch(text) is not None and len(text) <= _ID_DIGITS
    if ":" not in text and (not is_id or len(text) < _FEWEST_DIGITS):
        raise InputError(
            f"expected an annotation id, {_FEWEST_DIGITS} hex digits of its beginning or more, or "
            f"source:source_annotation_id, got {text!r}; 'maskmill sql' finds ids by anything else"
        )
    found: list[Found] = []
    for some in in_parallel(
        partial(_in_cell, dataset, text), dataset.manifest.of_layer(schemas.BOXES),
        num_threads=_THREADS,
    ):  # fmt: skip
        found += some
        if found and len(text) == _ID_DIGITS and is_id:
            break  # a whole id is unique
    if not found:
        raise InputError(_why_not(dataset, text))
    if len(found) > 1:
        shown = ", ".join(entry.annotation_id for entry in found[:_MOST_SHOWN])
        more = f" and {len(found) - _MOST_SHOWN} more" if len(found) > _MOST_SHOWN else ""
        raise InputError(
            f"'{text}' means {len(found)} annotations: {shown}{more}; give one of them"
        )
    return found[0]


def _in_cell(dataset: Dataset, text: str, cell: Cell) -> list[Found]:
    by_source = ["source", "source_annotation_id"] if ":" in text else []
    columns = ["annotation_id", *by_source]
    table = dataset.table(cell.shard, cell.layer, columns=columns)
    return [
        Found(shard=cell.shard, row=row, annotation_id=table["annotation_id"][row].as_py())
        for row in _rows(table, text)
    ]


def _rows(table: pa.Table, text: str) -> list[int]:
    if ":" in text:
        names = pc.binary_join_element_wise(
            table["source"], pc.coalesce(table["source_annotation_id"], ""), ":"
        )
        fits = pc.equal(names, text)
    else:
        fits = pc.starts_with(table["annotation_id"], text.lower())
    rows: list[int] = pc.indices_nonzero(fits.combine_chunks()).to_pylist()
    return rows


# -- taken down ----------------------------------------------------------------------------------


def _why_not(dataset: Dataset, text: str) -> str:
    here = f"commit {dataset.commit_id[:12]}"
    removals = Removals.load(dataset.store, dataset.commit)
    for shard, table in _taken_down_boxes(dataset, set(removals.shards)):
        gone = {row.image_id: row for row in removals.of_shard(shard)}
        for row in _rows(table, text):
            image = gone.get(table["image_id"][row].as_py())
            if image:
                return (
                    f"annotation {table['annotation_id'][row].as_py()} is no more in {here}: its "
                    f"image {image.file_name} was taken down on {image.time} by {image.author} "
                    f"({image.reason}); older commits still have it"
                )
    return (
        f"no annotation '{text}' in {here}, which has "
        f"{sum(cell.num_rows for cell in dataset.manifest.of_layer(schemas.BOXES)):,}; "
        "'maskmill sql' finds ids by file name or category, and --ref asks another commit"
    )


def _taken_down_boxes(dataset: Dataset, wanted: set[str]) -> Iterator[tuple[str, pa.Table]]:
    """Shards that were written again without some images, with the boxes that they once had."""
    columns = ["annotation_id", "image_id", "source", "source_annotation_id"]
    for entry in history(dataset.store, dataset.commit_id):
        if not wanted:
            return
        if entry.commit.changes is not None and schemas.IMAGES not in entry.commit.changes:
            continue  # it has the shards of its parent
        older = Dataset(dataset.store, entry.commit_id)
        for shard in sorted(wanted & set(older.manifest.shards())):
            wanted.discard(shard)
            if older.manifest.get(shard, schemas.BOXES):
                yield shard, older.table(shard, schemas.BOXES, columns=columns)
