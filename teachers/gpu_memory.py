"""A full GPU as Python's own MemoryError, which workers answer with a smaller batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def out_of_memory_translated() -> Iterator[None]:
    """Frees what torch holds in reserve before the error goes on.

    Raises:
        MemoryError: in place of torch's own.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise MemoryError(f"the GPU is full: {error}") from error
