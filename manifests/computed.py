"""What computed cells were made of: the cells beside them, and for confidence a calibrator."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from manifests import schemas
from manifests.manifest import Cell, Manifest

_MASKS = schemas.masks_layer("")


def calibrator_of(cell: Cell) -> str:
    """Object id of the calibrator of a `confidence` cell, its last input; "" if it names none."""
    return cell.inputs[-1] if cell.layer == schemas.CONFIDENCE and cell.inputs else ""


def cell_inputs(cell: Cell) -> tuple[str, ...]:
    """The cells that a cell was made of."""
    return cell.inputs[:-1] if calibrator_of(cell) else cell.inputs


def is_of_others(cell: Cell, beside: Collection[str]) -> bool:
    """Whether a computed cell was made of cells that its shard does not have any more."""
    return not set(cell_inputs(cell)) <= set(beside)


def drawn_layers(manifest: Manifest, shard: str, teachers: Collection[str] = ()) -> list[Cell]:
    """A shard's masks by teachers, or by some of them."""
    wanted = set(map(schemas.masks_layer, teachers))
    return [
        cell
        for cell in manifest.of_shard(shard)
        if cell.layer.startswith(_MASKS)
        and cell.layer != schemas.MASKS_HUMAN
        and (not wanted or cell.layer in wanted)
    ]


def current_ids(manifest: Manifest, shard: str) -> Mapping[str, str]:
    """Layer -> object id of a shard."""
    return {cell.layer: cell.object_id for cell in manifest.of_shard(shard)}
