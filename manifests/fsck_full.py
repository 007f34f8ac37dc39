"""Full fsck: every byte that refs reach is read and hashed, and every table means what it should.

Shards are looked at in a few threads, each object once; what is in memory is a few cells of a few
shards. Ids are compared on disk.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa

from manifests import schemas
from manifests.byte_progress import ByteListener
from manifests.computed import is_of_others
from manifests.findings import Flaw
from manifests.fsck_ids import IdBook
from manifests.fsck_images import ImageCheck
from manifests.fsck_shard import ShardCheck, ShardPlan, ShardResult
from manifests.fsck_stock import Stock, fetch
from manifests.fsck_tables import flaw
from manifests.manifest import Cell
from manifests.parquet import parquet_to_table
from manifests.store import Store

_THREADS = 4
_AHEAD = 2
_MASKS = schemas.masks_layer("")
_INGESTED = (schemas.IMAGES, schemas.IMAGE_INDEX, schemas.BOXES)
_WITH_IDS = {schemas.IMAGE_INDEX: "image", schemas.BOXES: "annotation"}


class _StoppedError(Exception):
    """Ends the threads that are at work when the main thread gives up."""


def check_contents(
    store: Store,
    stock: Stock,
    heads: Mapping[str, str],
    unreadable: Collection[str],
    *,
    check_image: ImageCheck | None,
    listener: ByteListener,
) -> Iterator[Flaw]:
    """Reads everything that the stock lists.

    Args:
        heads: ref -> commit id, in whose datasets ids must be unique.
        unreadable: objects that are known to be lost.
        check_image: decodes an image, which this package cannot; None: images are only hashed.

    Raises:
        StoreError: the store does not answer.
    """
    sizes = {cell.object_id: cell.num_bytes for cell in stock.cells}
    total = sum(size for object_id, size in sizes.items() if object_id not in unreadable)
    listener.begin("reading contents", total=total, in_bytes=True)
    plans = _plans(stock, unreadable)
    datasets = list(_datasets(stock, heads))
    wanted = {cell.object_id for cells in datasets for cell in cells}
    with IdBook() as book:
        for result in _run(store, plans, check_image=check_image, listener=listener):
            yield from result.flaws
            for ids in (result.image_ids, result.annotation_ids):
                for object_id in sorted(ids.keys() & wanted):
                    book.add(object_id, ids[object_id])
        listener.begin("comparing ids", total=0)
        yield from dict.fromkeys(one for cells in datasets for one in _ids_twice(book, cells))
    for object_id, kind in stock.hanging().items():
        if kind == "rejects" and object_id not in unreadable:
            yield from _check_rejects(store, object_id)


def stale_cells(stock: Stock, heads: Mapping[str, str]) -> Iterator[Flaw]:
    """Cells of heads that were computed from others than those that stand beside them now."""
    told: dict[Flaw | None, None] = {}
    for numbers in (stock.of_manifest[manifest] for manifest in _manifests(stock, heads)):
        shards: dict[str, list[Cell]] = {}
        for number in numbers.tolist():
            shards.setdefault(stock.cells[number].shard, []).append(stock.cells[number])
        for cells in shards.values():
            beside = {cell.layer: cell.object_id for cell in cells}
            told |= dict.fromkeys(_stale(cell, beside) for cell in cells)
    yield from (one for one in told if one)


def _stale(cell: Cell, beside: Mapping[str, str]) -> Flaw | None:
    boxes = beside.get(schemas.BOXES)
    if not cell.inputs or cell.layer in _INGESTED or boxes is None:
        return None
    if boxes not in cell.inputs:
        how = "was made for other boxes than those that are there now"
    elif cell.layer.startswith(_MASKS) or not is_of_others(cell, beside.values()):
        return None  # masks may carry rows over from an older cell
    else:
        how = "was made from other masks than those that are there now"
    return flaw(cell, "stale", how, "warning")


def _plans(stock: Stock, unreadable: Collection[str]) -> list[ShardPlan]:
    """One plan a shard, with each of its versions once."""
    versions: dict[str, dict[tuple[int, ...], None]] = {}
    for numbers in stock.of_manifest.values():
        mine: dict[str, list[int]] = {}
        for number in numbers.tolist():
            mine.setdefault(stock.cells[number].shard, []).append(number)
        for shard, cells in mine.items():
            versions.setdefault(shard, {})[tuple(cells)] = None
    return [
        ShardPlan(
            shard=shard,
            versions=[{stock.cells[n].layer: stock.cells[n] for n in cells} for cells in found],
            unreadable=unreadable,
        )
        for shard, found in versions.items()
    ]


def _manifests(stock: Stock, heads: Mapping[str, str]) -> list[str]:
    """Those of the heads that can be read."""
    commits = [stock.commits[id_] for id_ in heads.values() if id_ in stock.commits]
    return sorted({c.manifest for c in commits if c.manifest in stock.of_manifest})


def _datasets(stock: Stock, heads: Mapping[str, str]) -> Iterator[list[Cell]]:
    """The image_index and boxes cells of each head; of equal ones only once."""
    seen: set[tuple[str, ...]] = set()
    for manifest in _manifests(stock, heads):
        cells = [stock.cells[number] for number in stock.of_manifest[manifest].tolist()]
        cells = [cell for cell in cells if cell.layer in _WITH_IDS]
        key = tuple(cell.object_id for cell in cells)
        if key not in seen:
            seen.add(key)
            yield cells


def _ids_twice(book: IdBook, cells: Sequence[Cell]) -> Iterator[Flaw]:
    for layer, what in _WITH_IDS.items():
        yield from book.flaws([cell for cell in cells if cell.layer == layer], what)


def _run(
    store: Store,
    plans: Iterable[ShardPlan],
    *,
    check_image: ImageCheck | None,
    listener: ByteListener,
) -> Iterator[ShardResult]:
    """Shards in a few threads, which stop within one read when the caller gives up."""
    stopped = threading.Event()

    def on_bytes(count: int) -> None:
        if stopped.is_set():
            raise _StoppedError
        listener.advance(count)

    def look(plan: ShardPlan) -> ShardResult:
        return ShardCheck(store, plan, check_image=check_image, on_bytes=on_bytes).run()

    under_way: deque[Future[ShardResult]] = deque()
    threads = ThreadPoolExecutor(_THREADS)
    try:
        for plan in plans:
            under_way.append(threads.submit(look, plan))
            if len(under_way) >= _AHEAD * _THREADS:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        stopped.set()
        threads.shutdown(cancel_futures=True)


def _check_rejects(store: Store, object_id: str) -> Iterator[Flaw]:
    data = fetch(store, object_id)
    if isinstance(data, Flaw):
        return  # the check of sizes has told
    try:
        parquet_to_table(data).cast(schemas.REJECTS_SCHEMA)
    except (pa.ArrowException, ValueError, OSError) as error:
        how = f"is not a table of rejects ({error})"
        yield Flaw(kind="schema", how=how, object_id=object_id)
