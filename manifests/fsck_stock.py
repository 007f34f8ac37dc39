"""Everything that refs reach: commits, manifests and cells, listed without stopping at damage."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from manifests import layout
from manifests import manifest as manifest_table
from manifests.byte_progress import ByteListener
from manifests.commit import FORMAT, Commit
from manifests.errors import LedgerImbalanceError, ObjectDamagedError, ObjectMissingError
from manifests.findings import MISSING, WRONG_BYTES, CellName, Flaw
from manifests.in_parallel import in_parallel
from manifests.manifest import Cell
from manifests.parquet import parquet_to_table
from manifests.removed import Removals, RemovedImage
from manifests.schemas import REMOVED_SCHEMA
from manifests.store import Store

Row = tuple[Any, ...]  # Any: one value of each column, nested ones as tuples
_QUICK_COLUMNS = ("shard", "layer", "object", "rows", "bytes")
_ALL_COLUMNS = (*_QUICK_COLUMNS, "inputs", "statistics")
_THREADS = {"file": 4, "memory": 1}
_THREADS_ELSEWHERE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitFacts:
    """What is kept of a commit; `settings` is the teacher or policy that it was made with.

    `hanging` as in Commit.
    """

    commit_id: str
    parents: tuple[str, ...]
    manifest: str
    hanging: Mapping[str, str]
    time: str
    operation: str
    settings: str


class Stock:
    """What refs reach. Filled by `take_stock`, then only read.

    Attributes:
        commits: by id, those that can be read.
        cells: every cell that any manifest lists, once.
        of_manifest: manifest id -> numbers of its cells in `cells`; those that can be read.
        removals: all takedowns that any commit knows of.
        flaws: what was found wrong on the way.
    """

    def __init__(self) -> None:
        self.commits: dict[str, CommitFacts] = {}
        self.cells: list[Cell] = []
        self.of_manifest: dict[str, NDArray[np.int32]] = {}
        self.removals = Removals()
        self.flaws: list[Flaw] = []
        self._numbers: dict[Row, int] = {}

    def add_manifest(self, object_id: str, rows: Iterable[Row]) -> None:
        """Lists a manifest's cells; equal rows are one cell."""
        numbers = []
        for row in rows:
            number = self._numbers.setdefault(row, len(self.cells))
            if number == len(self.cells):
                self.cells.append(_cell(row))
            numbers.append(number)
        self.of_manifest[object_id] = np.array(numbers, dtype=np.int32)

    def forget_numbers(self) -> None:
        """Frees what only adding needs."""
        self._numbers.clear()

    def hanging(self) -> dict[str, str]:
        """Object id -> role, of the objects that hang on commits."""
        found: dict[str, str] = {}
        for commit in self.commits.values():
            found |= commit.hanging
        return found


def num_threads(store: Store) -> int:
    """Requests under way together; a local disk is waited for less than a network."""
    return _THREADS.get(store.protocol, _THREADS_ELSEWHERE)


def take_stock(
    store: Store, roots: Collection[str], *, whole: bool, listener: ByteListener
) -> Stock:
    """Reads every commit and manifest that is reachable from some commits, once.

    Args:
        roots: commit ids.
        whole: also the inputs and statistics of cells, which a check of sizes needs not.

    Raises:
        StoreError: the store does not answer.
    """
    stock = Stock()
    listener.begin("reading the history", total=len(set(roots)))
    asked: set[str] = set()
    frontier = sorted(set(roots))
    while frontier:
        asked.update(frontier)
        read = partial(_read_commit, store)
        for found in in_parallel(read, frontier, num_threads=num_threads(store)):
            stock.flaws += [item for item in found if isinstance(item, Flaw)]
            facts = [item for item in found if isinstance(item, CommitFacts)]
            stock.commits |= {commit.commit_id: commit for commit in facts}
            listener.advance(1)
        read_now = [stock.commits[id_] for id_ in frontier if id_ in stock.commits]
        frontier = sorted({id_ for commit in read_now for id_ in commit.parents} - asked)
    manifests = sorted({commit.manifest for commit in stock.commits.values()})
    listener.begin("reading manifests", total=len(manifests))
    read_rows = partial(_read_manifest, store, whole=whole)
    for object_id, (rows, flaws) in zip(
        manifests,
        in_parallel(read_rows, manifests, num_threads=num_threads(store)),
        strict=True,
    ):
        stock.flaws += flaws
        if rows is not None:
            stock.add_manifest(object_id, rows)
        listener.advance(1)
    stock.removals = _read_removals(store, stock)
    stock.forget_numbers()
    return stock


def fetch(store: Store, object_id: str) -> bytes | Flaw:
    """A whole object, or what is wrong with it.

    Raises:
        StoreError: the store does not answer.
    """
    if not layout.is_object_id(object_id):
        return impossible(object_id)
    try:
        return store.get_bytes(object_id)
    except ObjectMissingError:
        return lost(object_id)
    except ObjectDamagedError:
        return wrong_bytes(store, object_id, num_bytes=store.object_size(object_id) or 0)


