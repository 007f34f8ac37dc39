"""Work on many items in a few threads, in order, with no more of them under way than needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from manifests.store import Store

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_AHEAD = 4


def threads_for(store: Store) -> int:
    """Threads for small cells: they hide a server's answers, and only change turns on a disk.

    Two of them read and compute on 10 million rows as fast as one, eight take half as long again:
    every Arrow call on a cell of 16,000 rows lets go of the interpreter's lock and takes it back.
    """
    return 2 if store.protocol == "file" else 8


def in_parallel(
    work: Callable[[_Item], _Result], items: Iterable[_Item], *, num_threads: int
) -> Iterator[_Result]:
    """`map` over threads that reads `items` only a little ahead of its results.

    What `work` raises is raised here; items that were not begun are then not begun any more.
    """
    under_way: deque[Future[_Result]] = deque()
    threads = ThreadPoolExecutor(num_threads)
    try:
        for item in items:
            under_way.append(threads.submit(work, item))
            if len(under_way) >= _AHEAD * num_threads:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)
