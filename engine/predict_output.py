"""What a prediction leaves behind: `predictions.json` (COCO, RLE) and photos with their segments.

Annotations are those of COCO with a `score` and a `query` more; a photo that could not be read is
among the images, with a `reason` and without size.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import fsspec
import msgspec
import pyarrow.compute as pc

from engine.decode import ImageRejectedError, read_upright
from engine.image_root import ImageRoot, UnsafeNameError
from engine.predict import PredictedRoot
from engine.sources.files import transport_errors
from manifests import rle
from manifests.errors import StoreError
from teachers.overlay import Mark, colour_of, draw_marks, encode_jpeg

FILE = "predictions.json"
OVERLAYS = "overlays"
_JPEG_QUALITY = 88
_LONG_SIDE_PX = 1000
_encode = msgspec.json.Encoder().encode
_OVERLAY = re.compile(r"[0-9]{6}-[A-Za-z0-9._-]*\.jpg")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputConfig:
    """Where and how much.

    Attributes:
        folder: a folder or URL; made if it is not there.
        texts: numbered from 1 on, in this order, as the categories of the COCO file, found or not.
        overlays: photos to draw, at most.
        min_score: segments below it are neither written nor drawn.
    """

    folder: str
    texts: tuple[str, ...]
    overlays: int = 200
    min_score: float = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictSummary:
    """What came of it: `num_photos` = predicted + the sum of `failed`.

    `best_score` is the highest of all segments, written or not; None: there was none.
    """

    file: str
    num_photos: int
    num_segments: int
    num_overlays: int
    best_score: float | None = None
    failed: Mapping[str, int] = field(default_factory=dict)
    by_text: Mapping[str, int] = field(default_factory=dict)


def write_predictions(
    roots: Sequence[PredictedRoot], config: OutputConfig, *, made_by: Mapping[str, Any]
) -> PredictSummary:
    """Writes the COCO file, then the pictures.

    Args:
        roots: the rows.
        config: where to.
        made_by: JSON values for the file's `info`: the student and its settings.

    Raises:
        StoreError: the folder cannot be written.
    """
    texts = _texts(roots, config.min_score)
    every = dict.fromkeys((*config.texts, *sorted(texts)))
    numbers = {text: number for number, text in enumerate(every, start=1)}
    name = posixpath.join(config.folder, FILE)
    try:
        files, folder = fsspec.core.url_to_fs(config.folder)
        files.makedirs(folder, exist_ok=True)
        with files.open(posixpath.join(folder, FILE), "wb") as stream:
            _write_coco(stream, roots, numbers, config, made_by)
        overlays = posixpath.join(folder, OVERLAYS)
        drawn: set[str] = set()
        for file_name, jpeg in _overlays(roots, config):
            files.makedirs(overlays, exist_ok=True)
            files.pipe_file(posixpath.join(overlays, file_name), jpeg)
            drawn.add(file_name)
        _remove_older(files, overlays, drawn)
    except transport_errors() as error:
        raise StoreError(
            f"{config.folder} cannot be written ({type(error).__name__}: {error}); check the path "
            "and the credentials"
        ) from error
    failed = Counter(
        reason for root in roots for reason in root.rows["reason"].to_pylist() if reason
    )
    return PredictSummary(
        file=name,
        num_photos=sum(root.rows.num_rows for root in roots),
        num_segments=sum(texts.values()),
        num_overlays=len(drawn),
        best_score=max(_best_scores(roots), default=None),
        failed=dict(sorted(failed.items())),
        by_text=dict(texts.most_common()),
    )


def _texts(roots: Sequence[PredictedRoot], min_score: float) -> Counter[str]:
    found: Counter[str] = Counter()
    for root in roots:
        segments = pc.list_flatten(root.rows["segments"])
        kept = segments.filter(pc.greater_equal(pc.struct_field(segments, "score"), min_score))
        found.update(pc.struct_field(kept, "text").to_pylist())
    return found


def _best_scores(roots: Sequence[PredictedRoot]) -> Iterator[float]:
    for root in roots:
        segments = pc.list_flatten(root.rows["segments"])
        best = pc.max(pc.struct_field(segments, "score")).as_py()
        if best is not None:
            yield best


def _write_coco(
    stream: BinaryIO,
    roots: Sequence[PredictedRoot],
    numbers: Mapping[str, int],
    config: OutputConfig,
    made_by: Mapping[str, Any],
) -> None:
    """One photo's records at a time, so that memory holds the rows alone."""
    categories = [{"id": number, "name": text} for text, number in numbers.items()]
    stream.write(b'{"info":' + _encode(dict(made_by)) + b',"categories":' + _encode(categories))
    stream.write(b',"images":[')
    for number, (root, row) in enumerate(_rows(roots), start=1):
        image = {"id": number, "file_name": row["file_name"], "root": root}
        known = {key: row[key] for key in ("height", "width", "reason") if row[key] is not None}
        stream.write((b"," if number > 1 else b"") + b"\n" + _encode(image | known))
    stream.write(b'],"annotations":[')
    written = 0
    for number, (_, row) in enumerate(_rows(roots), start=1):
        for segment in _kept(row, config.min_score):
            written += 1
            record = _annotation(written, number, numbers[segment["text"]], segment, row)
            stream.write((b"," if written > 1 else b"") + b"\n" + _encode(record))
    stream.write(b"]}\n")


