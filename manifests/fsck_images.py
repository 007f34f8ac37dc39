"""Full fsck of an images object: one pass over its tar hashes it and looks at every image."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from manifests.errors import ObjectMissingError
from manifests.findings import Flaw
from manifests.fsck_stock import lost, wrong_bytes
from manifests.fsck_tables import IndexFacts, flaw, rows_where
from manifests.manifest import Cell
from manifests.store import Store, explained

ImageCheck = Callable[[bytes, tuple[int, int]], str | None]
"""(encoded bytes, (height, width)) -> what is wrong, or None if they decode to that size."""

_BUFFER_BYTES = 2**16  # tarfile copies what is left of it for every header


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    """A file of the tar: where its bytes begin and how many there are."""

    name: str
    offset: int
    size: int


class ImagesPass:
    """One reading of an images object."""

    def __init__(
        self, store: Store, cell: Cell, *, check: ImageCheck | None, on_bytes: Callable[[int], None]
    ) -> None:
        """`on_bytes` is told how many bytes were read; what it raises ends the pass."""
        self._store, self._cell, self._check, self._on_bytes = store, cell, check, on_bytes

    def flaws(self, indexes: Sequence[tuple[Cell, IndexFacts]]) -> Iterator[Flaw]:
        """What is wrong with the tar, or with tables that say where its images are.

        Args:
            indexes: every image_index that belongs to it.

        Raises:
            StoreError: the store does not answer.
        """
        try:
            file = self._store.open_object(self._cell.object_id)
        except ObjectMissingError:
            yield lost(self._cell.object_id)
            return
        with file:
            tar = _HashedFile(self._store, file, self._on_bytes)
            sizes = _sizes_by_offset(indexes)
            members, complaints = self._members(tar, sizes)
            tar.read_rest()
        if tar.digest() != self._cell.object_id:
            yield wrong_bytes(self._store, self._cell.object_id, num_bytes=tar.num_bytes)
            return
        yield from (flaw(self._cell, kind, how) for kind, how in complaints)
        if not any(kind == "tar" for kind, _ in complaints):
            for index_cell, index in indexes:
                yield from _check_places(index_cell, index, members)

    def _members(
        self, tar: _HashedFile, sizes: dict[int, tuple[int, int]]
    ) -> tuple[dict[int, _Member], list[tuple[str, str]]]:
        """Members by offset, and what is wrong with them, as kind and sentence."""
        members: dict[int, _Member] = {}
        bad: list[str] = []
        try:
            with tarfile.open(fileobj=tar, mode="r|", bufsize=_BUFFER_BYTES) as opened:
                for info in opened:
                    member = _Member(name=info.name, offset=info.offset_data, size=info.size)
                    members[member.offset] = member
                    size_hw = sizes.get(member.offset)
                    content = opened.extractfile(info)
                    if self._check and size_hw and content is not None:
                        wrong = self._check(content.read(), size_hw)
                        bad += [f"{info.name}: {wrong}"] if wrong else []
        except (tarfile.TarError, EOFError, ValueError) as error:
            return members, [("tar", f"cannot be read as a tar ({error})")]
        more = f" and {len(bad) - 1:,} more" if len(bad) > 1 else ""
        return members, [("image", f"has a broken image ({bad[0]}{more})")] if bad else []


class _HashedFile(io.BufferedIOBase):
    """A file that is read forward once, and hashed on the way."""

    def __init__(self, store: Store, file: BinaryIO, on_bytes: Callable[[int], None]) -> None:
        super().__init__()
        self._store, self._file, self._on_bytes = store, file, on_bytes
        self._digest = hashlib.sha256()
        self.num_bytes = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to so many bytes."""
        with explained(self._store.url, self._store.protocol):
            data = self._file.read(-1 if size is None else size)
        self._digest.update(data)
        self.num_bytes += len(data)
        self._on_bytes(len(data))
        return data

    def read_rest(self) -> None:
        """What a reader of the tar leaves at its end."""
        while self.read(_BUFFER_BYTES):
            pass

    def digest(self) -> str:
        """Of what was read so far, as hex."""
        return self._digest.hexdigest()


def _sizes_by_offset(
    indexes: Sequence[tuple[Cell, IndexFacts]],
) -> dict[int, tuple[int, int]]:
    found: dict[int, tuple[int, int]] = {}
    for _, index in indexes:
        sizes = zip(index.heights.tolist(), index.widths.tolist(), strict=True)
        found |= dict(zip(index.offsets.tolist(), sizes, strict=True))
    return found


def _check_places(cell: Cell, index: IndexFacts, members: dict[int, _Member]) -> Iterator[Flaw]:
    """Rows of the table and files of the tar are the same."""
    found = [members.get(offset) for offset in index.offsets.tolist()]
    ids, sizes = index.image_ids.to_pylist(), index.sizes.tolist()
    is_wrong = np.array(
        [
            member is None or member.size != size or member.name.partition(".")[0] != image_id
            for member, size, image_id in zip(found, sizes, ids, strict=True)
        ],
        dtype=bool,
    )
    if is_wrong.any():
        how = f"says a place in the tar at which its image is not in {rows_where(is_wrong)}"
        yield flaw(cell, "image_offset", how)
    num_more = len(members) - len(set(index.offsets.tolist()) & set(members))
    if num_more:
        yield flaw(cell, "image_offset", f"does not list {num_more:,} images of the tar")
