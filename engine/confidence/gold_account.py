"""The account of an import of gold: what became of every answer and of every box of its images.

Two lines of the ledger. `answers`: what people drew, counted in the file, and what became of it.
`masks/human`: the boxes of the images they drew in, counted in the dataset, and whether each has a
human mask now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from engine.confidence.drawn import UNKNOWN_IMAGE, DrawnImage
from engine.confidence.gold_outcomes import Outcome
from engine.confidence.gold_shard import DrawnShard
from manifests import schemas
from manifests.ledger import NO_CATEGORY, Ledger, LedgerCounter

ANSWERS = "answers"


class GoldAccount:
    """Counts answers as they come in and as they go out, and lists those that are not used."""

    def __init__(self) -> None:
        self._counter = LedgerCounter()
        self._unknown: list[tuple[DrawnImage, Outcome]] = []
        self._outcomes: dict[str, list[Outcome]] = {}
        self._images: dict[str, Mapping[str, Any]] = {}  # Any: one value of each index column
        self.num_new = self.num_replaced = self.num_kept = 0

    def add_file(self, images: Iterable[DrawnImage], ids: Iterable[str | None]) -> None:
        """Counts every answer of the file, and settles those to images that are not here."""
        for image, image_id in zip(images, ids, strict=True):
            for answer in image.answers:
                self._counter.add_inputs(ANSWERS, answer.category or NO_CATEGORY)
                if image_id is None:
                    detail = answer.detail or "no image of the dataset has this id or name"
                    outcome = Outcome(answer=answer, reason=UNKNOWN_IMAGE, detail=detail)
                    self._unknown.append((image, outcome))

    def add_shard(self, result: DrawnShard) -> None:
        """Adds what became of the answers and boxes of one shard.

        A picture that is in two shards is drawn in both; its answers count once, as used if either
        could use them.
        """
        for image_id, outcomes in result.outcomes.items():
            before = self._outcomes.get(image_id, outcomes)
            self._outcomes[image_id] = [
                first if not first.reason else second
                for first, second in zip(before, outcomes, strict=True)
            ]
        self._images.update(result.images)
        for (category, reason), count in result.boxes.items():
            self._counter.add_inputs(schemas.MASKS_HUMAN, category, count)
            if reason:
                self._counter.add_dropped(schemas.MASKS_HUMAN, category, reason=reason, count=count)
            else:
                self._counter.add_kept(schemas.MASKS_HUMAN, category, count)
        self.num_new += result.num_new
        self.num_replaced += result.num_replaced
        self.num_kept += result.num_kept

    @property
    def num_used(self) -> int:
        """Answers that are gold now."""
        return sum(not outcome.reason for outcome in self._all())

    @property
    def not_used(self) -> dict[str, int]:
        """Why answers are not used -> how many."""
        counts = Counter(outcome.reason for outcome in self._all() if outcome.reason)
        return dict(sorted(counts.items()))

    def ledger(self) -> Ledger:
        """Both lines, by category; not checked."""
        counter = LedgerCounter()
        counter.add_ledger(self._counter.ledger().rows)
        for outcome in self._all():
            category = outcome.answer.category or NO_CATEGORY
            if outcome.reason:
                counter.add_dropped(ANSWERS, category, reason=outcome.reason)
            else:
                counter.add_kept(ANSWERS, category)
        return counter.ledger()

    def rejects(self) -> pa.Table:
        """REJECTS_SCHEMA: a row for every answer that is not used."""
        rows = [
            _reject(outcome, {"file_name": image.file_name}) for image, outcome in self._unknown
        ]
        rows += [
            _reject(outcome, self._images[image_id])
            for image_id, outcomes in self._outcomes.items()
            for outcome in outcomes
            if outcome.reason
        ]
        return pa.Table.from_pylist(rows, schema=schemas.REJECTS_SCHEMA)

    def _all(self) -> Sequence[Outcome]:
        unknown = [outcome for _, outcome in self._unknown]
        return [*unknown, *(one for found in self._outcomes.values() for one in found)]


def _reject(outcome: Outcome, image: Mapping[str, Any]) -> dict[str, Any]:  # Any: see above
    return {
        "layer": schemas.MASKS_HUMAN,
        "outcome": "dropped",
        "reason": outcome.reason,
        "detail": outcome.detail or None,
        "source": image.get("source", ANSWERS),
        "source_image_id": image.get("source_image_id"),
        "file_name": image["file_name"],
        "source_annotation_id": outcome.answer.name or None,
        "category": outcome.answer.category,
    }
