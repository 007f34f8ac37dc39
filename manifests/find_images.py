"""Which images of a commit a person means: by id, file name, or the id that a source gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from manifests import schemas
from manifests.dataset import Dataset
from manifests.errors import InputError

_FEW, _ID_DIGITS = 5, 32
_COLUMNS = ["image_id", "file_name", "source_image_id", "origins"]
_Row = Mapping[str, Any]  # Any: one value of each of _COLUMNS


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which images: by id or its beginning (6 hex digits or more), by file name, by source id.

    A file name is what the source called it, or the part after its last `/`.
    """

    image_ids: tuple[str, ...] = ()
    file_names: tuple[str, ...] = ()
    source_image_ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        short = [text for text in self.image_ids if len(text) < 6]
        if short:
            raise InputError(f"image id '{short[0]}': expected at least 6 hex digits")


def find_images(dataset: Dataset, wanted: Wanted) -> dict[str, list[str]]:
    """Shard -> ids of the images that are meant; reads every shard's index, a few columns of it.

    Raises:
        InputError: a word means no image, or the beginning of an id fits several.
    """
    search = _Search(wanted)
    for cell in dataset.manifest.of_layer(schemas.IMAGE_INDEX):
        search.look(cell.shard, dataset.table(cell.shard, cell.layer, columns=_COLUMNS).to_pylist())
    search.check(dataset)
    return search.found


class _Search:
    """Finds what words mean, shard by shard."""

    def __init__(self, wanted: Wanted) -> None:
        self._ids, self._files = wanted.image_ids, set(wanted.file_names)
        self._whole = {text for text in wanted.image_ids if len(text) == _ID_DIGITS}
        self._beginnings = [text for text in wanted.image_ids if text not in self._whole]
        self._sources = set(wanted.source_image_ids)
        self._hits: dict[str, set[str]] = {}  # word -> image ids
        self.found: dict[str, list[str]] = {}

    def look(self, shard: str, rows: Sequence[_Row]) -> None:
        """Adds a shard's matches."""
        for row in rows:
            image_id = str(row["image_id"])
            words = [f"id {text}" for text in self._beginnings if image_id.startswith(text)]
            words += [f"id {image_id}"] if image_id in self._whole else []
            words += [f"file {name}" for name in self._names(row) & self._files]
            words += [f"source id {name}" for name in self._origin(row) & self._sources]
            for word in words:
                self._hits.setdefault(word, set()).add(image_id)
            if words:
                self.found.setdefault(shard, []).append(image_id)

    def check(self, dataset: Dataset) -> None:
        """Raises InputError where a word means nothing, or an id's beginning too much."""
        words = [f"id {text}" for text in self._ids]
        words += [f"file {name}" for name in sorted(self._files)]
        words += [f"source id {name}" for name in sorted(self._sources)]
        lost = [word for word in words if word not in self._hits]
        if lost:
            more = f" and {len(lost) - 1:,} more" if len(lost) > 1 else ""
            raise InputError(
                f"commit {dataset.commit_id[:12]} has no image with {lost[0]}{more}; look for it "
                "with 'maskmill sql', in the table images"
            )
        for word, ids in self._hits.items():
            if word.startswith("id ") and len(ids) > 1:
                few = ", ".join(sorted(ids)[:_FEW])
                raise InputError(f"image {word} is the beginning of {few}; give more digits")

    @staticmethod
    def _names(row: _Row) -> set[str]:
        names = {row["file_name"], *(origin["file_name"] for origin in row["origins"])}
        return names | {name.rsplit("/", 1)[-1] for name in names}

    @staticmethod
    def _origin(row: _Row) -> set[str]:
        return {row["source_image_id"], *(origin["source_image_id"] for origin in row["origins"])}
