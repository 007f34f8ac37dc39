"""Whether confidence comes from a dataset's own gold, and that screens say so if it does not."""

from __future__ import annotations

import pyarrow as pa
import pytest

from manifests import schemas
from manifests.cells import write_cell
from manifests.dataset import Dataset, init, operation
from manifests.ledger import Ledger
from manifests.manifest import Manifest
from manifests.prior import PRIOR_NOTE, is_by_prior, warn_of_prior
from manifests.store import Store
from manifests.writer import Draft, Writer


def calibrated(store: Store) -> Dataset:
    writer = Writer(store, "main")
    columns: dict[str, pa.Array] = {
        field.name: pa.nulls(1, field.type) for field in schemas.CONFIDENCE_SCHEMA
    }
    cell = write_cell(store, pa.table(columns), shard="1" * 64, layer=schemas.CONFIDENCE)
    writer.commit(
        Manifest([cell]), operation=operation("calibrate", version=1, config={}), ledger=Ledger(),
        message="", even_if_unchanged=True,
    )  # fmt: skip
    return Dataset.open(store)


def test_without_confidence_there_is_nothing_to_say(capsys: pytest.CaptureFixture[str]) -> None:
    store = Store("memory://prior-none")
    init(store)
    dataset = Dataset.open(store)
    assert not is_by_prior(dataset)
    warn_of_prior(dataset)
    assert capsys.readouterr().err == ""


def test_a_calibrator_without_gold_is_a_prior(capsys: pytest.CaptureFixture[str]) -> None:
    store = Store("memory://prior-one")
    init(store)
    dataset = calibrated(store)
    assert is_by_prior(dataset)
    warn_of_prior(dataset)
    assert PRIOR_NOTE in " ".join(capsys.readouterr().err.split())


def test_one_with_gold_is_none() -> None:
    store = Store("memory://prior-gold")
    init(store)
    gold = store.put_bytes(b"gold").object_id
    dataset = calibrated(store)
    draft = Draft.on(
        dataset, dataset.manifest, operation=operation("calibrate", version=1, config={}),
        ledger=Ledger(), message="", attached={"gold": gold}, even_if_unchanged=True,
    )  # fmt: skip
    Writer(store, "main").publish(draft)
    assert not is_by_prior(Dataset.open(store))
