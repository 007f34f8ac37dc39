"""What a checkout knows of its own files, kept in the hidden folder `.maskmill-checkout`.

    state.json       what the last finished checkout was, and the digest of its table
    next.json        the same for a checkout that has begun: what it was going to write
    <sha256>.parquet a table of files: name, content, size, time of change
    new/             files that are being written

A file is known by its size and its time of change. Both are decided before it is written, and the
time is one that no earlier checkout of this folder used: after a kill, `next.json` tells the files
that were finished from those of the checkout before, and from those that somebody changed.
"""

from __future__ import annotations

import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pyarrow as pa

from manifests.digest import canonical_json, sha256_hex
from manifests.errors import InputError
from manifests.parquet import parquet_to_table, table_to_parquet
from manifests.store import explained

STATE_FOLDER = ".maskmill-checkout"
_STATE, _NEXT, _NEW = "state.json", "next.json", "new"
_FORMAT = 1

FILES = pa.schema(
    [
        # Relative to the checkout's folder, with `/`.
        pa.field("name", pa.string(), nullable=False),
        # What it holds: an image's id, or the digest of all that shapes the annotations.
        pa.field("content", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("mtime_ns", pa.int64(), nullable=False),
    ]
)


class CheckoutHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What was checked out, and with which options.

    Attributes:
        commit: "" if no checkout was ever finished.
        masks: `verdicts`, a layer `masks/<teacher>`, or `boxes`.
        num_images, num_annotations: in `annotations.json`.
        num_skipped: boxes that are not in it, by reason.
        num_quarantined: images that are not in it.
        annotations: digest of all that shapes it.
        mtime_ns: the time of change that files got which were written then.
        table: digest of the table of files.
    """

    store: str
    commit: str
    ref: str
    masks: str
    include_quarantined: bool
    with_images: bool
    num_images: int
    num_annotations: int
    num_skipped: dict[str, int]
    num_quarantined: int
    annotations: str
    mtime_ns: int
    table: str = ""
    format: int = _FORMAT


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFile:
    """A row of FILES but for its name."""

    content: str
    size: int
    mtime_ns: int


class KnownFiles:
    """The files of one or two checkouts, by name. Compact: 600,000 of them are some 150 MB."""

    def __init__(self, *tables: pa.Table) -> None:
        table = pa.concat_tables([FILES.empty_table(), *tables]).combine_chunks()
        self._content = table["content"]
        self._sizes = table["size"].to_numpy()
        self._mtimes_ns = table["mtime_ns"].to_numpy()
        self._rows: dict[str, int] = {}
        self._second: dict[str, int] = {}
        for row, name in enumerate(table["name"].to_pylist()):
            if self._rows.setdefault(name, row) != row:
                self._second[name] = row

    def __len__(self) -> int:
        return len(self._rows)

    def are_as_written(self, root: Path) -> bool:
        """Whether every file is there with its size and time of change; reads none."""
        for name, row in self._rows.items():
            try:
                found = os.lstat(root / name)
            except OSError:
                return False
            if (found.st_size, found.st_mtime_ns) != (self._sizes[row], self._mtimes_ns[row]):
                return False
        return True

    def names(self) -> list[str]:
        """Names that were not taken out yet."""
        return list(self._rows)

    def take(self, name: str) -> tuple[KnownFile, ...]:
        """What a file may be: nothing, one thing, or with an unfinished checkout one of two.

        The name is taken out: in the end, what is left is what nobody asked for.
        """
        rows = [found.pop(name) for found in (self._rows, self._second) if name in found]
        return tuple(
            KnownFile(
                content=self._content[row].as_py(),
                size=int(self._sizes[row]),
                mtime_ns=int(self._mtimes_ns[row]),
            )
            for row in rows
        )


class FileRows:
    """A table of FILES being made, row by row, in little memory."""

    _CHUNK = 10_000

    def __init__(self) -> None:
        self._chunks: list[pa.Table] = [FILES.empty_table()]
        self._rows: list[tuple[str, str, int, int]] = []

    def add(self, name: str, file: KnownFile) -> None:
        """One more."""
        self._rows.append((name, file.content, file.size, file.mtime_ns))
        if len(self._rows) == self._CHUNK:
            self._flush()

    def table(self) -> pa.Table:
        """All so far."""
        self._flush()
        return pa.concat_tables(self._chunks)

    def _flush(self) -> None:
        if self._rows:
            columns = [list(column) for column in zip(*self._rows, strict=True)]
            self._chunks.append(pa.table(columns, schema=FILES))
            self._rows = []


class CheckoutState:
    """The hidden folder of one checkout."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.folder = root / STATE_FOLDER

    def is_there(self) -> bool:
        """Whether this is a checkout, or one that was begun."""
        return any((self.folder / name).is_file() for name in (_STATE, _NEXT))

    def headers(self) -> tuple[CheckoutHeader, ...]:
        """The last checkout, then one that was begun and not finished.

        Raises:
            InputError: the state is damaged.
        """
        found = (self._header(name) for name in (_STATE, _NEXT))
        return tuple(header for header in found if header)

    def known(self) -> KnownFiles:
        """The files of the last checkout, and of one that was not finished.

        Raises:
            InputError: the state is damaged.
        """
        return KnownFiles(*map(self._table, self.headers()))

    def begin(self, found: pa.Table, header: CheckoutHeader, files: pa.Table) -> None:
        """Writes down what is there and what is going to be, before anything is changed.

        Args:
            found: FILES that this folder is known to have.
            header, files: of the checkout that begins.
        """
        old = self._header(_STATE) or msgspec.structs.replace(header, commit="")
        with explained(str(self._root), "file"):
            self.folder.mkdir(exist_ok=True)
            # What a killed checkout wrote moves into the state before its `next` is replaced.
            self._put(_STATE, old, found)
            self._put(_NEXT, header, files)

    def finish(self) -> None:
        """What was going to be is there now."""
        with explained(str(self._root), "file"):
            os.replace(self.folder / _NEXT, self.folder / _STATE)
            header = self._header(_STATE)
            used = {_STATE, f"{header.table}.parquet"} if header else {_STATE}
            for path in self.folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name not in used:
                    path.unlink()

    def new_folder(self) -> Path:
        """An empty folder for files that are being written."""
        folder = self.folder / _NEW
        with explained(str(self._root), "file"):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        return folder

    def _put(self, name: str, header: CheckoutHeader, files: pa.Table) -> None:
        data = table_to_parquet(files)
        table = sha256_hex(data)
        _replace(self.folder / f"{table}.parquet", data)
        named = msgspec.structs.replace(header, table=table)
        _replace(self.folder / name, canonical_json(msgspec.to_builtins(named)))

    def _header(self, name: str) -> CheckoutHeader | None:
        path = self.folder / name
        with explained(str(self._root), "file"):
            data = path.read_bytes() if path.exists() else None
        if data is None:
            return None
        try:
            header = msgspec.json.decode(data, type=CheckoutHeader)
        except msgspec.MsgspecError as error:
            raise self._damaged(path) from error
        if header.format != _FORMAT:
            raise InputError(
                f"{path} has format {header.format}, expected {_FORMAT}; use the maskmill version "
                "that wrote it, or check out into another folder"
            )
        return header

    def _table(self, header: CheckoutHeader) -> pa.Table:
        path = self.folder / f"{header.table}.parquet"
        with explained(str(self._root), "file"):
            data = path.read_bytes() if path.exists() else b""
        if sha256_hex(data) != header.table:
            raise self._damaged(path)
        return parquet_to_table(data).cast(FILES)

    def _damaged(self, path: Path) -> InputError:
        return InputError(
            f"{path} is damaged, so nobody knows which files here were checked out; remove "
            f"{self.folder} and check out with --force, which writes every file again"
        )


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    temporary.write_bytes(data)
    os.replace(temporary, path)
