"""The disk cache: whole and bounded, whoever else uses it; and a store that does not answer."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from manifests.dataset import init
from manifests.errors import ObjectDamagedError, ObjectMissingError
from manifests.file_system import NoAnswerError
from manifests.layout import object_path
from manifests.store import Store, StoredObject
from student.data.cell_cache import CellCache
from student.data.patience import Patience
from tests.student.data.unsteady import UnsteadyStore

ROOT = Path(__file__).resolve().parents[3]


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.naps: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds

    def patience(self, total_s: float = 100.0) -> Patience:
        return Patience(total_s=total_s, sleep=self.sleep, clock=lambda: self.now)


@pytest.fixture
def far() -> UnsteadyStore:
    """A store that is not on this disk."""
    store = UnsteadyStore(f"memory://{uuid.uuid4().hex}")
    init(store)
    return store


def _cache(folder: Path, max_bytes: int = 10_000, time: Time | None = None) -> CellCache:
    return CellCache(folder / "cache", max_bytes=max_bytes, patience=(time or Time()).patience())


def _cached(cache: CellCache) -> set[str]:
    return {path.name for path in (cache.folder / "objects").glob("*/*")}


def _path(path: Path) -> Path:
    """Reads a file and names it."""
    path.read_bytes()
    return path


def _put(store: Store, size: int, seed: int = 0) -> StoredObject:
    return store.put_bytes(bytes([seed]) + bytes(range(256)) * (size // 256 + 1))


def test_ranges_are_the_same_from_store_and_cache(far: UnsteadyStore, tmp_path: Path) -> None:
    stored = _put(far, 5000)
    expected = far.get_bytes(stored.object_id)[1000:1300]
    cache = _cache(tmp_path)
    for _ in range(2):
        assert cache.read_range(far, stored, start=1000, num_bytes=300) == expected
        cache.wait_until_filled()
        assert _cached(cache) == {stored.object_id}
        far.is_gone = True  # the second time nothing is asked of the store


def test_a_local_store_is_not_copied(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    init(store)
    stored = _put(store, 5000)
    cache = _cache(tmp_path)
    assert cache.read_range(store, stored, start=1, num_bytes=4) == b"\x00\x01\x02\x03"
    cache.wait_until_filled()
    assert not cache.folder.exists()


def test_the_least_recently_used_goes_first(far: UnsteadyStore, tmp_path: Path) -> None:
    objects = [_put(far, 3000, seed) for seed in range(4)]
    cache = _cache(tmp_path)
    for age, stored in zip([3000, 5000, 4000], objects[:3], strict=True):
        cache.read_range(far, stored, start=0, num_bytes=10)
        cache.wait_until_filled()
        path = cache.folder / object_path(stored.object_id)
        os.utime(path, (time.time() - age,) * 2)
    cache.read_range(far, objects[3], start=0, num_bytes=10)
    cache.wait_until_filled()
    assert _cached(cache) == {objects[place].object_id for place in (0, 2, 3)}


def test_reading_is_use(far: UnsteadyStore, tmp_path: Path) -> None:
    stored = _put(far, 3000)
    cache = _cache(tmp_path)
    cache.read_range(far, stored, start=0, num_bytes=1)
    cache.wait_until_filled()
    path = cache.folder / object_path(stored.object_id)
    os.utime(path, (1, 1))
    cache.read_range(far, stored, start=0, num_bytes=1)
    assert time.time() - path.stat().st_mtime < 60


def test_what_is_in_use_is_not_thrown_out_for_what_is_wanted_next(
    far: UnsteadyStore, tmp_path: Path
) -> None:
    """Random order over more than fits must not fetch a whole object for every image."""
    objects = [_put(far, 3000, seed) for seed in range(10)]
    cache = _cache(tmp_path)
    for _ in range(5):
        for seed, stored in enumerate(objects):
            assert cache.read_range(far, stored, start=0, num_bytes=1) == bytes([seed])
            cache.wait_until_filled()
    assert len(_cached(cache)) == 3
    num_bytes = sum(path.stat().st_size for path in (cache.folder / "objects").glob("*/*"))
    assert num_bytes <= 10_000
    assert far.num_bytes < 3 * 3500 + 50  # three objects, and single bytes of the others


def test_damage_on_the_way_is_not_kept(
    far: UnsteadyStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored = _put(far, 5000)
    far.fs.pipe_file(far.path(object_path(stored.object_id)), b"x" * stored.num_bytes)
    cache = _cache(tmp_path)
    with caplog.at_level(logging.WARNING):
        cache.read_range(far, stored, start=0, num_bytes=10)
        cache.wait_until_filled()
    assert "do not hash to its name" in caplog.text
    assert _cached(cache) == set()


def test_missing_and_short_objects_are_told_at_once(far: UnsteadyStore, tmp_path: Path) -> None:
    clock = Time()
    cache = _cache(tmp_path, time=clock)
    stored = _put(far, 500)
    with pytest.raises(ObjectDamagedError, match="ends early"):
        cache.read_range(far, stored, start=0, num_bytes=50_000)
    with pytest.raises(ObjectMissingError):
        cache.read_range(far, StoredObject(object_id="a" * 64, num_bytes=9), start=0, num_bytes=9)
    cache.wait_until_filled()
    assert clock.naps == []


def test_a_store_that_is_away_for_a_minute_is_waited_for(
    far: UnsteadyStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Time()
    stored = _put(far, 5000)
    cache = _cache(tmp_path, max_bytes=0, time=clock)
    far.failures = 6
    with caplog.at_level(logging.WARNING):
        assert cache.read_range(far, stored, start=0, num_bytes=1) == b"\x00"
    assert clock.naps == [1, 2, 4, 8, 16, 30]
    assert "asking again in 16 s" in caplog.text
    assert "answered after 61 s" in caplog.text


def test_patience_has_an_end(far: UnsteadyStore, tmp_path: Path) -> None:
    clock = Time()
    stored = _put(far, 5000)
    cache = CellCache(tmp_path / "cache", max_bytes=0, patience=clock.patience(total_s=20))
    far.failures = 1000
    with pytest.raises(NoAnswerError, match="no answer"):
        cache.read_range(far, stored, start=0, num_bytes=1)
    assert clock.now <= 20
    cache.wait_until_filled()


def test_waiting_is_told(caplog: pytest.LogCaptureFixture) -> None:
    clock = Time()
    answers = iter([NoAnswerError("away"), "there"])

    def ask() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with caplog.at_level(logging.WARNING):
        assert clock.patience().ask(ask, what="reading") == "there"
    assert clock.naps == [1]
    assert [record.message for record in caplog.records] == [
        "reading: away; asking again in 1 s",
        "reading: answered after 1 s",
    ]


# -- files that are made ---------------------------------------------------------------------------


def test_made_once_and_again_after_it_was_thrown_out(tmp_path: Path) -> None:
    cache = _cache(tmp_path, max_bytes=100)
    calls = []

    def make(path: Path) -> None:
        calls.append(path)
        path.write_bytes(b"x" * 80)

    first = cache.made("a" * 64, make, _path)
    assert cache.made("a" * 64, make, _path) == first
    assert len(calls) == 1
    second = cache.made("b" * 64, make, _path)  # there is room for one
    assert second.exists()
    assert not first.exists()
    assert cache.made("a" * 64, make, Path.read_bytes) == b"x" * 80
    assert len(calls) == 3


def test_masks_in_use_take_the_place_of_images_in_use(far: UnsteadyStore, tmp_path: Path) -> None:
    stored = _put(far, 5000)
    cache = _cache(tmp_path)
    cache.read_range(far, stored, start=0, num_bytes=1)
    cache.wait_until_filled()
    for key in ("a", "b"):
        cache.made(key * 64, lambda path: path.write_bytes(b"x" * 4000) and None, Path.read_bytes)
    assert _cached(cache) == set()
    assert len(list((cache.folder / "made").glob("*/*"))) == 2


def test_too_small_for_masks_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = _cache(tmp_path, max_bytes=100)
    with caplog.at_level(logging.WARNING):
        for key in "abcabc":
            cache.made(key * 64, lambda path: path.write_bytes(b"x" * 80) and None, Path.read_bytes)
    assert caplog.text.count("raise data.cache_bytes above 100") == 1


def test_what_finds_no_room_throws_nothing_out(far: UnsteadyStore, tmp_path: Path) -> None:
    small, large = _put(far, 3000, 1), _put(far, 30_000, 2)
    cache = _cache(tmp_path)
    cache.read_range(far, small, start=0, num_bytes=1)
    cache.wait_until_filled()
    os.utime(cache.folder / object_path(small.object_id), (1, 1))
    cache.read_range(far, large, start=0, num_bytes=1)
    cache.wait_until_filled()
    assert _cached(cache) == {small.object_id}


def test_nothing_is_left_of_what_could_not_be_made(tmp_path: Path) -> None:
    cache = _cache(tmp_path)

    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise ObjectDamagedError("no")

    with pytest.raises(ObjectDamagedError):
        cache.made("a" * 64, fail, Path.read_bytes)
    assert list((cache.folder / "made").glob("*/*")) == []


def test_leftovers_of_the_dead_are_cleared(tmp_path: Path) -> None:
    cache = _cache(tmp_path)
    orphan = cache.folder / "made" / "aa" / "dead.tmp"
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"half")
    os.utime(orphan, (time.time() - 5000,) * 2)
    cache.made("a" * 64, lambda path: path.write_bytes(b"x") and None, Path.read_bytes)
    assert not orphan.exists()


_PROCESS = """
import sys, time
from pathlib import Path
from student.data.cell_cache import CellCache

folder = Path(sys.argv[1])

def make(path):
    with (folder / "log").open("a") as log:
        log.write("made\\n")
    path.write_bytes(b"half")
    time.sleep(0.3)
    path.write_bytes(b"whole")

while not (folder / "go").exists():
    time.sleep(0.01)
cache = CellCache(folder / "cache", max_bytes=1000)
assert cache.made("c" * 64, make, Path.read_bytes) == b"whole"
"""


def test_many_processes_make_it_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _PROCESS, str(tmp_path)]
    processes = [subprocess.Popen(command, cwd=ROOT) for _ in range(3)]
    time.sleep(0.5)
    (tmp_path / "go").touch()
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "made\n"
