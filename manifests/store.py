"""One bucket or folder with everything in it, reached through fsspec; create-if-absent decides.

The store needs one thing of its file system: a write that fails if the name is taken. How that is
had differs by protocol and is the only thing that does; see `_CREATE`.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from manifests import layout
from manifests.digest import canonical_json, sha256_hex
from manifests.errors import (
    MaskmillError,
    ObjectDamagedError,
    ObjectMissingError,
    StoreError,
)

FORMAT_VERSION = 1
_COPY_BYTES = 8 * 2**20
_memory_lock = threading.Lock()


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

    def __init__(self, url: str) -> None:
        """Opens without any request; call `check_is_store` to see whether one is there.

        Args:
            url: a folder, or any fsspec URL such as `s3://bucket/prefix` or `memory://name`.
        """
        self.url = url.rstrip("/") if "://" in url else str(Path(url).absolute())
        protocol = fsspec.utils.get_protocol(self.url)
        with explained(self.url, protocol):
            self.fs, root = fsspec.core.url_to_fs(self.url, **_OPTIONS.get(protocol, {}))
        self.root = str(root).rstrip("/")
        self.protocol = protocol

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return Store, (self.url,)

    # -- whole store -----------------------------------------------------------------------------

    def create(self) -> None:
        """Makes an empty store here, after proving that create-if-absent really excludes.

        Raises:
            StoreError: a store is here already, it cannot be reached, or it ignores conditions.
        """
        self.probe_conditional_writes()
        marker = canonical_json({"format": FORMAT_VERSION, "nonce": uuid.uuid4().hex})
        try:
            self.create_if_absent(layout.MARKER, marker)
        except NameTakenError as error:
            raise StoreError(f"a maskmill store is at {self.url} already; use it as it is") from (
                error
            )

    def check_is_store(self) -> None:
        """Raises StoreError unless `create` was done here, in a format this version reads."""
        raw = self.read_optional(layout.MARKER)
        if raw is None:
            raise StoreError(f"no maskmill store at {self.url}; make one with 'maskmill init'")
        if b'"format":%d,' % FORMAT_VERSION not in raw:
            raise StoreError(
                f"the store at {self.url} has another format than {FORMAT_VERSION}; "
                "use the maskmill version that wrote it"
            )

    def probe_conditional_writes(self) -> None:
        """Two writes to one new name; the second must fail.

        Some S3 servers accept `If-None-Match` and ignore it. On them two writers would both
        believe that they had moved a branch, so they are refused here.

        Raises:
            StoreError: the second write went through.
        """
        key = f"probe/{uuid.uuid4().hex}"
        self.create_if_absent(key, b"first")
        try:
            self.create_if_absent(key, b"second")
        except NameTakenError:
            return
        finally:
            with explained(self.url, self.protocol):
                self.fs.rm_file(self._path(key))
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
        create = _CREATE.get(self.protocol, _create_by_put)
        try:
            with explained(self.url, self.protocol):
                taken = not create(self, self._path(key), data)
        except StoreError as error:
            if not isinstance(error.__cause__, TimeoutError | ConnectionError):
                raise
            taken = not self._is_ours_after_silence(key, data, error)
        if taken:
            found = self.read_optional(key)
            if found != data:
                raise NameTakenError(key, found or b"")

    def _is_ours_after_silence(self, key: str, data: bytes, error: StoreError) -> bool:
        try:
            found = self.read_optional(key)
        except StoreError:
            found = None
        if found is None:
            raise WriteStateUnknownError(
                f"{self.url} did not answer while {key} was written: it may or may not be there"
            ) from error
        return found == data

    # -- objects ---------------------------------------------------------------------------------

    def put_bytes(self, data: bytes) -> StoredObject:
        """Stores an object, unless it is there, and returns its name."""
        object_id = sha256_hex(data)
        self._put(object_id, len(data), lambda: io.BytesIO(data))
        return StoredObject(object_id=object_id, num_bytes=len(data))

    def put_file(self, path: Path) -> StoredObject:
        """Stores a local file's content as an object without holding it in memory."""
        with path.open("rb") as file:
            object_id = hashlib.file_digest(file, "sha256").hexdigest()
        num_bytes = path.stat().st_size
        self._put(object_id, num_bytes, lambda: path.open("rb"))
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
        path = self._path(layout.object_path(object_id))
        with explained(self.url, self.protocol):
            return cast(BinaryIO, self.fs.open(path, "rb", **_READ_AHEAD.get(self.protocol, {})))

    def read_range(self, object_id: str, *, start: int, num_bytes: int) -> bytes:
        """Part of an object, with one range request. Not checked."""
        path = self._path(layout.object_path(object_id))
        with explained(self.url, self.protocol):
            return bytes(self.fs.cat_file(path, start=start, end=start + num_bytes))

    def object_size(self, object_id: str) -> int | None:
        """Bytes of an object, or None if it is not there."""
        try:
            with explained(self.url, self.protocol):
                return int(self.fs.size(self._path(layout.object_path(object_id))))
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
                return bytes(self.fs.cat_file(self._path(key)))
        except ObjectMissingError:
            return None

    def overwrite(self, key: str, data: bytes) -> None:
        """Replaces a small file. Only for result records whose object has gone."""
        with explained(self.url, self.protocol):
            if self.protocol == "file":
                _write_local(self._path(key), lambda: io.BytesIO(data), exclusive=False)
            else:
                self.fs.pipe_file(self._path(key), data)

    def list_names(self, folder: str) -> list[str]:
        """Sorted last path parts directly below a folder; [] if there is none."""
        try:
            with explained(self.url, self.protocol):
                paths = self.fs.ls(self._path(folder), detail=False, refresh=True)
        except ObjectMissingError:
            return []
        names = {str(path).rstrip("/").rsplit("/", 1)[-1] for path in paths}
        return sorted(name for name in names if not name.startswith("."))

    def _put(self, object_id: str, num_bytes: int, open_source: Callable[[], BinaryIO]) -> None:
        path = self._path(layout.object_path(object_id))
        if self.object_size(object_id) == num_bytes:
            return
        with explained(self.url, self.protocol):
            if self.protocol == "file":
                _write_local(path, open_source, exclusive=False)
            else:
                # An interrupted upload of either kind leaves no object behind.
                with open_source() as source, self.fs.open(path, "wb") as target:
                    while block := source.read(_COPY_BYTES):
                        target.write(block)

    def _path(self, key: str) -> str:
        return f"{self.root}/{key}"


