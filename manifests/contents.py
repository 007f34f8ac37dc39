"""What a commit holds, apart from who made it and when; and whether two of them hold the same.

Contents are the manifest's cells, the categories, the ledger, the rejects, the takedowns, attached
objects such as a calibrator, and the quality that is promised.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from manifests.commit import Category
from manifests.compare_cells import GIVEN, SAME, SAME_ROWS, CellFate, cell_fates, differing_images
from manifests.compare_facts import (
    differing_attached,
    differing_categories,
    differing_ledger,
    differing_quality,
    differing_rejects,
    differing_removals,
)
from manifests.dataset import Dataset
from manifests.ledger import Ledger
from manifests.manifest import Manifest
from manifests.removed import Removals
from manifests.store import Store
from manifests.writer import Draft


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """See the module's docstring. `rejects` is the object id of their table, or None."""

    manifest: Manifest
    categories: tuple[Category, ...]
    ledger: Ledger
    rejects: str | None
    removals: Removals
    attached: Mapping[str, str] = field(default_factory=dict)
    quality: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON

    @staticmethod
    def of(dataset: Dataset) -> Contents:
        """Of a commit."""
        commit = dataset.commit
        return Contents(
            manifest=dataset.manifest, categories=commit.categories, ledger=commit.ledger,
            rejects=commit.rejects, removals=Removals.load(dataset.store, commit),
            attached=commit.attached or {}, quality=commit.quality or {},
        )  # fmt: skip

    @staticmethod
    def of_draft(draft: Draft) -> Contents:
        """Of a commit that was not made."""
        return Contents(
            manifest=draft.manifest, categories=draft.categories, ledger=draft.ledger,
            rejects=draft.rejects, removals=draft.removals,
            attached=draft.attached or {}, quality=draft.quality or {},
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How two contents differ.

    Attributes:
        layers: layer -> how many cells have each fate.
        cells: every cell that is neither given nor the same.
        images, categories, ledger, rejects, removals, attached, quality: sentences; empty where
            nothing differs. `images` names those that only one of the two has.
    """

    layers: dict[str, dict[str, int]]
    cells: tuple[CellFate, ...]
    images: tuple[str, ...]
    categories: tuple[str, ...]
    ledger: tuple[str, ...]
    rejects: tuple[str, ...]
    removals: tuple[str, ...]
    attached: tuple[str, ...]
    quality: tuple[str, ...]

    @property
    def num_made(self) -> int:
        """Cells of either side but for those that were given."""
        fates = (item for layer in self.layers.values() for item in layer.items())
        return sum(count for fate, count in fates if fate != GIVEN)

    @property
    def num_differing(self) -> int:
        """Cells whose rows, or what they were computed from, are not the same."""
        return sum(cell.fate != SAME_ROWS for cell in self.cells)

    @property
    def is_same(self) -> bool:
        """The same rows everywhere, though perhaps written by another version of Parquet."""
        return not (self.sentences or self.num_differing)

    @property
    def sentences(self) -> tuple[str, ...]:
        """Everything that differs besides the cells."""
        return (
            *self.images, *self.categories, *self.ledger, *self.rejects, *self.removals,
            *self.attached, *self.quality,
        )  # fmt: skip


def compare(
    store: Store, expected: Contents, found: Contents, *, given: Manifest | None = None
) -> Comparison:
    """Compares two contents whose objects are in one store.

    Args:
        store: where they are.
        expected, found: the two.
        given: the cells that both were made from, to tell them from those that were made.

    Raises:
        ObjectMissingError, ObjectDamagedError: a table of rejects cannot be read.
    """
    before = Manifest() if given is None else given
    fates = list(cell_fates(store, expected.manifest, found.manifest, before))
    layers: dict[str, Counter[str]] = {}
    for cell in fates:
        layers.setdefault(cell.layer, Counter())[cell.fate] += 1
    return Comparison(
        layers={layer: dict(layers[layer]) for layer in sorted(layers)},
        cells=tuple(cell for cell in fates if cell.fate not in (GIVEN, SAME)),
        images=tuple(differing_images(store, expected.manifest, found.manifest)),
        categories=tuple(differing_categories(expected.categories, found.categories)),
        ledger=tuple(differing_ledger(expected.ledger, found.ledger)),
        rejects=tuple(differing_rejects(store, expected.rejects, found.rejects)),
        removals=tuple(differing_removals(expected.removals, found.removals)),
        attached=tuple(differing_attached(expected.attached, found.attached)),
        quality=tuple(differing_quality(expected.quality, found.quality)),
    )
