"""One bucket or folder with everything in it, reached through fsspec; create-if-absent decides.

The store needs one thing of its file system: a write that fails if the name is taken. How that is
had differs by protocol and is the only thing that does; see manifests.whole_writes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from manifests import layout
from manifests.digest import canonical_json, sha256_hex
from manifests.errors import (
    MaskmillError,
    ObjectDamagedError,
    ObjectMissingError,
    StoreError,
)
from manifests.file_system import (
    NoAnswerError,
    full_url,
    http_status,
    open_file_system,
    protocol_of,
)
from manifests.file_system import explained as explained
from manifests.whole_writes import create_if_absent, write_local

FORMAT_VERSION = 1
_CREATE_ATTEMPTS = 6
_RANGE_NOT_SATISFIABLE = 416
_SENT_UNASKED_BYTES = 256 * 2**10


class NameTakenError(MaskmillError):
    """A create-if-absent found the name taken; `found` is what is there."""

    def __init__(self, key: str, found: bytes) -> None:
        super().__init__(f"{key} exists already")
        self.found = found


class WriteStateUnknownError(StoreError):
    """A conditional write got no answer, and reading it back gave none either."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """An object in the store: its SHA-256 as hex, and its size in bytes."""

    object_id: str
    num_bytes: int


class Store:
    """A store that exists. Cheap to open, safe to use from several threads."""

    def __init__(self, url: str, scratch: str = "") -> None:
        """Opens without any request; call `check_is_store` to see whether one is there.

        Args:
            url: a folder, or any fsspec URL such as `s3://bucket/prefix` or `memory://name`.
            scratch: a name under which result records are kept apart: work is then done anew
                although others have its result. Everything else is the same store.

        Raises:
            StoreError: the address names no place, or there is no driver for it.
        """
        self.url, self.scratch = full_url(url), scratch
        self.protocol = protocol_of(self.url)
        self._fs, self.root = open_file_system(self.url)
        self._process = os.getpid()

    @property
    def fs(self) -> Any:  # Any: fsspec is untyped
        """The file system; opened anew after a fork, which an S3 client's connections do not
        survive."""
        if self._process != os.getpid():
            self._fs, _ = open_file_system(self.url)
            self._process = os.getpid()
        return self._fs

    def __reduce__(self) -> tuple[type[Store], tuple[str, str]]:
        return Store, (self.url, self.scratch)

    # -- whole store -----------------------------------------------------------------------------

    def create(self) -> None:
        """Makes an empty store here, after proving that create-if-absent really excludes.

        Raises:
            StoreError: a store is here already, it cannot be reached, or it ignores conditions.
        """
        taken = f"a maskmill store is at {self.url} already; use it as it is"
        # Asked first: an address or credentials that are wrong get the plainest message here.
        if self.is_there():
            raise StoreError(taken)
        self.probe_conditional_writes()
        marker = canonical_json({"format": FORMAT_VERSION, "nonce": uuid.uuid4().hex})
        try:
            self.create_if_absent(layout.MARKER, marker)
        except NameTakenError as error:
            raise StoreError(taken) from error

    def is_there(self) -> bool:
        """Whether `create` was done here, in whatever format."""
        return self.read_optional(layout.MARKER) is not None

    def check_is_store(self) -> None:
        """Raises StoreError unless `create` was done here, in a format this version reads."""
        raw = self.read_optional(layout.MARKER)
        if raw is None:
            raise StoreError(f"no maskmill store at {self.url}; make one with 'maskmill init'")
        try:
            found = json.loads(raw)["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise ObjectDamagedError(
                f"{self.url}/{layout.MARKER} is damaged; restore it from a copy"
            ) from error
        if found != FORMAT_VERSION:
            raise StoreError(
                f"the store at {self.url} has format {found}, expected {FORMAT_VERSION}; "
                "use the maskmill version that wrote it"
            )

    def probe_conditional_writes(self) -> None:
        """Two writes to one new name; the second must fail.

        Some S3 servers accept `If-None-Match` and ignore it. On them two writers would both
        believe that they had moved a branch, so they are refused here.

        Raises:
            StoreError: the second write went through.
        """
        key = f"{layout.PROBES}/{uuid.uuid4().hex}"
        self.create_if_absent(key, b"first")
        try:
            self.create_if_absent(key, b"second")
        except NameTakenError:
            return
        finally:
            with explained(self.url, self.protocol):
                self.fs.rm_file(self.path(key))
        raise StoreError(
            f"the object store at {self.url} ignores conditional writes (If-None-Match), so two "
            "writers could overwrite each other's commits; use one that honours them "
            "(AWS S3, MinIO, SeaweedFS) or a local folder"
        )

    # -- the one write primitive -----------------------------------------------------------------

    def create_if_absent(self, key: str, data: bytes) -> None:
        """Writes `data` under `key` unless the name is taken; never anything in between.

        A write that was done but whose answer got lost counts as done: the bytes are read back.

        Raises:
            NameTakenError: somebody else's bytes are there.
            WriteStateUnknownError: no answer, and no answer to reading back either.
            StoreError: the store cannot be reached, is full, or refuses.
        """
        for attempt in range(_CREATE_ATTEMPTS):
            if attempt:
                time.sleep(random.uniform(0, 0.1 * 2**attempt))  # noqa: S311
            if self._created(key, data):
                return
            found = self.read_optional(key)
            if found == data:
                return
            if found is not None:
                raise NameTakenError(key, found)
        raise StoreError(
            f"{self.url} refuses to write {key} as if it existed, but it does not; run again"
        )

    def _created(self, key: str, data: bytes) -> bool:
        """Tries once; a write without an answer counts as done if our bytes are there."""
        try:
            with explained(self.url, self.protocol):
                return create_if_absent(self.fs, self.protocol, self.path(key), data)
        except NoAnswerError as error:
            found = self._read_after_silence(key)
            if found is None:
                raise WriteStateUnknownError(
                    f"{self.url} did not answer while {key} was written: it may or may not be there"
                ) from error
            return found == data

    def _read_after_silence(self, key: str) -> bytes | None:
        try:
            return self.read_optional(key)
        except NoAnswerError:
            return None

    # -- objects ---------------------------------------------------------------------------------

    def put_bytes(self, data: bytes) -> StoredObject:
        """Stores an object, unless it is there, and returns its name."""
        object_id = sha256_hex(data)
        self._put(object_id, data, len(data))
        return StoredObject(object_id=object_id, num_bytes=len(data))

    def put_file(self, path: Path) -> StoredObject:
        """Stores a local file's content as an object without holding it in memory."""
        with path.open("rb") as file:
            object_id = hashlib.file_digest(file, "sha256").hexdigest()
        num_bytes = path.stat().st_size
        self._put(object_id, path, num_bytes)
        return StoredObject(object_id=object_id, num_bytes=num_bytes)

    def get_bytes(self, object_id: str) -> bytes:
        """A whole object, checked against its name.

        Raises:
            ObjectMissingError: it is not there.
            ObjectDamagedError: its bytes hash to something else.
        """
        data = self.read_optional(layout.object_path(object_id))
        if data is None:
            raise ObjectMissingError(
                f"object {object_id[:12]} is missing in {self.url}; restore it from a copy"
            )
        if sha256_hex(data) != object_id:
            raise ObjectDamagedError(
                f"object {object_id[:12]} in {self.url} is damaged: its {len(data)} bytes do not "
                "hash to its name; restore it from a copy"
            )
        return data

    def open_object(self, object_id: str) -> BinaryIO:
        """An object as a seekable file with read-ahead; the caller closes it. Not checked."""
        path = self.path(layout.object_path(object_id))
        with explained(self.url, self.protocol):
            if self.protocol == "memory":  # fsspec would hand the same file to every reader
                return io.BytesIO(self.fs.cat_file(path))
            return cast(BinaryIO, self.fs.open(path, "rb", **_READ_AHEAD.get(self.protocol, {})))

    def read_range(self, object_id: str, *, start: int, num_bytes: int) -> bytes:
        """Part of an object, with one range request. Its content is not checked.

        Raises:
            ObjectMissingError: there is no such object.
            ObjectDamagedError: it ends before that part does.
        """
        path = self.path(layout.object_path(object_id))
        data = b""
        if num_bytes:
            with explained(self.url, self.protocol):
                data = _read_range(self.fs, path, start, num_bytes)
        if len(data) != num_bytes:
            raise ObjectDamagedError(
                f"object {object_id[:12]} in {self.url} ends early: expected {num_bytes} bytes at "
                f"{start}, got {len(data)}; restore it from a copy"
            )
        return data

    def object_size(self, object_id: str) -> int | None:
        """Bytes of an object, or None if it is not there."""
        try:
            with explained(self.url, self.protocol):
                return int(self.fs.size(self.path(layout.object_path(object_id))))
        except ObjectMissingError:
            return None

    def find_objects(self, prefix: str) -> list[str]:
        """Object ids that begin with at least 4 hex digits; lists one of 256 folders at most."""
        if len(prefix) < 4 or not set(prefix) <= set("0123456789abcdef"):
            return []
        return [
            name for name in self.list_names(f"objects/{prefix[:2]}") if name.startswith(prefix)
        ]

    # -- small files under a key -----------------------------------------------------------------

    def read_optional(self, key: str) -> bytes | None:
        """The bytes under a key, or None."""
        try:
            with explained(self.url, self.protocol):
                return bytes(self.fs.cat_file(self.path(key)))
        except ObjectMissingError:
            return None

    def overwrite(self, key: str, data: bytes) -> None:
        """Replaces a small file. Only for result records whose object has gone."""
        with explained(self.url, self.protocol):
            if self.protocol == "file":
                write_local(self.path(key), data, exclusive=False)
            else:
                self.fs.pipe_file(self.path(key), data)

    def remove(self, key: str) -> None:
        """Deletes a file; done if it is not there."""
        try:
            with explained(self.url, self.protocol):
                self.fs.rm_file(self.path(key))
        except ObjectMissingError:
            return

    def list_names(self, folder: str) -> list[str]:
        """Sorted last path parts directly below a folder; [] if there is none."""
        try:
            with explained(self.url, self.protocol):
                paths = self.fs.ls(self.path(folder), detail=False, refresh=True)
        except ObjectMissingError:
            return []
        # S3 lists a folder's own marker with it: SeaweedFS leaves one where the last file went.
        own = self.path(folder).strip("/")
        names = {
            str(path).rstrip("/").rsplit("/", 1)[-1]
            for path in paths
            if str(path).strip("/") != own
        }
        return sorted(name for name in names if not name.startswith("."))

    def _put(self, object_id: str, source: bytes | Path, num_bytes: int) -> None:
        path = self.path(layout.object_path(object_id))
        # A small object is sent in the time that asking for it takes, and is young again after it.
        is_asked_for = self.protocol == "file" or num_bytes > _SENT_UNASKED_BYTES
        if is_asked_for and self.object_size(object_id) == num_bytes:
            if self.protocol == "file":  # used again, so young again: `gc` goes by it
                with contextlib.suppress(OSError):  # not the owner; the commit looks again anyway
                    os.utime(path)
            return
        with explained(self.url, self.protocol):
            if self.protocol == "file":
                write_local(path, source, exclusive=False)
            elif self.protocol == "memory" or isinstance(source, bytes):
                data = source if isinstance(source, bytes) else source.read_bytes()
                self.fs.pipe_file(path, data)
            else:
                self.fs.put_file(str(source), path)  # in parts; visible when the last one is there

    def path(self, key: str) -> str:
        """Where a key lies in the file system."""
        return f"{self.root}/{key}"


_READ_AHEAD: dict[str, dict[str, Any]] = {
    "s3": {"cache_type": "readahead", "block_size": 16 * 2**20},
}


def _read_range(files: Any, path: str, start: int, num_bytes: int) -> bytes:
    try:
        return bytes(files.cat_file(path, start=start, end=start + num_bytes))
    except OSError as error:
        if http_status(error) == _RANGE_NOT_SATISFIABLE:
            return b""
        raise
