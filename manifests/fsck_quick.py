"""Quick fsck: is every object that refs reach there, with its size? No cell is opened."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import BinaryIO, cast

from manifests import layout
from manifests.byte_progress import ByteListener
from manifests.errors import ObjectMissingError
from manifests.findings import WRONG_SIZE, Flaw
from manifests.fsck_stock import Stock, cell_name, impossible, lost, num_threads, wrong_bytes
from manifests.in_parallel import in_parallel
from manifests.models import STATE, WEIGHTS
from manifests.store import Store, StoredObject, explained

# Handing a thread one name at a time would cost more than asking a local disk about it.
_BATCH = 64
_CHUNK_BYTES = 4 * 2**20


def check_sizes(
    store: Store, stock: Stock, *, whole: bool, listener: ByteListener
) -> Iterator[Flaw]:
    """Looks once for every object of the stock's cells, and reads what hangs on its commits.

    Checkpoints, which may be gigabytes, are read if the store is to be read as a whole, and only
    looked for if not.

    Raises:
        StoreError: the store does not answer.
    """
    listed = {cell.object_id: cell.num_bytes for cell in stock.cells}
    listener.begin("looking for objects", total=len(listed))
    names = (name for name in listed if layout.is_object_id(name))
    batches = iter(lambda: list(islice(names, _BATCH)), [])
    odd: dict[str, int | None] = {}
    for sizes in in_parallel(partial(_sizes, store), batches, num_threads=num_threads(store)):
        odd |= {name: size for name, size in sizes if size != listed[name]}
        listener.advance(len(sizes))
    for object_id, size in odd.items():
        yield _size_flaw(store, object_id, listed[object_id], size)
    yield from (impossible(name) for name in listed if not layout.is_object_id(name))
    yield from _contradictions(stock, listed)
    for object_id, role in stock.hanging().items():
        if role in (WEIGHTS, STATE) and not whole:
            if layout.is_object_id(object_id) and store.object_size(object_id) is None:
                yield lost(object_id)
        elif role != "removed":  # its size is written nowhere, so it is read; `removed` is already
            yield from check_hash(store, object_id)


def check_hash(store: Store, object_id: str) -> Iterator[Flaw]:
    """Reads an object of any size in flat memory; a flaw if it is lost or not what its name says.

    Raises:
        StoreError: the store does not answer.
    """
    if not layout.is_object_id(object_id):
        yield impossible(object_id)
        return
    try:
        found = hash_object(store, layout.object_path(object_id))
    except ObjectMissingError:
        yield lost(object_id)
        return
    if found.object_id != object_id:
        yield wrong_bytes(store, object_id, num_bytes=found.num_bytes)


def hash_object(store: Store, key: str) -> StoredObject:
    """What is under a key: the digest of its bytes, which should be its name, and their number.

    Raises:
        ObjectMissingError: there is nothing.
        StoreError: the store does not answer.
    """
    digest, num_bytes = hashlib.sha256(), 0
    with explained(store.url, store.protocol), _open(store, key) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            num_bytes += len(chunk)
    return StoredObject(object_id=digest.hexdigest(), num_bytes=num_bytes)


def _open(store: Store, key: str) -> BinaryIO:
    path = f"{store.root}/{key}"
    if store.protocol == "memory":  # fsspec would hand the same file to every reader
        return io.BytesIO(store.fs.cat_file(path))
    return cast(BinaryIO, store.fs.open(path, "rb"))


def _sizes(store: Store, names: Sequence[str]) -> list[tuple[str, int | None]]:
    if store.protocol != "file":
        return [(name, store.object_size(name)) for name in names]
    with explained(store.url, store.protocol):  # a fifth of the time, for what may be a million
        return [(name, _local_size(f"{store.root}/{layout.object_path(name)}")) for name in names]


def _local_size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return None


def _size_flaw(store: Store, object_id: str, listed: int, size: int | None) -> Flaw:
    if size is None:
        return lost(object_id)
    flaws = list(check_hash(store, object_id))
    if not flaws:
        how = f"is listed with {listed:,} bytes, but it has {size:,} and they hash to its name"
        return Flaw(kind="statistics", how=how, object_id=object_id)
    how = f"is damaged (object {object_id[:12]} has {size:,} bytes, its manifest says {listed:,})"
    return Flaw(kind=WRONG_SIZE, how=how, object_id=object_id)


def _contradictions(stock: Stock, listed: dict[str, int]) -> Iterator[Flaw]:
    """One object cannot have two sizes."""
    for cell in stock.cells:
        if cell.num_bytes != listed[cell.object_id]:
            how = (
                f"is listed with {cell.num_bytes:,} bytes here and with "
                f"{listed[cell.object_id]:,} elsewhere"
            )
            yield Flaw(kind="statistics", how=how, object_id=cell.object_id, cell=cell_name(cell))
