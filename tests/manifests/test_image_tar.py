"""Images tars: read by tarfile, webdataset and by offset; the same images give the same bytes."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from manifests.errors import InputError, ObjectDamagedError, ObjectMissingError
from manifests.image_tar import ImageTarWriter, stream_images
from manifests.store import Store

_IMAGES = [
    ("a" * 32, "jpg", b"\xff\xd8" + b"1" * 700),
    ("b" * 32, "png", b""),
    ("c" * 32, "webp", b"3" * 512),
    ("long/" + "d" * 90 + "/" + "e" * 60, "jpg", b"4" * 1025),  # into USTAR's prefix field
]


def _write(path: Path, images: list[tuple[str, str, bytes]]) -> list[tuple[int, int]]:
    with ImageTarWriter(path) as writer:
        return [
            (writer.add(image_id=image_id, extension=extension, data=data), len(data))
            for image_id, extension, data in images
        ]


def test_offsets_are_where_tarfile_finds_the_data(tmp_path: Path) -> None:
    spans = _write(tmp_path / "tar", _IMAGES)
    with tarfile.open(tmp_path / "tar") as tar:
        members = tar.getmembers()
    assert [(member.offset_data, member.size) for member in members] == spans
    assert [member.name for member in members] == [f"{name}.{end}" for name, end, _ in _IMAGES]
    raw = (tmp_path / "tar").read_bytes()
    assert [raw[start : start + size] for start, size in spans] == [data for *_, data in _IMAGES]


def test_webdataset_reads_it(tmp_path: Path) -> None:
    _write(tmp_path / "images.tar", _IMAGES[:3])
    found = list(webdataset.WebDataset(str(tmp_path / "images.tar"), shardshuffle=False))
    assert [
        (sample["__key__"], sample[end])
        for sample, (_, end, _) in zip(found, _IMAGES, strict=False)
    ] == [(name, data) for name, _, data in _IMAGES[:3]]


def test_stream_and_range_agree(store_url: str, tmp_path: Path) -> None:
    store = Store(store_url)
    spans = _write(tmp_path / "tar", _IMAGES)
    object_id = store.put_file(tmp_path / "tar").object_id
    data = [data for *_, data in _IMAGES]
    assert list(stream_images(store, object_id, spans)) == data
    assert list(stream_images(store, object_id, spans[::-1])) == data[::-1]
    assert list(stream_images(store, object_id, [])) == []
    for (start, size), expected in zip(spans, data, strict=True):
        assert store.read_range(object_id, start=start, num_bytes=size) == expected


@given(st.lists(st.binary(max_size=1100), max_size=5))
def test_bytes_depend_on_the_images_alone(
    tmp_path_factory: pytest.TempPathFactory, data: list[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("tars")
    images = [(f"{number:032x}", "jpg", one) for number, one in enumerate(data)]
    assert _write(folder / "one", images) == _write(folder / "two", images)
    assert (folder / "one").read_bytes() == (folder / "two").read_bytes()


def test_header_holds_nothing_of_this_machine(tmp_path: Path) -> None:
    _write(tmp_path / "tar", _IMAGES[:1])
    with tarfile.open(tmp_path / "tar") as tar:
        (member,) = tar.getmembers()
    assert (member.mtime, member.uid, member.gid, member.uname, member.mode) == (0, 0, 0, "", 0o644)


def test_name_too_long(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be in a tar: name is too long"):
        _write(tmp_path / "tar", [("x" * 101, "jpg", b"1")])


def test_ends_early(store_url: str, tmp_path: Path) -> None:
    store = Store(store_url)
    spans = _write(tmp_path / "tar", _IMAGES)
    cut = store.put_bytes((tmp_path / "tar").read_bytes()[: spans[2][0] + 5]).object_id
    stream = stream_images(store, cut, spans)
    assert [next(stream), next(stream)] == [_IMAGES[0][2], b""]
    message = f"ends early: expected 512 bytes at {spans[2][0]}, got 5; restore it from a copy"
    with pytest.raises(ObjectDamagedError, match=message):
        next(stream)


def test_missing(store_url: str) -> None:
    with pytest.raises(ObjectMissingError):
        list(stream_images(Store(store_url), "9" * 64, [(0, 1)]))
