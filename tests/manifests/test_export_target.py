"""Where exports go: hostile file names, other file systems, overwriting, failing half-way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from manifests.dataset import Dataset
from manifests.errors import InputError, ObjectDamagedError
from manifests.export import export
from manifests.export_marker import Marker
from manifests.export_names import NamedImage, flat_name, safe_name, unique_names
from manifests.export_plan import ExportOptions
from manifests.export_target import open_target


def run(dataset: Dataset, target: Path | str, **options: Any) -> dict[str, Any]:
    export(dataset, str(target), format="coco", options=ExportOptions(**options), ref="main")
    with fsspec.open(f"{target}/instances.json") as file:
        return json.load(file)


def a_dataset(builder: Any) -> Dataset:
    for number in range(3):
        builder.image(f"photos/{number}.jpg", source_image_id=str(number + 1))
        builder.box("hat", (1, 1, 9, 9), source_annotation_id=str(number + 1))
    builder.shard()
    return builder.commit()


def _files(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


HOSTILE = [
    "../../outside.jpg",
    "/etc/passwd.jpg",
    "..\\..\\windows.jpg",
    "C:\\temp\\x.jpg",
    "nul\0byte.jpg",
    "x" * 300 + ".jpg",
    "/".join(["deep"] * 400) + "/y.jpg",
    "..",
    "",
    "new\nline.jpg",
    "a.jpg",
    "A.JPG",
    "a.jpg/inner.jpg",
    "a.jpg",
]


def test_hostile_file_names_stay_inside(builder: Any, tmp_path: Path) -> None:
    for number, name in enumerate(HOSTILE):
        builder.image(name, source_image_id=str(number + 1), source="../evil")
    builder.shard()
    data = run(builder.commit(), tmp_path / "deep" / "out", images=True)
    root = tmp_path / "deep" / "out"
    outside = {path for path in tmp_path.rglob("*.[jJ]*") if root not in path.parents}
    assert not {path for path in outside if "store" not in path.parts}
    names = [image["file_name"] for image in data["images"]]
    assert len({name.casefold() for name in names}) == len(HOSTILE)
    assert [image["original_file_name"] for image in data["images"]] == HOSTILE
    for image in data["images"]:
        path = (root / "images" / image["file_name"]).resolve()
        assert path.is_relative_to(root.resolve() / "images")
        with Image.open(path) as opened:
            assert opened.size == (image["width"], image["height"])


def test_images_get_the_extension_of_their_bytes(builder: Any, tmp_path: Path) -> None:
    builder.image("scan.tif", image_format="png")
    builder.image("photo.JPG")
    builder.shard()
    dataset = builder.commit()
    with_files = run(dataset, tmp_path / "files", images=True)
    assert [i["file_name"] for i in with_files["images"]] == ["scan.png", "photo.JPG"]
    without = run(dataset, tmp_path / "bare")
    assert [i["file_name"] for i in without["images"]] == ["scan.tif", "photo.JPG"]


def test_memory_url(builder: Any, tmp_path: Path) -> None:
    dataset = a_dataset(builder)
    target = f"memory://{tmp_path.name}-coco"
    far = run(dataset, target, images=True)
    assert far == run(dataset, tmp_path / "near", images=True)
    files = fsspec.filesystem("memory")
    assert len(files.find(f"/{tmp_path.name}-coco/images")) == 3
    with pytest.raises(InputError, match="is not empty"):
        run(dataset, target)
    run(dataset, target, overwrite=True)
    assert not files.find(f"/{tmp_path.name}-coco/images")


def test_s3_url(builder: Any, tmp_path: Path, s3_url: str) -> None:
    dataset = a_dataset(builder)
    for name in ("coco", "yolo", "webdataset"):
        options = ExportOptions(images=True)
        far = export(dataset, f"{s3_url}/{name}", format=name, options=options)
        near = export(dataset, str(tmp_path / name), format=name, options=options)
        assert (far.num_files, far.num_bytes) == (near.num_files, near.num_bytes)
        files = fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)
        root = f"{s3_url}/{name}".removeprefix("s3://")
        there = {path.removeprefix(f"{root}/"): files.cat(path) for path in files.find(root)}
        assert there == _files(tmp_path / name)
        with pytest.raises(InputError, match="is not empty"):
            export(dataset, f"{s3_url}/{name}", format=name)
    export(dataset, f"{s3_url}/coco", format="coco", options=ExportOptions(overwrite=True))
    files.invalidate_cache()
    assert len(files.find(f"{s3_url}/coco")) == 2


def test_overwrite_replaces_an_export_and_nothing_else(builder: Any, tmp_path: Path) -> None:
    dataset, out = a_dataset(builder), tmp_path / "out"
    run(dataset, out, images=True)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"out is not empty"):
        run(dataset, out)
    run(dataset, out, overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == [
        "instances.json",
        "maskmill_export.json",
        "notes.txt",
    ]


def test_overwrite_refuses_what_is_no_export(builder: Any, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years")
    with pytest.raises(InputError, match="is not an export and is not overwritten"):
        run(a_dataset(builder), tmp_path / "home", overwrite=True)
    with pytest.raises(InputError, match="is a file"):
        run(a_dataset(builder), tmp_path / "home" / "thesis.tex", overwrite=True)
    assert (tmp_path / "home" / "thesis.tex").read_text() == "years"


def test_failure_leaves_nothing_and_the_old_export(builder: Any, tmp_path: Path) -> None:
    dataset, out = a_dataset(builder), tmp_path / "out"
    run(dataset, out)
    before = _files(out)
    shard = dataset.manifest.shards()[-1]
    path = Path(builder.store.root) / "objects" / shard[:2] / shard
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(ObjectDamagedError, match="ends early"):
        run(dataset, out, images=True, overwrite=True)
    assert _files(out) == before
    with pytest.raises(ObjectDamagedError, match="ends early"):
        run(dataset, tmp_path / "new", images=True)
    assert not (tmp_path / "new").exists()


def test_unknown_format_names_those_there_are(builder: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected one of coco, .*got 'voc'"):
        export(builder.commit(), str(tmp_path / "out"), format="voc")


@given(st.text(max_size=400))
def test_safe_names_are_relative_and_stable(name: str) -> None:
    safe = safe_name(name)
    assert not Path(safe).is_absolute()
    assert not {"", ".", ".."} & set(safe.split("/"))
    assert not set(safe) & {"\\", "\0", "\n", ":"}
    assert max(len(part.encode()) for part in safe.split("/")) <= 180
    assert safe_name(safe) == safe
    assert "/" not in flat_name(name)


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b/.."]), st.text("aA/.\\é", max_size=5))),
    st.booleans(),
)
def test_unique_names_are_unique(rows: list[tuple[str, str]], flat: bool) -> None:
    images = [
        NamedImage(image_id=f"{n:032x}", source=source, file_name=name, format="jpeg")
        for n, (source, name) in enumerate(rows)
    ]
    names = unique_names(images, flat=flat)
    stems = [str(Path(name).with_suffix("")) if flat else name for name in names]
    assert len({stem.casefold() for stem in stems}) == len(rows)
    folders = {str(parent).casefold() for name in names for parent in Path(name).parents}
    assert not folders & {name.casefold() for name in names}


def test_ordinary_names_are_kept() -> None:
    for name in ("a.jpg", "train/été/IMG 0001.JPG", "x.y.z.png", "日本/写真.webp"):
        assert safe_name(name) == name
    assert safe_name("../../train\\a.jpg") == safe_name("/train/./a.jpg") == "train/a.jpg"


def test_a_name_that_leaves_is_refused_even_if_it_got_through(tmp_path: Path) -> None:
    marker = Marker(format="coco", commit="c", ref=None, maskmill="0", entries=("images",))
    for url in (str(tmp_path / "out"), f"memory://{tmp_path.name}-leave"):
        for name in ("../x", "/x", "a/../../x"):
            with (
                pytest.raises(InputError, match="would leave the target folder"),
                open_target(url, marker, overwrite=True) as target,
            ):
                target.write(name, b"")


def test_killed_export_can_be_overwritten(builder: Any, tmp_path: Path) -> None:
    (tmp_path / "out" / ".maskmill-unfinished" / "images").mkdir(parents=True)
    with pytest.raises(InputError, match="maskmill-unfinished"):
        run(a_dataset(builder), tmp_path / "out")
    run(a_dataset(builder), tmp_path / "out", overwrite=True)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["instances.json", "maskmill_export.json"]


def test_links_in_an_old_export_are_not_followed(builder: Any, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "x").write_text("keep")
    run(a_dataset(builder), tmp_path / "out")
    (tmp_path / "out" / "images").symlink_to(tmp_path / "precious")
    run(a_dataset(builder), tmp_path / "out", overwrite=True, images=True)
    assert [path.name for path in (tmp_path / "precious").iterdir()] == ["x"]


def test_unfinished_upload_says_so(builder: Any, tmp_path: Path) -> None:
    dataset = a_dataset(builder)
    shard = dataset.manifest.shards()[-1]
    path = Path(builder.store.root) / "objects" / shard[:2] / shard
    whole = path.read_bytes()
    path.write_bytes(whole[:600])
    url = f"memory://{tmp_path.name}-unfinished"
    with pytest.raises(ObjectDamagedError, match="ends early"):
        run(dataset, url, images=True)
    assert _state(url) == "unfinished"
    path.write_bytes(whole)
    run(dataset, url, images=True, overwrite=True)
    assert _state(url) == "finished"


def _state(url: str) -> str:
    with fsspec.open(f"{url}/maskmill_export.json") as file:
        return str(json.load(file)["state"])