def _annotation(
    number: int, image: int, category: int, segment: Mapping[str, Any], row: Mapping[str, Any]
) -> dict[str, Any]:
    x1, y1, x2, y2 = segment["box_xyxy"]
    size_hw = row["height"], row["width"]
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": rle.area(segment["counts"], size_hw=size_hw),
        "iscrowd": 0,
        "segmentation": {"size": list(size_hw), "counts": segment["counts"].decode("ascii")},
        "score": round(segment["score"], 5),
        "query": segment["query"],
    }


def _rows(roots: Sequence[PredictedRoot]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for root in roots:
        for batch in root.rows.to_batches(max_chunksize=256):
            for row in batch.to_pylist():
                yield root.root, row


def _kept(row: Mapping[str, Any], min_score: float) -> list[Mapping[str, Any]]:
    return [segment for segment in row["segments"] if segment["score"] >= min_score]


def _overlays(roots: Sequence[PredictedRoot], config: OutputConfig) -> Iterator[tuple[str, bytes]]:
    """Safe file names and JPEGs of the first photos that were predicted."""
    drawn = 0
    for root, row in _rows(roots):
        if drawn >= config.overlays:
            return
        if row["reason"] is not None:
            continue
        try:
            photo = read_upright(ImageRoot(root).read(row["file_name"])).rgb
        except (OSError, UnsafeNameError, ImageRejectedError):
            continue  # it was there when it was predicted, and is counted as that
        if photo.shape[:2] != (row["height"], row["width"]):
            continue
        marks = [
            Mark(
                label=f"{segment['text']} {segment['score']:.2f}",
                box_xyxy=tuple(segment["box_xyxy"]),
                counts=segment["counts"],
                style="kept",
                colour=colour_of(number, "kept"),
            )
            for number, segment in enumerate(_kept(row, config.min_score))
        ]
        drawn += 1
        picture = draw_marks(photo, marks, long_side=_LONG_SIDE_PX)
        yield (
            f"{drawn:06d}-{_file_name(row['file_name'])}.jpg",
            encode_jpeg(picture, quality=_JPEG_QUALITY),
        )


def _remove_older(files: Any, overlays: str, drawn: Collection[str]) -> None:  # Any: fsspec
    """Pictures of an earlier prediction, which `predictions.json` no longer tells of."""
    if not files.isdir(overlays):
        return
    for path in files.ls(overlays, detail=False):
        name = posixpath.basename(path)
        if _OVERLAY.fullmatch(name) and name not in drawn:
            files.rm_file(path)


def _file_name(name: str) -> str:
    """Nothing from data leads out of the folder: a flat name of harmless characters."""
    return _UNSAFE.sub("_", posixpath.splitext(name)[0])[-80:]
