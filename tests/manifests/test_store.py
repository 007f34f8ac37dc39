"""One store on a disk, in memory and on a real S3 server: the same promises on all three."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event

import pytest

from manifests import layout
from manifests.errors import ObjectDamagedError, ObjectMissingError, RefError, StoreError
from manifests.store import NameTakenError, Store
from tests.manifests.private_mount import TINY, run_mounted

_RACER = """
import sys
from manifests.store import NameTakenError, Store

store, name = Store(sys.argv[1]), sys.argv[2]
store.is_there()  # connected before the start
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[3])):
    try:
        store.create_if_absent(f"race/{number}", name.encode())
        print(number, flush=True)
    except NameTakenError:
        pass
"""

_WRITER = """
import os, sys
from manifests.store import Store

store = Store(sys.argv[1])
print("ready", flush=True)
while True:
    store.put_bytes(os.urandom(16) * 4000)
    store.create_if_absent(f"log/{os.urandom(8).hex()}", b"whole" * 4000)
"""


@pytest.fixture
def store(store_url: str) -> Store:
    return Store(store_url)


def _python(code: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


class TestOneName:
    def test_second_write_is_refused_and_changes_nothing(self, store: Store) -> None:
        store.create_if_absent("a/b", b"first")
        with pytest.raises(NameTakenError, match="a/b exists already") as caught:
            store.create_if_absent("a/b", b"second")
        assert caught.value.found == b"first"
        assert store.read_optional("a/b") == b"first"

    def test_same_bytes_again_count_as_done(self, store: Store) -> None:
        store.create_if_absent("a", b"same")
        store.create_if_absent("a", b"same")

    def test_overwrite_replaces(self, store: Store) -> None:
        store.create_if_absent("a", b"old")
        store.overwrite("a", b"new")
        assert store.read_optional("a") == b"new"

    def test_empty_bytes(self, store: Store) -> None:
        store.create_if_absent("empty", b"")
        assert store.read_optional("empty") == b""
        with pytest.raises(NameTakenError):
            store.create_if_absent("empty", b"x")

    def test_threads_race_and_one_wins(self, store: Store) -> None:
        barrier = Barrier(8)

        def write(name: str) -> str | None:
            barrier.wait(30)
            try:
                store.create_if_absent("race", name.encode() * 1000)
            except NameTakenError as error:
                return None if len(error.found) == 1000 else "saw a part"
            return name

        with ThreadPoolExecutor(8) as pool:
            winners = [name for name in pool.map(write, "abcdefgh") if name]
        assert len(winners) == 1
        assert store.read_optional("race") == winners[0].encode() * 1000

    @pytest.mark.parametrize("kind", ["file", "s3"])
    def test_processes_race_and_one_wins(
        self, kind: str, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        url = str(tmp_path) if kind == "file" else str(request.getfixturevalue("s3_url"))
        racers = {name: _python(_RACER, url, name, "5") for name in "xyz"}
        for racer in racers.values():
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers.values():
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        won = {name: racer.communicate(timeout=60)[0].split() for name, racer in racers.items()}
        assert all(racer.returncode == 0 for racer in racers.values())
        assert sorted(int(number) for numbers in won.values() for number in numbers) == list(
            range(5)
        )
        for name, numbers in won.items():
            for number in numbers:
                assert Store(url).read_optional(f"race/{number}") == name.encode()

    def test_reader_sees_all_or_nothing(self, store: Store) -> None:
        data = os.urandom(1_000_000)
        object_id = hashlib.sha256(data).hexdigest()
        done = Event()

        def watch() -> set[int]:
            seen = set()
            while not done.is_set():
                seen.add(len(store.read_optional("big") or b""))
                seen.add(store.object_size(object_id) or 0)
            return seen

        with ThreadPoolExecutor(1) as pool:
            watcher = pool.submit(watch)
            time.sleep(0.05)
            store.create_if_absent("big", data)
            store.put_bytes(data)
            time.sleep(0.05)
            done.set()
            assert watcher.result(30) <= {0, len(data)}


class TestObjects:
    def test_round_trip(self, store: Store, tmp_path: Path) -> None:
        stored = store.put_bytes(b"hello")
        assert stored.object_id == hashlib.sha256(b"hello").hexdigest()
        assert store.get_bytes(stored.object_id) == b"hello"
        assert store.object_size(stored.object_id) == stored.num_bytes == 5
        (tmp_path / "file").write_bytes(b"hello" * 100_000)
        from_file = store.put_file(tmp_path / "file")
        assert store.get_bytes(from_file.object_id) == b"hello" * 100_000
        assert store.put_bytes(b"hello" * 100_000) == from_file

    def test_in_parts(self, s3_url: str, tmp_path: Path) -> None:
        data = os.urandom(1_000_003) * 101  # above s3fs's limit for a single request
        (tmp_path / "file").write_bytes(data)
        store = Store(s3_url)
        stored = store.put_file(tmp_path / "file")
        assert store.object_size(stored.object_id) == len(data)
        assert store.read_range(stored.object_id, start=len(data) - 9, num_bytes=9) == data[-9:]

    def test_streams_and_ranges(self, store: Store) -> None:
        data = bytes(range(256)) * 1000
        object_id = store.put_bytes(data).object_id
        with store.open_object(object_id) as one, store.open_object(object_id) as two:
            one.seek(1000)
            two.seek(70)
            assert one.read(500) == data[1000:1500]
            assert two.read(30) == data[70:100]
        assert store.read_range(object_id, start=255, num_bytes=3) == b"\xff\x00\x01"
        assert store.read_range(object_id, start=255, num_bytes=0) == b""

    @pytest.mark.parametrize("start", [250, 256, 10_000])
    def test_range_beyond_the_end(self, store: Store, start: int) -> None:
        object_id = store.put_bytes(bytes(256)).object_id
        with pytest.raises(ObjectDamagedError, match="ends early: expected 10 bytes at"):
            store.read_range(object_id, start=start, num_bytes=10)

    def test_missing(self, store: Store) -> None:
        absent = "0" * 64
        assert store.object_size(absent) is None
        with pytest.raises(ObjectMissingError, match="object 000000000000 is missing in"):
            store.get_bytes(absent)
        with pytest.raises(ObjectMissingError):
            store.open_object(absent)
        with pytest.raises(ObjectMissingError):
            store.read_range(absent, start=0, num_bytes=1)

    @pytest.mark.parametrize("bad", [b"hellO", b"hel", b""])
    def test_damaged(self, store: Store, bad: bytes) -> None:
        object_id = store.put_bytes(b"hello").object_id
        store.overwrite(layout.object_path(object_id), bad)
        with pytest.raises(ObjectDamagedError, match=f"its {len(bad)} bytes do not hash"):
            store.get_bytes(object_id)

    def test_object_of_another_size_is_replaced(self, store: Store) -> None:
        object_id = store.put_bytes(b"hello").object_id
        store.overwrite(layout.object_path(object_id), b"hel")
        store.put_bytes(b"hello")
        assert store.get_bytes(object_id) == b"hello"

    def test_upload_that_breaks_off_leaves_nothing(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "source").write_bytes(b"x" * 1000)
        with pytest.raises(IsADirectoryError):
            store.put_file(tmp_path)
        assert store.list_names("objects") == []

    def test_find_by_beginning(self, store: Store) -> None:
        object_id = store.put_bytes(b"hello").object_id
        assert store.find_objects(object_id[:4]) == [object_id]
        assert store.find_objects(object_id) == [object_id]
        assert store.find_objects("ffff") == []
        for prefix in ("", object_id[:3], "../.", "....", object_id[:6].upper(), "*" * 6):
            assert store.find_objects(prefix) == []


class TestListing:
    def test_direct_children_only_and_sorted(self, store: Store) -> None:
        for key in ("d/b", "d/a", "d/sub/deep", "dx/other"):
            store.create_if_absent(key, b"1")
        assert store.list_names("d") == ["a", "b", "sub"]
        assert store.list_names("nothing/here") == []

    def test_more_than_one_page(self, s3_url: str) -> None:
        store = Store(s3_url)
        names = [f"{number:04d}" for number in range(1003)]
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda name: store.overwrite(f"many/{name}", b"1"), names))
        assert store.list_names("many") == names

    def test_newest_is_seen_at_once(self, store_url: str) -> None:
        reader, writer = Store(store_url), Store(store_url)
        for number in range(3):
            writer.create_if_absent(f"log/{number}", b"1")
            assert reader.list_names("log")[-1] == str(number)

    def test_temporary_files_are_hidden(self, tmp_path: Path) -> None:
        store = Store(str(tmp_path))
        store.create_if_absent("log/1", b"1")
        (tmp_path / "log" / f".{uuid.uuid4().hex}.tmp").write_bytes(b"half")
        assert store.list_names("log") == ["1"]


class TestCreate:
    def test_once(self, store: Store) -> None:
        with pytest.raises(StoreError, match=r"no maskmill store at .* 'maskmill init'"):
            store.check_is_store()
        store.create()
        store.check_is_store()
        assert store.list_names("probe") == []
        with pytest.raises(StoreError, match=r"a maskmill store is at .* already"):
            store.create()

    def test_another_format(self, store: Store) -> None:
        store.create_if_absent(layout.MARKER, b'{"format":7}')
        with pytest.raises(StoreError, match="has format 7, expected 1"):
            store.check_is_store()

    @pytest.mark.parametrize("marker", [b"", b"\xff", b"[]", b"{}", b"null"])
    def test_damaged_marker(self, store: Store, marker: bytes) -> None:
        store.overwrite(layout.MARKER, marker)
        with pytest.raises(ObjectDamagedError, match=r"maskmill\.json is damaged"):
            store.check_is_store()


class TestAddress:
    @pytest.mark.parametrize("url", ["", "/", "///", "s3://", "memory://", "file:///", "s3:///"])
    def test_that_names_no_place(self, url: str) -> None:
        with pytest.raises(StoreError, match="names no place"):
            Store(url)

    def test_with_a_password_is_not_repeated(self) -> None:
        with pytest.raises(StoreError, match="holds a password") as caught:
            Store("s3://key:hunter2@bucket/prefix")
        assert "hunter2" not in str(caught.value)

    def test_unknown_protocol(self) -> None:
        with pytest.raises(StoreError, match="cannot be opened: Protocol not known: gopher"):
            Store("gopher://hole")

    def test_spellings_of_one_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        Store("here").create_if_absent("a", b"1")
        for url in (f"{tmp_path}/here/", f"file://{tmp_path}/here", f"local://{tmp_path}/here"):
            assert Store(url).protocol == "file"
            assert Store(url).read_optional("a") == b"1"
        assert Path(Store("here").url).is_absolute()

    @pytest.mark.parametrize("bad", ["../../etc/passwd", "", "A" * 64, "0" * 63, "0" * 64 + "\n"])
    def test_object_id_cannot_leave_its_folder(self, tmp_path: Path, bad: str) -> None:
        with pytest.raises(RefError, match="expected 64 hex digits"):
            Store(str(tmp_path)).get_bytes(bad)


class TestProcesses:
    def test_pickles(self, store_url: str) -> None:
        store = Store(store_url)
        store.create_if_absent("a", b"1")
        again = pickle.loads(pickle.dumps(store))  # noqa: S301
        assert again.url == store.url
        assert again.read_optional("a") == b"1"

    @pytest.mark.parametrize("kind", ["file", "s3"])
    def test_works_after_a_fork(
        self, kind: str, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        url = str(tmp_path) if kind == "file" else str(request.getfixturevalue("s3_url"))
        store = Store(url)
        store.create_if_absent("parent", b"1")
        process = multiprocessing.get_context("fork").Process(
            target=_copy, args=(store, "parent", "child")
        )
        process.start()
        process.join(60)
        assert process.exitcode == 0
        started = time.monotonic()
        assert store.read_optional("child") == b"1"
        # The parent once waited for its read timeout, as the child had closed its connections.
        assert time.monotonic() - started < 20

    def test_many_threads(self, store: Store) -> None:
        def round_trip(number: int) -> bool:
            data = number.to_bytes(4, "little") * 1000
            return store.get_bytes(store.put_bytes(data).object_id) == data

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(round_trip, range(40)))

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", ["file", "s3"])
    def test_killed_writer_leaves_only_whole_files(
        self, kind: str, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        url = str(tmp_path) if kind == "file" else str(request.getfixturevalue("s3_url"))
        store = Store(url)
        for round_number in range(6):
            writer = _python(_WRITER, url)
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            time.sleep(0.02 + 0.037 * round_number)
            writer.send_signal(signal.SIGKILL)
            writer.communicate(timeout=30)
        for name in store.list_names("log"):
            assert store.read_optional(f"log/{name}") == b"whole" * 4000
        for folder in store.list_names("objects"):
            for object_id in store.list_names(f"objects/{folder}"):
                store.get_bytes(object_id)


def _copy(store: Store, source: str, target: str) -> None:
    store.create_if_absent(target, store.read_optional(source) or b"")


class TestFullDisk:
    _FILL = """