# S3 listings are never cached (a reader must see the newest commit), and the client backs off with
# jitter when the server says "reduce your request rate" (fsspec/s3fs#865).
_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {
        "use_listings_cache": False,
        "config_kwargs": {
            "retries": {"mode": "adaptive", "max_attempts": 8},
            "connect_timeout": 10,
            "read_timeout": 60,
        },
    },
}
_READ_AHEAD: dict[str, dict[str, Any]] = {
    "s3": {"cache_type": "readahead", "block_size": 16 * 2**20},
}


def _write_local(path: str, open_source: Callable[[], BinaryIO], *, exclusive: bool) -> bool:
    """A finished, synced temporary file is linked (fails if taken) or renamed into place."""
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(folder, f".{uuid.uuid4().hex}.tmp")
    try:
        with open_source() as source, open(temporary, "xb") as target:
            while block := source.read(_COPY_BYTES):
                target.write(block)
            target.flush()
            os.fsync(target.fileno())
        if not exclusive:
            os.replace(temporary, path)
            return True
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        return True
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def _create_local(store: Store, path: str, data: bytes) -> bool:
    return _write_local(path, lambda: io.BytesIO(data), exclusive=True)


def _create_in_memory(store: Store, path: str, data: bytes) -> bool:
    with _memory_lock:
        if store.fs.exists(path):
            return False
        store.fs.pipe_file(path, data)
        return True


def _create_by_put(store: Store, path: str, data: bytes) -> bool:
    """One single-part PUT with `If-None-Match: *`; losers get FileExistsError or a bare 412."""
    try:
        store.fs.pipe_file(path, data, mode="create")
    except FileExistsError:
        return False
    except OSError as error:
        # SeaweedFS answers 412 PreconditionFailed, AWS at times 409 ConditionalRequestConflict.
        if "PreconditionFailed" in repr(error) or "At least one of the pre-conditions" in (
            str(error)
        ):
            return False
        if "ConditionalRequestConflict" in repr(error):
            return False
        raise
    return True


_CREATE: dict[str, Callable[[Store, str, bytes], bool]] = {
    "file": _create_local,
    "memory": _create_in_memory,
}


@contextmanager
def explained(url: str, protocol: str) -> Iterator[None]:
    """Turns a file system's errors into one sentence; secrets in them are never repeated."""
    silence, refusals = _client_errors(protocol)
    try:
        yield
    except MaskmillError:
        raise
    except FileNotFoundError as error:
        if "bucket" in str(error).lower():
            raise StoreError(f"{url}: the bucket does not exist; create it first") from error
        raise ObjectMissingError(f"{url}: not found: {error}") from error
    except PermissionError as error:
        raise StoreError(
            f"{url}: access denied; check the credentials and the bucket's policy"
        ) from error
    except refusals as error:
        raise StoreError(f"{url}: no usable credentials ({type(error).__name__})") from error
    except (*silence, TimeoutError, ConnectionError) as error:
        raise StoreError(
            f"{url}: no answer ({type(error).__name__}); check the address and the network"
        ) from (error if isinstance(error, TimeoutError | ConnectionError) else TimeoutError())
    except (ImportError, ValueError) as error:
        raise StoreError(f"{url}: cannot be opened: {error}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(f"{url}: the disk is full; free some space and run again") from error
        raise StoreError(f"{url}: {error.strerror or type(error).__name__}: {error}") from error


def _client_errors(
    protocol: str,
) -> tuple[tuple[type[Exception], ...], tuple[type[Exception], ...]]:
    """The S3 client's own exceptions: (no answer, no credentials)."""
    if protocol != "s3":
        return (), ()
    from botocore import exceptions as boto  # 60 ms that only S3 users pay

    silence = (boto.HTTPClientError, boto.ConnectionError)
    return silence, (
        boto.NoCredentialsError,
        boto.PartialCredentialsError,
        boto.TokenRetrievalError,
    )
