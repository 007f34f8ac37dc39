"""Which images a student was trained on: how good it is on those says little."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from manifests.dataset import Dataset
from manifests.errors import MaskmillError
from manifests.schemas import IMAGE_INDEX
from manifests.store import Store
from student.config import SourceConfig

if TYPE_CHECKING:
    from student.checkpoint import Student

_log = logging.getLogger(__name__)
_WHOLE = SourceConfig()


def taught_images(student: Student, store: Store) -> frozenset[str] | None:
    """Ids of the images that a student may have seen.

    Of a mix every image of its commits counts: a checkpoint does not say whose the parts were.

    Args:
        student: its data are looked up.
        store: an open one, which is used for data that lie in it.

    Returns:
        None where the data cannot be read any more, which is logged.
    """
    mix = student.config.data.mix
    part = mix[0] if len(mix) == 1 else _WHOLE
    # The first is the command's REF. One more than the mix has: it is in none of its datasets.
    versions = student.data[1:] if mix and len(student.data) > len(mix) else student.data
    found: list[str] = []
    for version in versions:
        try:
            home = store if version.store == store.url else Store(version.store)
            found += _ids(Dataset.open(home, version.commit), part)
        except MaskmillError as error:
            _log.warning("cannot tell which images the student was trained on: %s", error)
            return None
    return frozenset(found)


def _ids(dataset: Dataset, part: SourceConfig) -> list[str]:
    """In the order of the commit, quarantined ones left out, as training counts."""
    last = part.skip_images + part.max_images if part.max_images else None
    found: list[str] = []
    for shard in dataset.manifest.shards():
        index = dataset.table(shard, IMAGE_INDEX, columns=["image_id", "quarantine"])
        found += index.filter(pc.is_null(index["quarantine"]))["image_id"].to_pylist()
        if last is not None and len(found) >= last:
            break
    return found[part.skip_images : last]
