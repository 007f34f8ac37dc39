"""What people drew, as their tool wrote it: one JSON, a folder or a zip of them.

Two dialects: COCO instances (CVAT and most others) and Label Studio's export "JSON". Whatever is
wrong with one answer is said of that answer; only a file that is neither is refused.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import msgspec

from engine.confidence.answers_coco import coco_answers, is_coco
from engine.confidence.answers_label_studio import is_label_studio, label_studio_answers
from engine.confidence.drawn import DrawnImage
from engine.sources.files import Folder, open_bytes, read_errors
from engine.sources.protocol import absolute
from manifests.commit import ExternalInput
from manifests.errors import InputError
from manifests.export_marker import MARKER

_OURS = ("proposal.json", MARKER)
_ROLE = "answers"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFile:
    """All answers of a file, folder or zip.

    Attributes:
        images: in the order of the file.
        inputs: what was read, with its digest, as a commit records it.
    """

    images: tuple[DrawnImage, ...]
    inputs: Mapping[str, ExternalInput]


def read_answers(path: str) -> AnswerFile:
    """Reads what people drew.

    Args:
        path: a JSON file, a zip with some (as CVAT gives it), or a folder; or an fsspec URL of one.

    Raises:
        InputError: there is none, it is not JSON, in no dialect that is known, or holds no answer.
    """
    if _is_folder(path):
        documents, inputs = _folder(path)
    else:
        documents, inputs = _file(path)
    images = [image for name, data in documents for image in _images(name, data)]
    if not any(image.answers for image in images):
        raise InputError(
            f"{path} holds no annotation of any image, so there is nothing to import; export the "
            "annotations from the tool again, as 'COCO 1.0' or 'JSON'"
        )
    return AnswerFile(images=tuple(images), inputs={_ROLE: inputs})


def _is_folder(path: str) -> bool:
    try:
        Folder(path)
    except InputError:
        return False
    return True


def _folder(path: str) -> tuple[list[tuple[str, bytes]], ExternalInput]:
    """The JSON files of a folder and all below it, but those that describe a proposal."""
    folder = Folder(path)
    names = [name for name in folder.names((".json",)) if PurePosixPath(name).name not in _OURS]
    if not names:
        raise InputError(f"{path} has no JSON file; name the file or folder that the tool exported")
    documents, hasher = [], hashlib.sha256()
    for text in folder.read(names):
        if text.problem is not None:
            raise InputError(f"{path}/{text.name}: cannot be read: {text.problem}; check the file")
        documents.append((f"{path}/{text.name}", text.text))
        hasher.update(f"{hashlib.sha256(text.text).hexdigest()}  {text.name}\n".encode())
    return documents, ExternalInput(
        url=absolute(path), sha256=hasher.hexdigest(), num_files=len(documents),
        num_bytes=sum(len(data) for _, data in documents),
    )  # fmt: skip


def _file(path: str) -> tuple[list[tuple[str, bytes]], ExternalInput]:
    try:
        with open_bytes(path, compression=None) as file:
            data = file.read()
    except read_errors() as error:
        raise InputError(f"{path}: cannot be read to its end: {error}; check the file") from error
    digest = hashlib.sha256(data).hexdigest()
    found = ExternalInput(url=absolute(path), sha256=digest, num_bytes=len(data))
    documents = _unzipped(path, data) if data[:2] == b"PK" else [(path, data)]
    return documents, found


def _unzipped(path: str, data: bytes) -> list[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = sorted(
                name
                for name in archive.namelist()
                if name.endswith(".json") and PurePosixPath(name).name not in _OURS
            )
            documents = [(f"{path}/{name}", archive.read(name)) for name in names]
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise InputError(
            f"{path}: expected a zip as CVAT exports it, got '{error}'; unpack it and name the "
            "folder"
        ) from error
    if not documents:
        raise InputError(f"{path} has no JSON file in it; export the annotations again")
    return documents


def _images(name: str, data: bytes) -> Iterator[DrawnImage]:
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(
            f"{name}: expected JSON as a tool exports it, got '{error}'; export it again"
        ) from error
    if is_coco(document):
        yield from coco_answers(document)
    elif is_label_studio(document):
        yield from label_studio_answers(document)
    else:
        raise InputError(
            f"{name}: expected COCO (an object with images, annotations and categories) or Label "
            f"Studio's export 'JSON' (a list of tasks with annotations), got {_kind(document)}"
        )


def _kind(document: object) -> str:
    if isinstance(document, dict):
        return f"an object with {', '.join(sorted(map(str, document))[:5]) or 'nothing in it'}"
    if isinstance(document, Sequence) and not isinstance(document, str):
        return f"a list of {len(document)}"
    return type(document).__name__
