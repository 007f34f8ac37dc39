"""A shard's tables edited as a whole: images left out, or boxes of the same images brought in.

Every annotation layer has the rows of `boxes` in that order, so whatever happens to `boxes` happens
to each of them. Outcomes depend on the cells alone: two machines that do the same edit make the
same objects.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests import schemas
from manifests.cells import read_cell, write_cell
from manifests.consequences import cell_lost, telling
from manifests.errors import ObjectMissingError
from manifests.image_tar import ImageTarWriter, offsets_of, stream_rows
from manifests.manifest import Cell
from manifests.statistics import cell_statistics
from manifests.store import Store
from manifests.taken_down import why_gone

_EXTENSIONS = {"jpeg": "jpg"}


def without_images(
    store: Store,
    cells: Mapping[str, Cell],
    image_ids: Collection[str],
    *,
    successor: str | None = None,
) -> dict[str, Cell]:
    """The shard written again without some images and all that belongs to them.

    Args:
        store: where the cells are, and where the new ones go.
        cells: all cells of the shard, by layer.
        image_ids: images to leave out; others than the shard's do not matter.
        successor: the new shard's id where its `images` object is in the store already, so that
            the old one, which may be gone, is not read.

    Returns:
        Cells of a new shard by layer; the old ones if nothing is left out, {} if nothing is left.

    Raises:
        ObjectMissingError, ObjectDamagedError: a cell cannot be read.
    """
    index = read_cell(store, cells[schemas.IMAGE_INDEX])
    stays = pc.invert(pc.is_in(index["image_id"], value_set=pa.array(sorted(image_ids))))
    rows = np.flatnonzero(np.asarray(stays))  # [N] image rows that stay
    if len(rows) == index.num_rows:
        return dict(cells)
    if not len(rows):
        return {}
    kept = index.take(pa.array(rows))
    images = (
        _known_images(store, successor, num_rows=kept.num_rows)
        if successor
        else _images_again(store, cells[schemas.IMAGES], kept)
    )
    made = {schemas.IMAGES: images}
    offsets = pa.array(offsets_of(kept["size"].to_pylist()), pa.int64())
    position = kept.schema.get_field_index("offset")
    kept = kept.set_column(position, kept.schema.field("offset"), offsets)
    edit = _Edit(store, images.object_id, made, cells)
    edit.write(schemas.IMAGE_INDEX, kept)
    if schemas.BOXES in cells:
        _annotations_of(edit, rows, num_images=index.num_rows)
    return made


def _known_images(store: Store, shard: str, *, num_rows: int) -> Cell:
    num_bytes = store.object_size(shard)
    if num_bytes is None:
        raise ObjectMissingError(
            f"the images of shard {shard[:12]} are missing in {store.url}; restore them from a copy"
        )
    return Cell(
        shard=shard, layer=schemas.IMAGES, object_id=shard, num_rows=num_rows, num_bytes=num_bytes
    )


def _images_again(store: Store, images: Cell, kept: pa.Table) -> Cell:
    """A tar of some of a tar's images, in its order."""
    lost = cell_lost(shard=images.shard, layer=images.layer, object_id=images.object_id)
    names = zip(kept["image_id"].to_pylist(), kept["format"].to_pylist(), strict=True)
    with tempfile.TemporaryDirectory(prefix="maskmill-") as folder:
        path = Path(folder) / "images.tar"
        with ImageTarWriter(path) as tar:
            stored_images = stream_rows(store, images.object_id, kept)
            with telling(lost, who="the dataset", why_gone=partial(why_gone, store, images.shard)):
                for (image_id, format_), data in zip(names, stored_images, strict=True):
                    extension = _EXTENSIONS.get(format_, format_)
                    tar.add(image_id=image_id, extension=extension, data=data)
        stored = store.put_file(path)
    return Cell(
        shard=stored.object_id,
        layer=schemas.IMAGES,
        object_id=stored.object_id,
        num_rows=kept.num_rows,
        num_bytes=stored.num_bytes,
    )


class _Edit:
    """New cells of a shard as they are made; inputs that are old cells become the new ones."""

    def __init__(
        self, store: Store, shard: str, made: dict[str, Cell], old: Mapping[str, Cell]
    ) -> None:
        self.store, self.made, self.old = store, made, old
        self._shard = shard

    def write(self, layer: str, table: pa.Table) -> None:
        """Writes a layer whose inputs have been written already."""
        renamed = {
            self.old[name].object_id: cell.object_id
            for name, cell in self.made.items()
            if name in self.old
        }
        self.made[layer] = write_cell(
            self.store,
            table,
            shard=self._shard,
            layer=layer,
            inputs=tuple(renamed.get(input_, input_) for input_ in self.old[layer].inputs),
            statistics=cell_statistics(layer, table),
        )


def _annotations_of(edit: _Edit, image_rows: np.ndarray, *, num_images: int) -> None:
    """Boxes of these images, their image rows counted anew, and the same rows of every layer."""
    boxes = read_cell(edit.store, edit.old[schemas.BOXES])
    new_number = np.full(num_images, -1, dtype=np.int32)
    new_number[image_rows] = np.arange(len(image_rows), dtype=np.int32)
    numbers = new_number[boxes["image_row"].to_numpy()]
    rows = pa.array(np.flatnonzero(numbers >= 0))
    position = boxes.schema.get_field_index("image_row")
    column = pa.array(numbers[numbers >= 0], pa.int32())
    boxes = boxes.take(rows).set_column(position, boxes.schema.field("image_row"), column)
    edit.write(schemas.BOXES, boxes)
    layers = [name for name in edit.old if name not in (*schemas.IMAGE_LAYERS, schemas.BOXES)]
    # Masks before what is computed from them, so that inputs are known by their new names.
    for layer in sorted(layers, key=lambda name: (name in schemas.COMPUTED_LAYERS, name)):
        edit.write(layer, read_cell(edit.store, edit.old[layer]).take(rows))