def lost(object_id: str) -> Flaw:
    """An object that is not there."""
    return Flaw(kind=MISSING, how=f"is missing (object {object_id[:12]})", object_id=object_id)


def wrong_bytes(store: Store, object_id: str, *, num_bytes: int) -> Flaw:
    """An object whose bytes do not hash to its name."""
    how = (
        f"is damaged (object {object_id[:12]} in {store.url}: its {num_bytes:,} bytes do not "
        "hash to its name)"
    )
    return Flaw(kind=WRONG_BYTES, how=how, object_id=object_id)


def impossible(object_id: str) -> Flaw:
    """A name that no object can have."""
    how = f"cannot be there (its object id is {object_id[:80]!r}, not 64 hex digits)"
    return Flaw(kind="impossible_id", how=how, object_id=object_id)


def _read_commit(store: Store, commit_id: str) -> Sequence[CommitFacts | Flaw]:
    data = fetch(store, commit_id)
    if isinstance(data, Flaw):
        return [data]
    try:
        commit = msgspec.json.decode(data, type=Commit)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return [Flaw(kind="no_commit", how=f"is not a commit ({error})", object_id=commit_id)]
    if commit.format != FORMAT:
        how = f"has format {commit.format}, and this maskmill knows {FORMAT}"
        return [Flaw(kind="newer_format", how=how, object_id=commit_id, severity="warning")]
    return [_facts(commit_id, commit), *_ledger_flaws(commit_id, commit)]


def _facts(commit_id: str, commit: Commit) -> CommitFacts:
    made = commit.operation
    settings = (made.teacher or {}).get("name") or made.config.get("name") or ""
    return CommitFacts(
        commit_id=commit_id, parents=commit.parents, manifest=commit.manifest,
        hanging=commit.hanging, time=commit.time,
        operation=made.name, settings=str(settings),
    )  # fmt: skip


def _ledger_flaws(commit_id: str, commit: Commit) -> Iterator[Flaw]:
    try:
        commit.ledger.check()
    except LedgerImbalanceError as error:
        how = f"has a ledger that cannot be right ({str(error).partition('; this is a bug')[0]})"
        yield Flaw(kind="ledger", how=how, object_id=commit_id)


def _read_manifest(
    store: Store, object_id: str, *, whole: bool
) -> tuple[list[Row] | None, list[Flaw]]:
    data = fetch(store, object_id)
    if isinstance(data, Flaw):
        return None, [data]
    try:
        table = _table(data, _ALL_COLUMNS if whole else _QUICK_COLUMNS)
    except (pa.ArrowException, ValueError, OSError) as error:
        how = f"is not a manifest ({error})"
        return None, [Flaw(kind="no_manifest", how=how, object_id=object_id)]
    twice = table.num_rows - table.group_by(["shard", "layer"]).aggregate([]).num_rows
    how = f"lists {twice:,} cells twice"
    flaws = [Flaw(kind="cell_twice", how=how, object_id=object_id)] if twice else []
    return list(_rows(table)), flaws


def _table(data: bytes, names: Sequence[str]) -> pa.Table:
    schema = pa.schema([manifest_table.SCHEMA.field(name) for name in names])
    return parquet_to_table(data, columns=list(names)).cast(schema)


def _rows(table: pa.Table) -> Iterator[Row]:
    columns = [column.to_pylist() for column in table.columns]
    for nested in columns[len(_QUICK_COLUMNS) :]:
        nested[:] = map(tuple, nested)
    return zip(*columns, strict=True)


def _cell(row: Row) -> Cell:
    shard, layer, object_id, num_rows, num_bytes, *more = row
    inputs, statistics = more or ((), ())
    return Cell(
        shard=sys.intern(shard),
        layer=sys.intern(layer),
        object_id=object_id,
        num_rows=num_rows,
        num_bytes=num_bytes,
        inputs=inputs,
        statistics=dict(statistics),
    )


def _read_removals(store: Store, stock: Stock) -> Removals:
    removals = Removals()
    tables = {id_ for id_, kind in stock.hanging().items() if kind == "removed"}
    for object_id in sorted(tables):
        data = fetch(store, object_id)
        if isinstance(data, Flaw):
            stock.flaws.append(data)
            continue
        try:
            table = parquet_to_table(data).cast(REMOVED_SCHEMA)
        except (pa.ArrowException, ValueError, OSError) as error:
            how = f"is not a table of removed images ({error})"
            stock.flaws.append(Flaw(kind="schema", how=how, object_id=object_id))
            continue
        removals = removals.with_rows(RemovedImage(**row) for row in table.to_pylist())
    return removals


def cell_name(cell: Cell) -> CellName:
    """Which cell it is."""
    return CellName(shard=cell.shard, layer=cell.layer)
