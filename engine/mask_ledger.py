"""What became of every box that a teacher was given, by category, as lines of a ledger."""

from __future__ import annotations

import pyarrow as pa

from manifests import schemas
from manifests.ledger import LedgerCounter, LedgerRow


def mask_outcomes(
    layer: str, *, categories: pa.ChunkedArray, masks: pa.Table
) -> tuple[LedgerRow, ...]:
    """Counts rows of a masks layer: drawn, not prompted on purpose, failed.

    Args:
        layer: `masks/<teacher>`.
        categories: [N] of the boxes.
        masks: [N] `status` and `reason`, aligned with them.
    """
    counter = LedgerCounter()
    columns = [categories, masks["status"], masks["reason"]]
    grouped = pa.table(columns, names=["category", "status", "reason"])
    counts = grouped.group_by(["category", "status", "reason"]).aggregate([([], "count_all")])
    for entry in counts.to_pylist():
        category, count = entry["category"], entry["count_all"]
        if entry["status"] == schemas.OK:
            counter.add_kept(layer, category, count)
        elif entry["status"] == schemas.SKIPPED:
            counter.add_dropped(layer, category, reason=entry["reason"], count=count)
        else:
            counter.add_failed(layer, category, reason=entry["reason"], count=count)
    return counter.ledger().rows
