"""Where the pictures, labels and class names of an Ultralytics YOLO dataset lie.

Nothing outside the dataset folder and the image root is listed or opened, whatever `data.yaml`
says: an absolute or `..` entry counts only as far as it leads into them.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import yaml  # type: ignore[import-untyped]  # ships no types

from engine.sources.files import IMAGE_SUFFIXES, Folder, open_bytes
from manifests.errors import InputError, SourceSyntaxError

SPLITS = ("train", "val", "test")
_NAME_LISTS = ("classes.txt", "labels/classes.txt")
_NOT_LABELS = frozenset({"classes.txt", "notes.txt", "train.txt", "val.txt", "test.txt"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One image below the image root, and its label file below the dataset folder (or None)."""

    file_name: str
    label: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class YoloLayout:
    """A dataset folder, its class names by id, and its parts.

    Attributes:
        parts: image folders and lists (.txt) below the dataset folder; empty where the images
            lie in an image root of their own.
        settings: files below the dataset folder that say all this, lists among them.
    """

    folder: Folder
    images: Folder
    names: Mapping[int, str]
    parts: tuple[str, ...]
    settings: tuple[str, ...]

    def pictures(self) -> Iterator[Picture]:
        """All images of all parts, sorted within a part."""
        for part in self.parts:
            if part.endswith(".txt"):
                yield from self._listed(part)
            else:
                yield from self._found(part)
        if not self.parts:
            labels = "labels" if self.folder.has_folder("labels") else ""
            for name in self.images.names(IMAGE_SUFFIXES):
                yield Picture(file_name=name, label=posixpath.join(labels, _with_txt(name)))

    def label_files(self) -> list[str]:
        """The label files of all parts that are folders, with or without an image."""
        folders = [_label_folder(part) for part in self.parts if not part.endswith(".txt")]
        if not self.parts:
            folders = ["labels" if self.folder.has_folder("labels") else ""]
        found = {name for folder in folders for name in self.folder.names((".txt",), below=folder)}
        return sorted(name for name in found if posixpath.basename(name) not in _NOT_LABELS)

    def _found(self, part: str) -> Iterator[Picture]:
        inside = _below(self.images, self.folder, part)
        if inside is None:
            raise InputError(
                f"image root {self.images.url}: expected it to contain {self.folder.url_of(part)}; "
                f"set images to {self.folder.url}"
            )
        for name in self.folder.names(IMAGE_SUFFIXES, below=part):
            file_name = posixpath.join(inside, name[len(part) :].lstrip("/"))
            yield Picture(file_name=file_name, label=_label_of(name))

    def _listed(self, part: str) -> Iterator[Picture]:
        with open_bytes(self.folder.url_of(part)) as file:
            for raw in file:
                line = raw.decode("utf-8", "replace").strip()
                if not line:
                    continue
                name = _inside(self.folder, line)
                file_name = None if name is None else _below(self.images, self.folder, name)
                label = None if name is None else _label_of(name)
                yield Picture(file_name=file_name or line, label=label)


def find_layout(annotations: str, images: str, *, split: str | None) -> YoloLayout:
    """The layout behind a `data.yaml` or a dataset folder.

    Raises:
        InputError: no class names, no such split, or a part that does not exist.
        SourceSyntaxError: `data.yaml` is not YAML.
    """
    is_yaml = annotations.endswith((".yaml", ".yml"))
    root, _, name = annotations.rpartition("/") if is_yaml else (annotations, "", "data.yaml")
    folder, image_folder = Folder(root or "."), Folder(images)
    if is_yaml or folder.has(name):
        path = annotations if is_yaml else folder.url_of(name)
        settings = _settings(path)
        names, parts = _names(settings, path), _parts(settings, path, folder, split)
        files = (name, *(part for part in parts if part.endswith(".txt")))
    else:
        names, parts = _listed_names(folder), _plain_parts(folder, image_folder, split)
        files = _NAME_LISTS
    return YoloLayout(folder=folder, images=image_folder, names=names, parts=parts, settings=files)


