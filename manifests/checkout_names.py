"""File names of a checkout's images: the same from one checkout to the next.

An export names all images at once and renames whatever collides. Here the first image of a name
keeps it and later ones get their image id behind, so that images which are added later, with their
own shards at the end of the manifest, change no name that is there.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from itertools import count
from pathlib import PurePosixPath

from manifests.export_names import NamedImage, flat_name, safe_name


class CheckoutNames:
    """Hands out names: relative, safe, and different also where a file system ignores case."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def claim(self, image: NamedImage) -> str:
        """The image's name, which no other will get."""
        wanted = safe_name(image.with_stored_extension().file_name)
        name = next(filter(self._is_free, _candidates(wanted, image.image_id)))
        self._files.add(_key(name))
        self._folders.update(_folders(name))
        return name

    def _is_free(self, name: str) -> bool:
        """A file must neither have the name of a file or a folder, nor lie below a file."""
        key = _key(name)
        is_taken = key in self._files or key in self._folders
        return not is_taken and not any(folder in self._files for folder in _folders(name))


def _candidates(wanted: str, image_id: str) -> Iterator[str]:
    yield wanted
    yield _with_id(wanted, image_id)
    flat = flat_name(wanted)  # one of its folders has the name of a file
    yield _with_id(flat, image_id)
    for number in count(1):  # one picture that is in several shards
        yield _with_id(flat, f"{image_id}_{number}")


def _with_id(name: str, image_id: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_name(f"{path.stem}_{image_id}{path.suffix}"))


def _folders(name: str) -> Iterator[str]:
    """Keys of the folders a name lies in."""
    key = _key(name)
    end = key.find("/")
    while end >= 0:
        yield key[:end]
        end = key.find("/", end + 1)


def _key(name: str) -> str:
    """The same for names that some file system takes for one."""
    return unicodedata.normalize("NFKC", name).casefold()
