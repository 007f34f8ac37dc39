"""Inputs = kept + dropped + failed, or nothing is committed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.errors import LedgerImbalanceError
from manifests.ledger import NO_CATEGORY, Ledger, LedgerCounter, LedgerRow

_REASONS = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(0, 50))


@st.composite
def _balanced_rows(draw: st.DrawFn) -> list[LedgerRow]:
    names = st.tuples(st.sampled_from(["boxes", "images"]), st.sampled_from(["", "cat", "dog"]))
    rows = []
    for layer, category in draw(st.lists(names, unique=True, max_size=6)):
        kept, dropped, failed = draw(st.integers(0, 50)), draw(_REASONS), draw(_REASONS)
        inputs = kept + sum(dropped.values()) + sum(failed.values())
        counts = {"inputs": inputs, "kept": kept, "dropped": dropped, "failed": failed}
        rows.append(LedgerRow(layer=layer, category=category, **counts))  # type: ignore[arg-type]
    return rows


@given(_balanced_rows(), _balanced_rows())
def test_sums_of_balanced_ledgers_balance(one: list[LedgerRow], two: list[LedgerRow]) -> None:
    counter = LedgerCounter()
    counter.add_ledger(one)
    counter.add_ledger(two)
    ledger = counter.ledger()
    ledger.check()
    Ledger(rows=ledger.totals()).check()
    for attribute in ("inputs", "kept"):
        expected = sum(getattr(row, attribute) for row in (*one, *two))
        assert sum(getattr(row, attribute) for row in ledger.rows) == expected
        assert sum(getattr(row, attribute) for row in ledger.totals()) == expected
    assert [(row.layer, row.category) for row in ledger.rows] == sorted(
        {(row.layer, row.category) for row in (*one, *two)}
    )
    assert {row.category for row in ledger.totals()} <= {NO_CATEGORY}


def test_counts_one_by_one() -> None:
    counter = LedgerCounter()
    counter.add_inputs("boxes", "cat", 5)
    counter.add_kept("boxes", "cat", 2)
    counter.add_dropped("boxes", "cat", reason="tiny")
    counter.add_dropped("boxes", "cat", reason="crowd", count=0)
    counter.add_failed("boxes", "cat", reason="timeout", count=2)
    counter.add_failed("images", reason="unreadable")
    assert counter.ledger().rows == (
        LedgerRow(
            layer="boxes",
            category="cat",
            inputs=5,
            kept=2,
            dropped={"tiny": 1},
            failed={"timeout": 2},
        ),
        LedgerRow(layer="images", category="", inputs=0, kept=0, failed={"unreadable": 1}),
    )
    assert [row.missing for row in counter.ledger().rows] == [0, -1]


@pytest.mark.parametrize(("inputs", "kept"), [(3, 2), (2, 3)])
def test_imbalance_is_named(inputs: int, kept: int) -> None:
    fine = LedgerRow(layer="boxes", category="cat", inputs=1, kept=1)
    broken = LedgerRow(layer="boxes", category="", inputs=inputs, kept=kept)
    message = rf"ledger of boxes, category \(none\): {inputs} inputs, but {kept} accounted for"
    with pytest.raises(LedgerImbalanceError, match=message):
        Ledger(rows=(fine, broken)).check()


def test_counts_below_zero_do_not_balance_anything() -> None:
    row = LedgerRow(layer="boxes", category="", inputs=1, kept=2, dropped={"tiny": -1})
    with pytest.raises(LedgerImbalanceError, match="a count is below zero"):
        Ledger(rows=(row,)).check()


def test_many_categories_and_reasons() -> None:
    """LVIS has 1,203 categories; work that grew with their square would take minutes here."""
    counter = LedgerCounter()
    for category in range(3_000):
        for reason in range(20):
            counter.add_dropped("boxes", f"{category}", reason=f"{reason}", count=2)
    ledger = counter.ledger()
    assert len(ledger.rows) == 3_000
    assert sum(ledger.totals()[0].dropped.values()) == 120_000
