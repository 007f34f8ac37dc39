"""Which categories are judged in which image: those that somebody looked for there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manifests.dataset import Dataset
from manifests.schemas import IMAGE_INDEX
from student.data.judged import federated_origins, judged_categories, known_categories
from student.evaluation.instances import IntArray

_COLUMNS = ["origins", "negative", "not_exhaustive"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lists:
    """What an image came with: its origin's number, and categories by number."""

    origin: int
    negative: NDArray[np.int32]
    not_exhaustive: NDArray[np.int32]


class Judging:
    """The same rule as in training: see student.data.judged."""

    def __init__(self, dataset: Dataset, categories: Sequence[str]) -> None:
        """Reads a few columns of all images: whether a source is federated shows in any of them."""
        place_of = {name: place for place, name in enumerate(categories)}
        number_of: dict[tuple[str, ...], int] = {}
        self._lists: dict[str, list[_Lists]] = {}
        for cell in dataset.manifest.of_layer(IMAGE_INDEX):
            rows = dataset.table(cell.shard, IMAGE_INDEX, columns=_COLUMNS).to_pylist()
            self._lists[cell.shard] = [
                _Lists(
                    origin=number_of.setdefault(
                        tuple(dict.fromkeys(origin["source"] for origin in row["origins"])),
                        len(number_of),
                    ),
                    negative=_numbers(row["negative"], place_of),
                    not_exhaustive=_numbers(row["not_exhaustive"], place_of),
                )
                for row in rows
            ]
        images = [one for lists in self._lists.values() for one in lists]
        origins = list(number_of)
        has_lists = np.array([bool(len(i.negative) + len(i.not_exhaustive)) for i in images], bool)
        origin_of = np.array([image.origin for image in images], dtype=np.int32)
        self._known = known_categories(dataset.commit.categories, origins, categories=categories)
        self._is_federated = federated_origins(origins, has_lists, origin_of)

    def unjudged(self, shard: str, image_row: int, present: IntArray) -> frozenset[int]:
        """Categories of which an image may have more than people marked.

        Args:
            shard, image_row: the image, by its row of the shard's index.
            present: categories of what is marked in it.
        """
        lists = self._lists[shard][image_row]
        judged = judged_categories(
            self._known[lists.origin],
            is_federated=bool(self._is_federated[lists.origin]),
            present=present.astype(np.int32),
            negative=lists.negative,
            not_judged=lists.not_exhaustive,
        )
        return frozenset(np.flatnonzero(~judged).tolist())


def _numbers(names: Sequence[str], place_of: dict[str, int]) -> NDArray[np.int32]:
    return np.array([place_of[name] for name in names if name in place_of], dtype=np.int32)
