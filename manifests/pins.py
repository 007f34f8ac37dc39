"""`gc` beside writers: a commit is pinned before its branch moves, and writers wait for a sweep.

The order on both sides makes it safe without any clock:

    writer   1 pin (names the commit)   2 wait while there is a sweep   3 look for every new object
             4 move the branch          5 unpin
    gc       1 mark the sweep           2 read refs and pins            3 delete   4 unmark

If the pin was written before gc reads pins, gc keeps the commit's objects. If not, the mark was
there before the writer looked for one, so the writer waits, then finds out whether all of its
objects survived, and if not says so instead of moving the branch.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from manifests import layout
from manifests.errors import CommitError, StoreError
from manifests.manifest import Cell
from manifests.store import NameTakenError, Store

# A sweep renews its mark at least every REFRESH_S and gives up by itself if it could not for
# ABANDON_S; others take one for dead that has not changed for DEAD_S of their own time.
REFRESH_S, ABANDON_S, DEAD_S = 5.0, 60.0, 180.0
_POLL_S = 0.5
_THREADS = 16


class Pin:
    """One writer's pin; it may name one commit after another while others win the race."""

    def __init__(self, store: Store) -> None:
        self._store, self._key = store, f"{layout.PINS}/{uuid.uuid4().hex}"

    def name(self, commit_id: str) -> None:
        """Keeps that commit and all that it names from `gc`, if no sweep is under way already."""
        self._store.overwrite(self._key, commit_id.encode())

    def remove(self) -> None:
        """Keeps nothing any more."""
        self._store.remove(self._key)


@contextmanager
def pinned(store: Store, commit_id: str) -> Iterator[None]:
    """Keeps a commit's objects from `gc` while a ref is being moved to it.

    On entering, no sweep is under way that could have missed the pin; now is the time to look
    whether all objects are there (`check_there`), and then to move the ref.

    Raises:
        StoreError: a sweep does not end.
    """
    pin = Pin(store)
    try:
        pin.name(commit_id)
        wait_for_sweep(store)
        yield
    finally:
        pin.remove()


def pins(store: Store) -> frozenset[str]:
    """Ids of the commits that are being published, or were when their writer died."""
    names = store.list_names(layout.PINS)
    found = (store.read_optional(f"{layout.PINS}/{name}") for name in names)
    return frozenset(data.decode("ascii", errors="replace") for data in found if data)


def check_there(store: Store, cells: Iterable[Cell]) -> None:
    """Looks for the object of every cell.

    Raises:
        CommitError: some are gone; says how many and what to do.
    """
    wanted = {cell.object_id: cell for cell in cells}.values()
    with ThreadPoolExecutor(_THREADS) as threads:
        sizes = list(threads.map(lambda cell: store.object_size(cell.object_id), wanted))
    gone = [cell for cell, size in zip(wanted, sizes, strict=True) if size != cell.num_bytes]
    if gone:
        raise CommitError(
            f"{len(gone):,} of the commit's {len(wanted):,} new objects are no longer in "
            f"{store.url}, the first is {gone[0].layer} of shard {gone[0].shard[:12]}: 'maskmill "
            "gc' took them for leftovers, its grace period being shorter than this work; run the "
            "same command again"
        )


def check_objects(store: Store, object_ids: Iterable[str | None]) -> None:
    """Looks for objects that are no cells. Raises CommitError as `check_there`."""
    gone = [id_ for id_ in object_ids if id_ and store.object_size(id_) is None]
    if gone:
        raise CommitError(
            f"object {gone[0][:12]} of the new commit is no longer in {store.url}: 'maskmill gc' "
            "took it for a leftover, its grace period being shorter than this work; run the same "
            "command again"
        )


def wait_for_sweep(
    store: Store, *, patience_s: float = 3600.0, sleep: Callable[[float], None] = time.sleep
) -> bool:
    """Returns when no sweep is under way; one that stands still for DEAD_S does not count.

    Returns:
        Whether there was one.

    Raises:
        StoreError: it goes on for longer than `patience_s`.
    """
    began = changed = time.monotonic()
    last = store.read_optional(layout.SWEEP)
    is_under_way = last is not None
    while last is not None:
        now = time.monotonic()
        if now - changed > DEAD_S:
            break  # its process died, or has given up by now
        if now - began > patience_s:
            raise StoreError(
                f"a 'maskmill gc' has been deleting in {store.url} for {patience_s:.0f} s; wait "
                "for it to end, then run the same command again"
            )
        sleep(_POLL_S)
        found = store.read_optional(layout.SWEEP)
        if found != last:
            last, changed = found, time.monotonic()
    return is_under_way


class Sweep:
    """The mark of a running `gc`; `refresh` often, and stop deleting when it raises."""

    def __init__(self, store: Store) -> None:
        self._store, self._nonce, self._count = store, uuid.uuid4().hex, 0
        self._renewed = time.monotonic()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Marks the sweep for the length of a block.

        Raises:
            StoreError: another `gc` is at work.
        """
        wait_for_sweep(self._store, patience_s=2 * DEAD_S)
        try:
            self._store.create_if_absent(layout.SWEEP, self._mark())
        except NameTakenError as error:
            if self._store.read_optional(layout.SWEEP) != error.found:
                raise StoreError(
                    f"another 'maskmill gc' just began in {self._store.url}; let it finish"
                ) from error
            self._store.overwrite(layout.SWEEP, self._mark())  # the mark of a dead one
        self._renewed = time.monotonic()
        try:
            yield
        finally:
            if self._is_mine():
                self._store.remove(layout.SWEEP)

    def refresh(self) -> None:
        """Renews the mark if it is time to.

        Raises:
            StoreError: it could not be renewed in time, or somebody else's is in its place.
        """
        now = time.monotonic()
        if now - self._renewed < REFRESH_S:
            return
        if now - self._renewed > ABANDON_S or not self._is_mine():
            raise StoreError(
                f"this 'maskmill gc' lost its place in {self._store.url}, so it stops before it "
                "could delete what others use; run it again"
            )
        self._count += 1
        self._store.overwrite(layout.SWEEP, self._mark())
        self._renewed = time.monotonic()

    def _mark(self) -> bytes:
        return f"{self._nonce} {self._count}".encode()

    def _is_mine(self) -> bool:
        found = self._store.read_optional(layout.SWEEP) or b""
        return found.startswith(self._nonce.encode())
