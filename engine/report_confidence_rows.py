"""What a report needs of one shard to speak of confidence: small columns, joined by position.

Legend: N boxes of the shard.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.confidence.outputs import Bools, Floats, Output, as_floats
from manifests import schemas
from manifests.dataset import Dataset
from manifests.kept_masks import aligned_table

Ints = NDArray[np.int64]
NOBODY = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfidenceRows:
    """See the module.

    Attributes:
        categories: [N] dictionary-encoded names.
        image_rows: [N] rows in the shard's image_index.
        has_human: [N] there is a human mask.
        own: teacher -> [N] confidence of its own choice; NaN where it drew none.
        outputs: what `judged` counts.
        judged: [N] the output that the verdict speaks of, or, without verdicts, that confidence
            takes; NOBODY where that is a human mask, or there is none.
        confidence: [N] of that output; NaN for nobody.
        best: [N] that of the output that confidence takes, whatever the verdict; NaN without any.
        keep: [N] or None without verdicts.
        reasons: [N] drop reasons; null where there is none.
        own_iou: pair of teachers -> [N] IoU of their own choices; NaN where one is missing.
    """

    categories: pa.DictionaryArray
    image_rows: Ints
    has_human: Bools
    own: dict[str, Floats]
    outputs: tuple[Output, ...]
    judged: Ints
    confidence: Floats
    best: Floats
    keep: Bools | None
    reasons: pa.ChunkedArray
    own_iou: dict[tuple[str, str], Floats]


def confidence_rows(dataset: Dataset, shard: str) -> ConfidenceRows | None:
    """The rows of a shard; None for one without boxes or without confidence.

    Raises:
        ObjectMissingError, ObjectDamagedError: a cell cannot be read, or is not aligned.
    """
    if not all(dataset.manifest.get(shard, need) for need in (schemas.BOXES, schemas.CONFIDENCE)):
        return None
    boxes = dataset.table(shard, schemas.BOXES, columns=["category", "image_row"])
    size = boxes.num_rows
    scored = aligned_table(dataset, shard, schemas.CONFIDENCE, size, columns=None)
    names = scored.column_names[len(schemas.CONFIDENCE_SCHEMA) :]
    outputs = tuple(Output.of(name) for name in names)
    values = [as_floats(scored[name]) for name in names]
    source, keep = scored, None
    reasons = pa.chunked_array([pa.nulls(size, pa.string())])
    if dataset.manifest.get(shard, schemas.VERDICTS):
        source = aligned_table(dataset, shard, schemas.VERDICTS, size, columns=None)
        keep, reasons = np.asarray(source["keep"]), source["reason"]
    judged = _places(source, outputs)
    known = np.stack([*values, np.full(size, np.nan, np.float32)], axis=1)
    return ConfidenceRows(
        categories=boxes["category"].combine_chunks().dictionary_encode(),
        image_rows=boxes["image_row"].to_numpy().astype(np.int64),
        has_human=_has_human(dataset, shard, size),
        own={o.teacher: v for o, v in zip(outputs, values, strict=True) if not o.candidate},
        outputs=outputs, judged=judged, confidence=known[np.arange(size), judged],
        best=as_floats(scored["confidence"]), keep=keep, reasons=reasons,
        own_iou=_own_iou(dataset, shard, size, [o.teacher for o in outputs if not o.candidate]),
    )  # fmt: skip


def _places(source: pa.Table, outputs: tuple[Output, ...]) -> Ints:
    """[N] which output each row names by its columns `teacher` and `candidate`."""
    places = {(output.teacher, output.candidate): n for n, output in enumerate(outputs)}
    teachers = source["teacher"].combine_chunks().dictionary_encode()
    prefix = schemas.masks_layer("")
    words = [word.removeprefix(prefix) for word in teachers.dictionary.to_pylist()]
    codes = teachers.indices.fill_null(len(words)).to_numpy().astype(np.int64)
    candidates = source["candidate"].to_numpy().astype(np.int64)
    found = np.full(len(codes), NOBODY, np.int64)
    for (teacher, candidate), place in places.items():
        if teacher in words:
            found[(codes == words.index(teacher)) & (candidates == candidate)] = place
    return found


def _has_human(dataset: Dataset, shard: str, size: int) -> Bools:
    if dataset.manifest.get(shard, schemas.MASKS_HUMAN) is None:
        return np.zeros(size, dtype=bool)
    table = aligned_table(dataset, shard, schemas.MASKS_HUMAN, size, columns=["status"])
    return np.asarray(pc.equal(table["status"], schemas.OK))


def _own_iou(
    dataset: Dataset, shard: str, size: int, teachers: list[str]
) -> dict[tuple[str, str], Floats]:
    cell = dataset.manifest.get(shard, schemas.AGREEMENT)
    pairs = {schemas.pair_name(*pair): pair for pair in combinations(sorted(teachers), 2)}
    if cell is None or not pairs:
        return {}
    # All columns: which of the pairs an older commit has is not known before.
    table = aligned_table(dataset, shard, schemas.AGREEMENT, size, columns=None)
    there = set(table.column_names)
    return {pair: as_floats(table[name]) for name, pair in pairs.items() if name in there}