def _settings(path: str) -> dict[str, object]:
    with open_bytes(path) as file:
        text = file.read()
    try:
        settings = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        detail = str(error.problem or error.context)
        raise SourceSyntaxError(path=path, line=line, column=column, detail=detail) from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        detail = str(error).splitlines()[0]
        raise SourceSyntaxError(path=path, line=1, column=1, detail=detail) from error
    if not isinstance(settings, dict):
        kind = type(settings).__name__
        raise InputError(f"{path}: expected keys with values (names, train, val), got {kind}")
    return settings


def _names(settings: Mapping[str, object], path: str) -> dict[int, str]:
    names = settings.get("names")
    pairs = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(pairs, dict) or not pairs:
        raise InputError(f"{path}: expected 'names' with the class names, got {names!r}; add them")
    for key, name in pairs.items():
        if not isinstance(key, int) or name is None or isinstance(name, list | dict):
            raise InputError(f"{path}: expected names by class number, got {key!r}: {name!r}")
    return {key: str(name) for key, name in pairs.items()}


def _parts(
    settings: Mapping[str, object], path: str, folder: Folder, split: str | None
) -> tuple[str, ...]:
    present = [name for name in SPLITS if settings.get(name)]
    if split is not None and split not in present:
        raise InputError(
            f"{path}: no split '{split}', expected one of {', '.join(present) or 'none'}"
        )
    if not present:
        raise InputError(f"{path}: expected one of the keys {', '.join(SPLITS)}, found none")
    entries: list[object] = []
    for name in present if split is None else [split]:
        value = settings[name]
        entries.extend(value if isinstance(value, list) else [value])
    base = str(settings.get("path") or "")
    parts = [_resolve(str(entry), base, path, folder) for entry in entries]
    return tuple(dict.fromkeys(parts))


def _resolve(entry: str, base: str, path: str, folder: Folder) -> str:
    """The name of a part below the dataset folder.

    `path` in a data.yaml is often where the dataset lay on its author's machine, and "../train"
    often means "train" beside the file, so both are tried without as well.
    """
    stripped = entry
    while stripped.startswith("../"):
        stripped = stripped[3:]
    for candidate in (posixpath.join(base, entry), entry, stripped):
        name = _inside(folder, candidate)
        if name is not None and folder.has(name):
            return name
    raise InputError(
        f"{path}: expected a folder or list at '{entry}' below {folder.url}, found none; "
        f"correct the entry"
    )


def _listed_names(folder: Folder) -> dict[int, str]:
    for name in _NAME_LISTS:
        if folder.has(name):
            with open_bytes(folder.url_of(name)) as file:
                lines = file.read().decode("utf-8-sig", "replace").splitlines()
            return {number: line.strip() for number, line in enumerate(lines) if line.strip()}
    raise InputError(
        f"{folder.url}: expected class names in data.yaml or classes.txt, found neither; add one"
    )


def _plain_parts(folder: Folder, images: Folder, split: str | None) -> tuple[str, ...]:
    part = "images" if split is None else f"images/{split}"
    if folder.has_folder(part) and _below(images, folder, part) is not None:
        return (part,)
    if split is not None:
        raise InputError(f"{folder.url}: no split '{split}', expected a folder {part}")
    return ()


def _inside(folder: Folder, path: str) -> str | None:
    """`path`, relative to the folder or absolute, as a name below the folder; None outside."""
    if path.startswith(folder.path.rstrip("/") + "/"):
        path = path[len(folder.path.rstrip("/")) + 1 :]
    name = posixpath.normpath(path)
    is_outside = name.startswith(("/", "../")) or name == ".." or "://" in path or "\0" in path
    return None if is_outside else "" if name == "." else name


def _below(images: Folder, folder: Folder, name: str) -> str | None:
    """A name below the dataset folder as one below the image root; None where it is not."""
    full, root = posixpath.join(folder.path, name), images.path.rstrip("/")
    if full == root:
        return ""
    return full[len(root) + 1 :] if full.startswith(root + "/") else None


def _label_folder(part: str) -> str:
    """The last folder called `images` becomes `labels`; without one, labels lie with images."""
    segments = part.split("/")
    for position in reversed(range(len(segments))):
        if segments[position] == "images":
            segments[position] = "labels"
            break
    return "/".join(segments)


def _label_of(name: str) -> str:
    folder, _, file = name.rpartition("/")
    return posixpath.join(_label_folder(folder), _with_txt(file))


def _with_txt(name: str) -> str:
    return posixpath.splitext(name)[0] + ".txt"
