"""The driver loses nothing: retries, dead workers, deadlines, bisection, resume."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest

from engine.driver import Driver, DriverConfig
from engine.pool import InlinePool, PoolConfig, WorkerPool, open_pool
from engine.task import Progress
from manifests.digest import canonical_json, digest_of
from manifests.errors import InputError, JobError
from manifests.manifest import Cell
from manifests.results import ResultRecord, find_result, publish_result
from manifests.store import Store

IMPATIENT = DriverConfig(backoff_s=0.01, deadline_s=3.0, deadline_s_per_image=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class WordsPayload:
    """Words to "label"; some words make the worker misbehave."""

    words: tuple[str, ...]
    start: int = 0
    whole: str = ""
    failures: Mapping[int, str] = field(default_factory=dict)

    @property
    def work_key(self) -> str:
        return digest_of({"whole": self.whole, "start": self.start, "words": list(self.words)})

    @property
    def name(self) -> str:
        return " ".join(self.words)

    @property
    def num_items(self) -> int:
        return len(self.words)

    def part(self, start: int, stop: int) -> WordsPayload:
        words = self.words[start:stop]
        return replace(self, words=words, start=self.start + start, whole=self.work_key)

    def assembled(self, parts: Sequence[str], failures: Mapping[int, str]) -> WordsPayload:
        return replace(self, failures=dict(failures))


class WordsWorker:
    """Upper-cases words, and logs every word it touches."""

    def __init__(self, store: Store, log: Path) -> None:
        self._store, self._log = store, log
        self.progress = Progress()

    def run(self, payload: object) -> ResultRecord:
        if not isinstance(payload, WordsPayload):
            raise TypeError(payload)
        result = []
        for position, word in enumerate(payload.words):
            with self._log.open("a") as log:
                log.write(f"{word}\n")
            reason = payload.failures.get(payload.start + position)
            result.append(f"failed {reason}" if reason else self._do(word))
        stored = self._store.put_bytes(canonical_json(result))
        cell = Cell(
            shard="s", layer="words", object_id=stored.object_id,
            num_rows=len(result), num_bytes=stored.num_bytes,
        )  # fmt: skip
        return publish_result(self._store, payload.work_key, ResultRecord(cells=(cell,)))

    def _do(self, word: str) -> str:
        if word == "raise":
            raise ValueError("no mask for this one")
        if word == "fatal":
            raise InputError("no such setting")
        if word == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "hang":
            time.sleep(600)
        if word == "flaky":
            marker = self._log.with_suffix(".flaky")
            if not marker.exists():
                marker.touch()
                raise OSError("once only")
        return word.upper()


def build(url: str, log: Path) -> WordsWorker:
    return WordsWorker(Store(url), log)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def inline(store: Store, log: Path) -> InlinePool:
    return InlinePool(partial(build, store.url, log))


@pytest.fixture
def ray_pool(store: Store, log: Path) -> Iterator[WorkerPool]:
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        with open_pool(
            partial(build, store.url, log), config=PoolConfig(workers=2, cpus_per_worker=1),
            default_cpus=1, num_tasks=2,
        ) as pool:  # fmt: skip
            yield pool
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def outcome(store: Store, record: ResultRecord) -> list[str]:
    words: list[str] = json.loads(store.get_bytes(record.cells[0].object_id))
    return words


def run(
    store: Store, pool: WorkerPool, *shards: str, config: DriverConfig = IMPATIENT
) -> list[str]:
    payloads = [WordsPayload(words=tuple(words.split())) for words in shards]
    records = Driver(store, pool, config=config).run(payloads)
    return [" ".join(outcome(store, record)) for record in records]


def test_records_come_in_the_order_of_payloads(store: Store, inline: InlinePool) -> None:
    assert run(store, inline, "a b", "c", "d e f") == ["A B", "C", "D E F"]


def test_no_tasks_is_no_work(store: Store, inline: InlinePool) -> None:
    assert run(store, inline) == []


def test_done_work_is_found_and_not_repeated(store: Store, inline: InlinePool, log: Path) -> None:
    run(store, inline, "a b", "c d")
    log.unlink()
    assert run(store, inline, "a b", "x", "c d") == ["A B", "X", "C D"]
    assert log.read_text() == "x\n"


def test_a_transient_failure_is_tried_again(store: Store, inline: InlinePool) -> None:
    assert run(store, inline, "a flaky b") == ["A FLAKY B"]


@pytest.mark.parametrize("words", ["raise", "raise b", "a raise", "a b raise d e", "raise b raise"])
def test_a_poisonous_image_fails_alone(store: Store, inline: InlinePool, words: str) -> None:
    expected = words.upper().replace("RAISE", "failed unexpected_error")
    assert run(store, inline, words) == [expected]


def test_a_bisected_shard_has_the_key_of_the_whole(store: Store, inline: InlinePool) -> None:
    run(store, inline, "a raise c")
    assert find_result(store, WordsPayload(words=("a", "raise", "c")).work_key)


def test_an_interrupted_bisection_keeps_its_finished_parts(
    store: Store, inline: InlinePool, log: Path
) -> None:
    whole = WordsPayload(words=("a", "b", "c", "raise"))
    WordsWorker(store, log).run(whole.part(0, 2))
    log.unlink()
    run(store, inline, "a b c raise", config=replace(IMPATIENT, max_attempts=1))
    # a: the first try of the whole and the last; not as part of the left half.
    assert log.read_text().split().count("a") == 2


def test_a_broken_set_up_stops_the_job(store: Store, inline: InlinePool) -> None:
    with pytest.raises(JobError, match=r"2 images failed.*allows 1"):
        run(store, inline, "raise a raise b", config=replace(IMPATIENT, max_failed_images=1))


def test_a_wrong_configuration_is_not_repeated(store: Store, inline: InlinePool, log: Path) -> None:
    with pytest.raises(JobError, match="no such setting"):
        run(store, inline, "fatal")
    assert log.read_text() == "fatal\n"


def test_progress_ends_with_everything_done(store: Store, inline: InlinePool) -> None:
    seen = []
    driver = Driver(store, inline, config=IMPATIENT, on_progress=seen.append)
    driver.run([WordsPayload(words=("a", "b")), WordsPayload(words=("c",))])
    assert (seen[-1].num_images, seen[-1].num_images_done) == (3, 3)
    assert (seen[-1].num_tasks, seen[-1].num_tasks_done) == (2, 2)


def test_ray_survives_dead_and_hanging_workers(store: Store, ray_pool: WorkerPool) -> None:
    """SIGKILLed and hanging actors are replaced, and only the guilty images fail."""
    shards = ("a b", "c die e", "f hang", "g flaky", "h raise")
    found = run(store, ray_pool, *shards, config=replace(IMPATIENT, max_attempts=2))
    assert found == [
        "A B",
        "C failed worker_died E",
        "F failed deadline_exceeded",
        "G FLAKY",
        "H failed unexpected_error",
    ]


def test_ray_gives_up_a_task_without_progress(store: Store, ray_pool: WorkerPool) -> None:
    patient = replace(IMPATIENT, deadline_s=500.0, stall_s=2.0, max_attempts=1)
    assert run(store, ray_pool, "hang", config=patient) == ["failed deadline_exceeded"]


def test_ray_says_why_no_worker_starts(store: Store, tmp_path: Path) -> None:
    from ray import cloudpickle

    def cannot_build() -> WordsWorker:
        raise InputError("these weights are for another teacher")

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    config = PoolConfig(workers=1, cpus_per_worker=1)
    with (
        pytest.raises(JobError, match="another teacher"),
        open_pool(cannot_build, config=config, default_cpus=1, num_tasks=1) as pool,
    ):
        run(store, pool, "a")
