"""What the newest steps of each kind were made with, and which cells that leaves out of date."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from manifests import schemas
from manifests.computed import calibrator_of, current_ids, drawn_layers, is_of_others
from manifests.dataset import Dataset
from manifests.history import HistoryEntry, newest
from manifests.manifest import Cell, Manifest

_MASKS = schemas.masks_layer("")
_MADE_BY = {
    schemas.AGREEMENT: "agree", schemas.CONFIDENCE: "calibrate", schemas.VERDICTS: "filter",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class LastMade:
    """Computed layer -> the newest commit that made it; without those that nobody made."""

    entries: Mapping[str, HistoryEntry]

    @staticmethod
    def of(dataset: Dataset) -> LastMade:
        """Of the layers that a commit has.

        Raises:
            ObjectMissingError, ObjectDamagedError: a commit of its history cannot be read.
        """
        layers = [layer for layer in _MADE_BY if layer in dataset.manifest.layers()]
        found = {layer: _newest(dataset, _MADE_BY[layer]) for layer in layers}
        return LastMade(entries={layer: entry for layer, entry in found.items() if entry})

    def config(self, layer: str) -> Mapping[str, Any]:  # Any: JSON
        """What the layer's step was configured with; {} if there was none."""
        entry = self.entries.get(layer)
        return entry.commit.operation.config if entry else {}

    @property
    def calibrator(self) -> str:
        """Object id of the newest calibrator; "" if there is none."""
        entry = self.entries.get(schemas.CONFIDENCE)
        return ((entry.commit.attached or {}) if entry else {}).get("calibrator", "")

    def teachers(self, layer: str) -> tuple[str, ...]:
        """Those that the step of `agreement` or `verdicts` named."""
        return tuple(self.config(layer).get("teachers", ()))

    def is_stale(self, manifest: Manifest, cell: Cell) -> bool:
        """Whether a cell was computed from what its shard does not have any more.

        Of masks only the boxes count: a new origin of an image changes its index and no mask, and
        rows that were carried over come from an older cell on purpose. Computed cells are stale as
        well where a layer that their step named, or agreement or a calibrator, came after them. A
        cell that names no inputs is not known to be.
        """
        if not cell.inputs:
            return False
        current = current_ids(manifest, cell.shard)
        if cell.layer.startswith(_MASKS):
            return current.get(schemas.BOXES) not in cell.inputs
        if cell.layer not in schemas.COMPUTED_LAYERS:
            return False
        return is_of_others(cell, current.values()) or self._came_later(cell, current)

    def _came_later(self, cell: Cell, current: Mapping[str, str]) -> bool:
        if cell.layer == schemas.CONFIDENCE:
            wanted = [schemas.AGREEMENT]
            if self.calibrator and calibrator_of(cell) != self.calibrator:
                return True
        else:
            wanted = [schemas.masks_layer(name) for name in self.teachers(cell.layer)]
        return not {current[layer] for layer in wanted if layer in current} <= set(cell.inputs)

    def should_have(self, manifest: Manifest, layer: str, shard: str) -> bool:
        """Whether a layer that other shards have belongs to this one as well, which has boxes."""
        if layer == schemas.AGREEMENT:
            return len(drawn_layers(manifest, shard, self.teachers(layer))) > 1
        is_human = layer == schemas.MASKS_HUMAN
        return layer in _MADE_BY or (layer.startswith(_MASKS) and not is_human)


def _newest(dataset: Dataset, operation: str) -> HistoryEntry | None:
    return newest(
        dataset.store, dataset.commit_id, lambda commit: commit.operation.name == operation
    )
