"""The records of `maskmill status`: one layer, one category, one thing to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerStatus:
    """One layer of a ref.

    Attributes:
        num_cells: shards that have it.
        num_rows: rows of these.
        counts: rows by status (masks), kept and by drop reason (verdicts), or with a value or not.
        num_lacking: shards that should have it and do not (of `agreement`: with two teachers).
        num_lacking_rows: boxes of these shards.
        num_stale: cells that were computed from objects the shard does not have any more.
        num_stale_rows: rows of these.
    """

    layer: str
    num_cells: int
    num_rows: int
    counts: Mapping[str, int]
    num_lacking: int = 0
    num_lacking_rows: int = 0
    num_stale: int = 0
    num_stale_rows: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryStatus:
    """A category's boxes, and how many of them have a human mask."""

    category: str
    num_boxes: int
    num_gold: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Todo:
    """Something that is missing, and the command that mends it; "" if only people can."""

    layer: str
    what: str
    command: str
