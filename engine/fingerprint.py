"""Fingerprint: read every image's bytes once, before planning, so that content decides identity.

What an image *is* (its id), which images are the same picture, and how full a shard gets all
depend on bytes that only a read can tell. The second read, when shards are packed, finds them in
the page cache or costs one more GET; in return a plan never has to be undone.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Self

import pyarrow as pa

from engine.image_root import MISSING, ImageRoot, UnsafeNameError, why_unreadable
from engine.task import Progress
from manifests.digest import content_id
from manifests.errors import JobError
from manifests.manifest import Cell
from manifests.parquet import table_to_parquet
from manifests.results import ResultRecord, publish_result, work_key
from manifests.store import Store

CHUNK_FILES = 1000
VERSION = 1

FINGERPRINTS = pa.schema(
    [
        pa.field("entry", pa.int64(), nullable=False),
        pa.field("image_id", pa.string()),
        pa.field("num_bytes", pa.int64()),
        pa.field("failure", pa.string()),
        pa.field("detail", pa.string()),
    ]
)
_READERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class FingerprintPayload:
    """Files to read: (entry, file name) pairs below `root`; `missing`: entries known to be gone."""

    work_key: str
    root: ImageRoot
    files: tuple[tuple[int, str], ...]
    missing: frozenset[int] = frozenset()
    failures: Mapping[int, str] | None = None

    @property
    def name(self) -> str:
        return f"fingerprint {len(self.files)} files from entry {self.files[0][0]}"

    @property
    def num_items(self) -> int:
        return len(self.files)

    def part(self, start: int, stop: int) -> Self:
        """See `engine.task.Payload.part`; a part's own result is never used."""
        key = work_key(
            operation="fingerprint-part", version=VERSION, inputs=[self.work_key],
            config={"start": start, "stop": stop, "nonce": uuid.uuid4().hex},
        )  # fmt: skip
        return replace(self, work_key=key, files=self.files[start:stop])

    def assembled(self, parts: Sequence[str], failures: Mapping[int, str]) -> Self:
        """See `engine.task.Payload.assembled`."""
        return replace(self, failures=dict(failures))


def plan_fingerprints(
    root: ImageRoot, files: Sequence[tuple[int, str]]
) -> list[FingerprintPayload]:
    """Payloads of at most CHUNK_FILES files.

    The key holds each local file's size and time of change, so an interrupted ingest goes on where
    it was and a changed file is read again. Remote files are read again in every ingest: asking
    each for its stamp would cost as many requests.
    """
    payloads = []
    for start in range(0, len(files), CHUNK_FILES):
        chunk = tuple(files[start : start + CHUNK_FILES])
        stamps = [root.stamp(name) or uuid.uuid4().hex for _, name in chunk]
        key = work_key(
            operation="fingerprint", version=VERSION, inputs=[root.url],
            config={"files": [list(file) for file in chunk], "stamps": stamps},
        )  # fmt: skip
        missing = frozenset(
            entry for (entry, _), stamp in zip(chunk, stamps, strict=True) if stamp == MISSING
        )
        payloads.append(FingerprintPayload(work_key=key, root=root, files=chunk, missing=missing))
    return payloads


class FingerprintWorker:
    """See `engine.task.Worker`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._progress = Progress()

    @property
    def progress(self) -> Progress:
        return self._progress

    def run(self, payload: object) -> ResultRecord:
        """Reads and digests the payload's files; the result is a FINGERPRINTS table."""
        if not isinstance(payload, FingerprintPayload):
            raise JobError(f"expected a FingerprintPayload, got {type(payload).__name__}")
        self._progress = Progress()
        with ThreadPoolExecutor(_READERS) as readers:
            columns = list(zip(*self._read_all(payload, readers), strict=True))
        table = pa.table([list(column) for column in columns], schema=FINGERPRINTS)
        stored = self._store.put_bytes(table_to_parquet(table))
        cell = Cell(
            shard="", layer="fingerprints", object_id=stored.object_id,
            num_rows=table.num_rows, num_bytes=stored.num_bytes,
        )  # fmt: skip
        record = ResultRecord(cells=(cell,))
        if not _is_final(table, payload):
            return record
        return publish_result(self._store, payload.work_key, record)

    def _read_all(
        self, payload: FingerprintPayload, readers: ThreadPoolExecutor
    ) -> Iterator[tuple[int, str | None, int | None, str | None, str | None]]:
        known = payload.failures or {}

        def read(item: tuple[int, tuple[int, str]]) -> tuple[str | None, int | None, str, str]:
            position, (_, name) = item
            if position in known:
                return None, None, known[position], ""
            return _fingerprint(payload.root, name)

        for (entry, _), found in zip(
            payload.files, readers.map(read, enumerate(payload.files)), strict=True
        ):
            image_id, num_bytes, failure, detail = found
            yield entry, image_id, num_bytes, failure or None, detail or None
            self._progress = Progress(num_images=self._progress.num_images + 1)


def _is_final(table: pa.Table, payload: FingerprintPayload) -> bool:
    """Whether the files as they are decide the outcome, so that nobody need read them again.

    A worker without the folder, a right that is missing, a network that is down: once mended, the
    files have the same stamps, and must be read all the same.
    """
    failed = table.filter(table["failure"].is_valid()).select(["entry", "failure"]).to_pylist()
    return all(
        row["failure"] in ("empty_file", "unsafe_file_name")
        or (row["failure"] == "missing_file" and row["entry"] in payload.missing)
        for row in failed
    )


def _fingerprint(root: ImageRoot, name: str) -> tuple[str | None, int | None, str, str]:
    """(image id, bytes, failure, detail)."""
    try:
        data = root.read(name)
    except FileNotFoundError:
        return None, None, "missing_file", name
    except UnsafeNameError as error:
        return None, None, "unsafe_file_name", str(error)
    except (OSError, ValueError) as error:
        return None, None, "unreadable_file", why_unreadable(error)
    if not data:
        return None, None, "empty_file", name
    return content_id(data), len(data), "", ""
