"""The ledger: inputs = kept + dropped(reason) + failed(reason), per layer and per category.

`inputs` are counted where rows enter an operation, outcomes where they leave it, by different code;
that is what makes the balance a check and not a definition.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from manifests.errors import LedgerImbalanceError

NO_CATEGORY = ""
"""Category of rows that have none: images, and boxes whose category the source does not name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """What became of the rows of one layer and category in one operation."""

    layer: str
    category: str
    inputs: int
    kept: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, int] = field(default_factory=dict)

    @property
    def missing(self) -> int:
        """Rows that nothing accounts for; 0 in a ledger that balances."""
        return self.inputs - self.kept - sum(self.dropped.values()) - sum(self.failed.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Rows sorted by layer and category."""

    rows: tuple[LedgerRow, ...] = ()

    def check(self) -> None:
        """Raises LedgerImbalanceError naming the first row that does not balance."""
        for row in self.rows:
            if min(row.inputs, row.kept, *row.dropped.values(), *row.failed.values()) < 0:
                raise LedgerImbalanceError(
                    f"ledger of {row.layer}, category {row.category or '(none)'}: a count is "
                    "below zero; this is a bug in maskmill, please report it; nothing was committed"
                )
            if row.missing:
                raise LedgerImbalanceError(
                    f"ledger of {row.layer}, category {row.category or '(none)'}: {row.inputs} "
                    f"inputs, but {row.inputs - row.missing} accounted for; this is a bug in "
                    "maskmill, please report it; nothing was committed"
                )

    def totals(self) -> tuple[LedgerRow, ...]:
        """One row a layer, summed over categories."""
        counter = LedgerCounter()
        for row in self.rows:
            counter.add_row(row, category=NO_CATEGORY)
        return counter.ledger().rows


_ByReason = defaultdict[tuple[str, str], Counter[str]]
"""(layer, category) -> reason -> count."""


class LedgerCounter:
    """Collects counts; `ledger()` freezes them."""

    def __init__(self) -> None:
        self._inputs: Counter[tuple[str, str]] = Counter()
        self._kept: Counter[tuple[str, str]] = Counter()
        self._dropped: _ByReason = defaultdict(Counter)
        self._failed: _ByReason = defaultdict(Counter)

    def add_inputs(self, layer: str, category: str = NO_CATEGORY, count: int = 1) -> None:
        """Rows that entered the operation."""
        self._inputs[layer, category] += count

    def add_kept(self, layer: str, category: str = NO_CATEGORY, count: int = 1) -> None:
        """Rows that came out."""
        self._kept[layer, category] += count

    def add_dropped(
        self, layer: str, category: str = NO_CATEGORY, *, reason: str, count: int = 1
    ) -> None:
        """Rows left out on purpose."""
        self._dropped[layer, category][reason] += count

    def add_failed(
        self, layer: str, category: str = NO_CATEGORY, *, reason: str, count: int = 1
    ) -> None:
        """Rows lost to an error."""
        self._failed[layer, category][reason] += count

    def add_row(self, row: LedgerRow, *, category: str | None = None) -> None:
        """Adds a finished row, under another category if one is given."""
        key = (row.layer, row.category if category is None else category)
        self._inputs[key] += row.inputs
        self._kept[key] += row.kept
        for counts, more in ((self._dropped[key], row.dropped), (self._failed[key], row.failed)):
            for reason, count in more.items():  # many times faster than Counter.update
                counts[reason] += count

    def add_ledger(self, rows: Iterable[LedgerRow]) -> None:
        """Adds every row of another ledger."""
        for row in rows:
            self.add_row(row)

    def ledger(self) -> Ledger:
        """The frozen ledger; not checked."""
        keys = sorted({*self._inputs, *self._kept, *self._dropped, *self._failed})
        return Ledger(rows=tuple(self._row(*key) for key in keys))

    def _row(self, layer: str, category: str) -> LedgerRow:
        return LedgerRow(
            layer=layer,
            category=category,
            inputs=self._inputs[layer, category],
            kept=self._kept[layer, category],
            dropped=_reasons(self._dropped.get((layer, category), {})),
            failed=_reasons(self._failed.get((layer, category), {})),
        )


def _reasons(counts: Mapping[str, int]) -> dict[str, int]:
    return {reason: counts[reason] for reason in sorted(counts) if counts[reason]}
