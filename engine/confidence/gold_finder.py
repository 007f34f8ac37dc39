"""What a policy chooses for gold boxes: masks whose true IoU is known."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.confidence.chosen import Chosen
from engine.confidence.gold import GOLD_SCHEMA
from engine.confidence.outputs import Bools, Floats
from engine.confidence.roles import CERTIFY
from engine.confidence.tally import Tally, bins_of
from manifests import schemas
from manifests.cells import read_table
from manifests.dataset import Dataset

Ints = NDArray[np.int64]


def gold_of(dataset: Dataset, object_id: str | None) -> pa.Table:
    """GOLD_SCHEMA rows of a calibrator's gold, those whose boxes are where they were.

    A calibrator may be applied long after it was fitted, to shards whose boxes were replaced.

    Args:
        object_id: None: there is none.

    Raises:
        ObjectMissingError, ObjectDamagedError: it cannot be read.
    """
    if object_id is None:
        return GOLD_SCHEMA.empty_table()
    gold = read_table(dataset.store, object_id)
    parts = [gold.slice(0, 0)]
    for shard in gold["shard"].unique().to_pylist():
        if dataset.manifest.get(shard, schemas.BOXES) is None:
            continue
        mine = gold.filter(pc.equal(gold["shard"], shard))
        ids = dataset.table(shard, schemas.BOXES, columns=["annotation_id"])["annotation_id"]
        mine = mine.filter(pc.less(mine["row"], len(ids)))
        parts.append(mine.filter(pc.equal(ids.take(mine["row"]), mine["annotation_id"])))
    return pa.concat_tables(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldChoice:
    """Gold boxes whose chosen mask breaks no rule; M of them.

    Attributes:
        bins: [M] of the chosen mask's confidence.
        categories: [M] places in `Tally.categories`.
        iou: [M] of the chosen mask with the human one.
        images: [M] a number for each image.
        certifies: [M] the others calibrate.
    """

    bins: Ints
    categories: Ints
    iou: Floats
    images: Ints
    certifies: Bools


@dataclass(slots=True)
class GoldFinder:
    """Collects, shard by shard, what the policy chooses for gold boxes.

    Attributes:
        table: GOLD_SCHEMA rows.
    """

    table: pa.Table
    _parts: list[pa.Table] = field(default_factory=list)

    def add(self, shard: str, chosen: Chosen) -> None:
        """Looks a shard's gold up."""
        mine = self.table.filter(pc.equal(self.table["shard"], shard))
        if not mine.num_rows:
            return
        rows = mine["row"].to_numpy()
        place = {output.name: number for number, output in enumerate(chosen.outputs)}
        pairs = zip(mine["teacher"].to_pylist(), mine["candidate"].to_pylist(), strict=True)
        outputs = [place.get(schemas.output_name(*pair), -2) for pair in pairs]
        is_mine = (chosen.taken[rows] == np.array(outputs)) & chosen.passes[rows]
        found = mine.filter(pa.array(is_mine))
        confidence = pa.array(chosen.confidence[rows[is_mine]], pa.float32())
        joined = found.set_column(
            found.schema.get_field_index("confidence"),
            "confidence",
            pc.if_else(pc.equal(found["role"], CERTIFY), confidence, found["confidence"]),
        )
        self._parts.append(joined.cast(GOLD_SCHEMA))

    def choice(self, tally: Tally) -> GoldChoice:
        """What was found."""
        found = pa.concat_tables([GOLD_SCHEMA.empty_table(), *self._parts])
        if not found.num_rows:
            nothing = np.zeros(0, np.int64)
            return GoldChoice(
                bins=nothing, categories=nothing, iou=np.zeros(0, np.float32), images=nothing,
                certifies=np.zeros(0, bool),
            )  # fmt: skip
        images = found["image_id"].combine_chunks().dictionary_encode().indices
        names = found["category"].to_pylist()
        return GoldChoice(
            bins=bins_of(found["confidence"].to_numpy()),
            categories=np.array([tally.categories[name] for name in names], np.int64),
            iou=found["iou"].to_numpy(),
            images=np.asarray(images).astype(np.int64),
            certifies=np.asarray(pc.equal(found["role"], CERTIFY)),
        )
