"""One shard's verdicts, from a policy and what the layers say; strings are handled as codes.

Legend: N rows of the shard. Ten million rows of strings are slow to compare and to choose from, so
they become positions in a list of words first, and strings again in the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.policy import CONFIDENCE, IMAGE_FRACTION, RULES, Policy, judge
from manifests import schemas

NO_MASK = "no_mask"
NOT_LABELLED = "not_labelled"
SIGNALS = sorted({rule.column for rule in RULES.values()} - {IMAGE_FRACTION, CONFIDENCE})
HUMAN_COLUMNS = ["status"]
TEACHER_COLUMNS = ["status", "reason", "height", "width", *SIGNALS]
"""What `judge_shard` wants to know of a layer."""
NULL = -1

Flags = NDArray[np.bool_]
Codes = NDArray[np.int32]
"""[N] positions in a list of words; -1 is null."""


def judge_shard(
    categories: pa.ChunkedArray, masks: Mapping[str, pa.Table | None], policy: Policy
) -> pa.Table:
    """VERDICTS_SCHEMA rows for one shard.

    A human mask is taken first, then the first teacher's that passes. Where none passes, the
    verdict is on the most preferred teacher that drew a mask; where none drew one, the reason is
    why the most preferred teacher did not.

    Args:
        categories: [N] of the shard's boxes.
        masks: layer name -> that layer's TEACHER_COLUMNS (or HUMAN_COLUMNS), aligned with the
            boxes; None for a layer that this shard does not have yet.
        policy: the rules.
    """
    size, words = len(categories), Words()
    encoded = pc.dictionary_encode(categories.combine_chunks())
    keep = np.zeros(size, dtype=bool)
    teacher, judged, reason, why_none = (np.full(size, NULL, dtype=np.int32) for _ in range(4))
    human = masks.get(schemas.MASKS_HUMAN)
    if policy.use_human and human is not None:
        keep = is_drawn(human)
        teacher[keep] = words.code(schemas.MASKS_HUMAN)
    for layer in map(schemas.masks_layer, policy.teachers):
        table = masks.get(layer)
        if table is None:
            why_none[why_none == NULL] = words.code(NOT_LABELLED)
            continue
        has_mask = is_drawn(table)
        broken = words.codes(judge(_signals(table), encoded, policy))
        passes = has_mask & (broken == NULL) & ~keep
        teacher[passes] = words.code(layer)
        keep = keep | passes
        is_first = has_mask & (judged == NULL)
        judged[is_first] = words.code(layer)
        reason[is_first] = broken[is_first]
        needs_why = ~has_mask & (why_none == NULL)
        why_none[needs_why] = words.codes(why_none_drawn(table.filter(pa.array(needs_why))))
    why_none[why_none == NULL] = words.code(NO_MASK)
    reason = np.where(keep, NULL, np.where(reason == NULL, why_none, reason))
    columns = [
        pa.array(keep),
        words.strings(reason),
        words.strings(np.where(keep, teacher, judged)),
        pa.array(np.zeros(size, dtype=np.int16)),
        pa.array(keep.astype(np.float32)),
    ]
    return pa.table(columns, schema=schemas.VERDICTS_SCHEMA)


class Words:
    """Words and their positions, as they come."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def code(self, word: str) -> int:
        """The position of a word, which may be new."""
        return self._codes.setdefault(word, len(self._codes))

    def codes(self, strings: pa.StringArray | pa.ChunkedArray) -> Codes:
        """[N] positions of strings."""
        if isinstance(strings, pa.ChunkedArray):
            strings = strings.combine_chunks()
        encoded = pc.dictionary_encode(strings)
        known = np.array([*map(self.code, encoded.dictionary.to_pylist()), NULL], dtype=np.int32)
        indices = encoded.indices.fill_null(len(known) - 1).to_numpy()
        codes: Codes = known[indices]
        return codes

    def strings(self, codes: Codes) -> pa.StringArray:
        """[N] the words at these positions."""
        words = pa.array([*self._codes, None], pa.string())
        return words.take(pa.array(np.where(codes == NULL, len(words) - 1, codes)))


def is_drawn(masks: pa.Table) -> Flags:
    flags: Flags = pc.equal(masks["status"], schemas.OK).to_numpy()
    return flags


def why_none_drawn(masks: pa.Table) -> pa.StringArray:
    """[N] why a row has no mask."""
    is_pending = pc.equal(masks["status"].combine_chunks(), schemas.PENDING)
    return pc.coalesce(
        masks["reason"].combine_chunks(), pc.if_else(is_pending, NOT_LABELLED, NO_MASK)
    )


def _signals(masks: pa.Table) -> dict[str, NDArray[np.float32] | NDArray[np.float64]]:
    """Column -> [N], as `judge` wants them."""
    signals = {name: signal_numbers(masks[name]) for name in SIGNALS}
    num_pixels = signal_numbers(masks["height"]) * signal_numbers(masks["width"])
    signals[IMAGE_FRACTION] = signals["area_px"] / num_pixels
    signals[CONFIDENCE] = np.full(masks.num_rows, np.nan, np.float32)  # nobody asks: see Policy
    return signals


def signal_numbers(column: pa.ChunkedArray) -> NDArray[np.float32] | NDArray[np.float64]:
    """[N] null becomes NaN ("no such signal"), NaN becomes infinity ("not a number")."""
    if not pa.types.is_floating(column.type):
        column = column.cast(pa.float64())
    values: NDArray[Any] = column.to_numpy()  # Any: float32 or float64, as the column is
    is_finite = np.isfinite(values)
    if np.count_nonzero(is_finite) + column.null_count == len(values):
        return values
    is_odd = ~is_finite & column.is_valid().to_numpy()
    return np.where(is_odd, values.dtype.type(np.inf), values)
