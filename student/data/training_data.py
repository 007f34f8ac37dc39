"""The images, boxes and masks of one or more commits, ready to be drawn in any order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from manifests.dataset import Dataset
from manifests.digest import content_id
from manifests.errors import InputError, ObjectDamagedError
from manifests.schemas import IMAGES
from manifests.store import Store, StoredObject
from student.config import DataConfig, SourceConfig
from student.data.arrow_file import Columns
from student.data.cell_cache import CellCache, default_folder
from student.data.judged import judged_categories
from student.data.mapped_tables import mapped_tables
from student.data.mask_pack import MaskPacks
from student.data.mix import MixedDataset, categories_of, check_masks, open_mix
from student.data.patience import Patience
from student.new_folder import make_folder

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRow:
    """One image, and what is known of its boxes; N of them are targets.

    Attributes:
        image_id, shard: their names, for messages.
        size_hw: of the stored, upright image.
        categories: [N] int32, places in `TrainingData.categories`.
        boxes_xyxy: [N, 4] float32, pixels of the stored image.
        mask_rows: [N] int32, where each mask is; -1: there is none.
        weights: [N] float32 in [0, 1].
        judged: [C] bool: see `judged_categories`.
    """

    image_id: str
    shard: str
    size_hw: tuple[int, int]
    categories: NDArray[np.int32]
    boxes_xyxy: NDArray[np.float32]
    mask_rows: NDArray[np.int32]
    weights: NDArray[np.float32]
    judged: Bools


class TrainingData:
    """What `open` found. Small to send to another process, which maps the same tables.

    Attributes:
        commits: (store url, commit id) of each dataset of the mix.
        categories: the names of all of them, each once.
        num_images: that may be drawn.
        num_targets, num_masks: of all images together.
        skipped: why images and boxes are left out -> how many.
        dropped: why boxes are taught without a mask -> how many.
    """

    def __init__(self, mix: Sequence[MixedDataset], config: DataConfig) -> None:
        """Reads all boxes, unless that was done before on this machine.

        Raises: as `open`.
        """
        self._mix, self._config = tuple(mix), config
        self._datasets = [one.dataset for one in mix]
        for dataset in self._datasets:
            check_masks(dataset, config.masks)
        self.categories = categories_of(self._datasets)
        self.commits = tuple((one.store.url, one.commit_id) for one in self._datasets)
        folder = Path(config.cache_folder) if config.cache_folder else default_folder()
        make_folder(folder, setting="data.cache_folder")
        self._cache = CellCache(folder, max_bytes=config.cache_bytes)
        self._packs = MaskPacks(self._cache, config.masks)
        tables = mapped_tables(self._cache, mix, config, self.categories)
        self._facts = tables.facts
        self._images = Columns(tables.images)
        self._annotations = Columns(tables.annotations)
        self.num_images = tables.images.num_rows
        self.num_targets = tables.annotations.num_rows
        self.num_masks = tables.facts.num_masks
        self.skipped: Mapping[str, int] = tables.facts.skipped
        self.dropped: Mapping[str, int] = tables.facts.dropped
        self._check_not_empty()
        self._check_drawn()
        self._known = np.zeros((len(tables.facts.known), len(self.categories)), dtype=bool)
        for row, numbers in enumerate(tables.facts.known):
            self._known[row, numbers] = True

    @staticmethod
    def open(store: Store, ref: str, config: DataConfig) -> TrainingData:
        """Resolves REF, or the refs of the mix, once.

        Args:
            store: of sources of the mix that name none.
            ref: of sources that name none.
            config: what is wanted of them.

        Raises:
            RefError: there is no such ref.
            InputError: a commit lacks the verdicts or the layer of masks, has a category without a
                name, no mask is left, or there can be no cache.
            StoreError: a store cannot be read.
        """
        return TrainingData(open_mix(store, ref, config.mix, patience=Patience()), config)

    @property
    def is_in_memory(self) -> bool:
        """Whether a store of it is not there for other processes."""
        return any(one.store.protocol == "memory" for one in self._datasets)

    def __reduce__(self) -> tuple[Any, ...]:  # Any: pickle's
        commits = [(one.dataset.store, one.dataset.commit_id, one.source) for one in self._mix]
        return _opened_again, (commits, self._config)

    # -- rows ------------------------------------------------------------------------------------

    def image(self, image: int) -> ImageRow:
        """One of the `num_images` images."""
        images, annotations = self._images, self._annotations
        first = int(images["first"][image])
        mine = slice(first, first + int(images["num"][image]))
        categories = annotations["category"][mine]
        judged = judged_categories(
            self._known[images["origin"][image]],
            is_federated=bool(images["is_federated"][image]),
            present=categories,
            negative=images.numbers("negative", image),
            not_judged=images.numbers("not_judged", image),
        )
        return ImageRow(
            image_id=images.item("image_id", image).hex(),
            shard=self._facts.shards[images["shard"][image]][1],
            size_hw=(int(images["height"][image]), int(images["width"][image])),
            categories=categories,
            boxes_xyxy=annotations["box_xyxy"][mine],
            mask_rows=annotations["mask_row"][mine],
            weights=annotations["weight"][mine],
            judged=judged,
        )

    def weights(self) -> NDArray[np.float64]:
        """[num_images] how often each is drawn: its dataset's weight, times that of human masks or
        of pseudo-masks. An image without boxes has only its dataset's."""
        has_human, has_boxes = self._images["has_human"] > 0, self._images["num"] > 0
        pseudo = np.where(has_boxes, self._config.pseudo_weight, 1.0)
        kinds = np.where(has_human, self._config.human_weight, pseudo)
        datasets = [one.source.weight for one in self._mix]
        weights: NDArray[np.float64] = kinds * np.repeat(datasets, np.diff(self._facts.datasets))
        return weights

    def present(self, images: Ints) -> tuple[Ints, Ints]:
        """Categories of the targets of some images, and those verified as absent in one; sorted.

        A category of both comes in the first alone.
        """
        present: set[int] = set()
        absent: set[int] = set()
        for image in images.tolist():
            first = self._images["first"][image]
            last = first + self._images["num"][image]
            present.update(self._annotations["category"][first:last].tolist())
            absent.update(self._images.numbers("negative", image).tolist())
        return np.array(sorted(present), np.int64), np.array(sorted(absent - present), np.int64)

    # -- bytes -----------------------------------------------------------------------------------

    def image_bytes(self, image: int) -> bytes:
        """The stored bytes of an image.

        Raises:
            ObjectDamagedError: they are not those that were stored.
            StoreError: they cannot be read.
        """
        dataset, shard = self._place(image)
        cell = dataset.cell(shard, IMAGES)
        data = self._cache.read_range(
            dataset.store,
            StoredObject(object_id=cell.object_id, num_bytes=cell.num_bytes),
            start=int(self._images["offset"][image]),
            num_bytes=int(self._images["size"][image]),
        )
        is_original = self._images["is_original"][image]
        if is_original and content_id(data) != self._images.item("image_id", image).hex():
            raise ObjectDamagedError("its bytes are not those that were stored")
        return data

    def mask_counts(self, image: int, mask_rows: NDArray[np.int32]) -> pa.Array:
        """[n] RLE counts (large_binary) of some of an image's `mask_rows`, none of them -1.

        Raises:
            StoreError: they cannot be read.
        """
        dataset, shard = self._place(image)
        return self._packs.counts(dataset, shard, mask_rows)

    def _place(self, image: int) -> tuple[Dataset, str]:
        number, shard = self._facts.shards[self._images["shard"][image]]
        return self._datasets[number], shard

    def _check_not_empty(self) -> None:
        if self.num_masks:
            return
        lost = Counter(self.dropped) + Counter(self.skipped)
        why = ", ".join(f"{reason} {count}" for reason, count in lost.most_common(5))
        if not self.num_images:
            raise InputError(
                f"no image is left to train on ({why or 'there are none'}); see skip_images of "
                "data.mix, and 'maskmill show' for what is quarantined"
            )
        raise InputError(
            f"no image has a mask to train on: all masks of '{self._config.masks}' were dropped or "
            f"are missing ({why or 'there are no boxes'}); run 'maskmill filter' with a looser "
            "policy, or choose a layer with data.masks"
        )

    def _check_drawn(self) -> None:
        """Masks that are never drawn are none: a run would learn nothing, and not say so."""
        is_drawn = np.repeat(self.weights() > 0, self._images["num"])  # [num_targets]
        if not (is_drawn & (self._annotations["mask_row"] >= 0)).any():
            raise InputError(
                "no image with a mask is left to train on: each has weight 0; see data.mix, "
                "data.human_weight and data.pseudo_weight"
            )


def _opened_again(
    commits: Sequence[tuple[Store, str, SourceConfig]], config: DataConfig
) -> TrainingData:
    """In another process: the same commits, whatever became of their refs."""
    patience = Patience()
    mix = [
        MixedDataset(
            dataset=patience.ask(partial(Dataset, store, commit_id), what="opening a commit"),
            source=source,
        )
        for store, commit_id, source in commits
    ]
    return TrainingData(mix, config)