import json, pathlib, sys
from manifests.errors import StoreError
from manifests.store import Store

store, seen = Store(sys.argv[1]), []
for write in (store.put_bytes, lambda data: store.create_if_absent("key", data)):
    try:
        write(bytes(5_000_000))
        seen.append("no error")
    except StoreError as error:
        seen.append(str(error))
left = [str(path) for path in pathlib.Path(sys.argv[1]).rglob("*") if path.is_file()]
store.create_if_absent("small", b"fits")
print(json.dumps({"seen": seen, "left": left}))
"""

    def test_is_said_and_leaves_nothing(self, tmp_path: Path) -> None:
        done = run_mounted(TINY, tmp_path, self._FILL, str(tmp_path))
        found = json.loads(done.stdout)
        expected = f"{tmp_path}: the disk is full; free some space and run again"
        assert found == {"seen": [expected, expected], "left": []}


class TestLocalRefusals:
    def test_a_file_where_a_folder_should_be(self, tmp_path: Path) -> None:
        (tmp_path / "objects").write_text("in the way")
        with pytest.raises(StoreError, match=r"(File exists|Not a directory) at .*; see to it"):
            Store(str(tmp_path)).put_bytes(b"1")

    def test_read_only_place(self) -> None:
        with pytest.raises(StoreError, match=r"^/proc/"):
            Store("/proc/maskmill").create()
