"""The images of an export, shard by shard: their numbers, their file names, their bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, islice

import pyarrow as pa

from manifests.dataset import Dataset
from manifests.export_names import NamedImage, unique_names
from manifests.kept import kept_images

_NAME_COLUMNS = ("image_id", "source", "file_name", "format")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardImages:
    """One shard's images: `first` is the number of its first, from 1; one name an image."""

    shard: str
    first: int
    names: tuple[str, ...]


def plan_images(
    dataset: Dataset, *, include_quarantined: bool, as_stored: bool, flat: bool = False
) -> dict[str, ShardImages]:
    """Names for all images at once, since they have to differ; by shard, in the order of ingest.

    Args:
        as_stored: names get the extension of the stored bytes; otherwise they stay the source's.
        flat: no folders, and stems that differ; see `unique_names`.
    """
    named: list[NamedImage] = []
    sizes: list[int] = []
    for shard in dataset.manifest.shards():
        images = kept_images(dataset, shard, include_quarantined=include_quarantined)
        sizes.append(images.num_rows)
        for row in images.select(_NAME_COLUMNS).to_pylist():
            image = NamedImage(**row)
            named.append(image.with_stored_extension() if as_stored else image)
    names = iter(unique_names(named, flat=flat))
    firsts = accumulate(sizes, initial=1)
    return {
        shard: ShardImages(shard=shard, first=first, names=tuple(islice(names, size)))
        for shard, first, size in zip(dataset.manifest.shards(), firsts, sizes, strict=False)
    }


def image_bytes(dataset: Dataset, shard: str, images: pa.Table) -> Iterator[bytes]:
    """The stored bytes of each row of KEPT_IMAGES_SCHEMA, from one pass over the shard's tar.

    Raises:
        ObjectMissingError, ObjectDamagedError: the tar is not there or not whole.
    """
    return dataset.images(shard, images) if images.num_rows else iter(())
