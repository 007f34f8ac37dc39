"""File names of exported images: as the sources have them, and never outside the target folder.

A source's file name is foreign data. What comes out of here is relative, has no `..`, no backslash,
no drive, no control character and no part that a file system refuses for its length; two images
never get one name, not even on a file system that ignores case.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

# Most file systems take 255 bytes a part; a temporary name or an id must still fit on top.
_MAX_PART_BYTES = 180
# S3 takes 1,024 bytes a key, and the target's own prefix comes before it.
_MAX_NAME_BYTES = 700
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f:*?"<>|]')

_EXTENSIONS = {
    "jpeg": ("jpg", "jpeg", "jpe", "jfif"),
    "png": ("png",),
    "webp": ("webp",),
    "gif": ("gif",),
    "bmp": ("bmp",),
    "tiff": ("tif", "tiff"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedImage:
    """What an exported file name is made from; `format` is that of the stored bytes."""

    image_id: str
    source: str
    file_name: str
    format: str

    def with_stored_extension(self) -> NamedImage:
        """Under a name that says what the bytes are: another extension if its own does not."""
        suffix = PurePosixPath(self.file_name).suffix
        if suffix[1:].lower() in _EXTENSIONS.get(self.format, (self.format,)):
            return self
        stem = self.file_name.removesuffix(suffix)
        return replace(self, file_name=f"{stem}.{extension(self.format)}")


def extension(image_format: str) -> str:
    """The usual file name extension of a format, without a dot."""
    known = _EXTENSIONS.get(image_format)
    return known[0] if known else safe_name(image_format).replace("/", "_")


def safe_name(name: str) -> str:
    """A relative path that stays below its folder; ordinary relative names are unchanged."""
    parts = [_safe_part(part) for part in name.replace("\\", "/").split("/")]
    kept = [part for part in parts if part]
    if not kept:
        return f"unnamed_{_short_digest(name)}"
    path = "/".join(kept)
    if len(path.encode()) <= _MAX_NAME_BYTES:
        return path
    return f"{_short_digest(name)}/{kept[-1]}"


def flat_name(name: str) -> str:
    """A safe name without folders: `train/images/a.jpg` is `train__images__a.jpg`."""
    return safe_name(safe_name(name).replace("/", "__"))


def unique_names(images: Iterable[NamedImage], *, flat: bool = False) -> list[str]:
    """One safe name an image, in order.

    A name that several images have gets its source in front, and the image id behind if that does
    not settle it.

    Args:
        flat: no folders, and names that differ only in their extension count as the same: for
            formats that put a label file of the same stem beside each image.
    """
    make_safe = flat_name if flat else safe_name
    wanted = [replace(image, file_name=make_safe(image.file_name)) for image in images]
    keys = Counter(_key(image.file_name, flat) for image in wanted)
    named = [
        image
        if keys[_key(image.file_name, flat)] == 1
        else replace(image, file_name=make_safe(f"{image.source}/{image.file_name}"))
        for image in wanted
    ]
    # A file must not have the name of a folder either.
    taken = {
        _key(str(parent), stem_only=False)
        for image in named
        for parent in PurePosixPath(image.file_name).parents
    }
    return [_claim(image, taken, flat) for image in named]


def _claim(image: NamedImage, taken: set[str], stem_only: bool) -> str:
    path = PurePosixPath(image.file_name)
    name, attempt = str(path), 0
    while _key(name, stem_only) in taken:
        # A second attempt is for one picture that is in two shards.
        again = f"_{attempt}" if attempt else ""
        name = str(path.with_name(f"{path.stem}_{image.image_id}{again}{path.suffix}"))
        attempt += 1
    taken.add(_key(name, stem_only))
    return name


def _key(name: str, stem_only: bool) -> str:
    """The same for names that some file system takes for one."""
    path = str(PurePosixPath(name).with_suffix("")) if stem_only else name
    return unicodedata.normalize("NFKC", path).casefold()


def _safe_part(part: str) -> str:
    if part in ("", ".", ".."):
        return ""
    # A leading dot would hide the file, and all-dot or dot-ended names mean nothing on Windows.
    clean = _FORBIDDEN.sub("_", part).rstrip(". ") or "_"
    if len(clean.encode()) <= _MAX_PART_BYTES:
        return clean
    suffix = PurePosixPath(clean).suffix
    suffix = suffix if len(suffix.encode()) <= 16 else ""
    head = clean.encode()[: _MAX_PART_BYTES - 32].decode(errors="ignore")
    return f"{head}_{_short_digest(part)}{suffix}"


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:12]
