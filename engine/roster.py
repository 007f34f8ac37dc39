"""The teachers there are, and whether each could start on this machine without a download."""

from __future__ import annotations

from dataclasses import dataclass

from teachers import registry, weights


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherStatus:
    """One teacher; `weights` is the name of its weights file, or None if it needs none."""

    name: str
    description: str
    weights: str | None
    is_available: bool


def teachers() -> list[TeacherStatus]:
    """Every teacher of the registry.

    Raises:
        WeightsError: a file in `$MASKMILL_WEIGHTS` has the wrong digest.
    """
    return [
        TeacherStatus(
            name=name,
            description=spec.description,
            weights=spec.weights,
            is_available=spec.weights is None or weights.find(spec.weights) is not None,
        )
        for name, spec in registry.REGISTRY.items()
    ]
