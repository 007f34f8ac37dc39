"""What a review of label found: mixed settings, work done twice, verdicts on older masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from engine.filter import FilterConfig, filter_masks
from engine.label import LabelConfig, label, plan_label
from engine.label_worker import LabelWorker
from engine.policy import Policy
from manifests.dataset import Dataset
from manifests.errors import NothingToCommitError
from manifests.store import Store
from teachers import registry
from tests.engine.conftest import INLINE, PhotoSet

Ingest = Callable[..., Dataset]


@pytest.fixture
def relabel(store: Store) -> Callable[..., Dataset]:
    def do(teacher: str, *, retry_failed: bool = False, **config: Any) -> Dataset:
        wanted = LabelConfig(
            teacher=teacher, teacher_config=config, pool=INLINE, retry_failed=retry_failed
        )
        return Dataset(store, label(store, wanted))

    return do


def statuses(dataset: Dataset, layer: str) -> list[str]:
    shards = dataset.manifest.shards()
    return [text for s in shards for text in dataset.table(s, layer)["status"].to_pylist()]


def test_a_layer_with_carried_rows_is_up_to_date_once_it_is_labelled(
    ingested: Ingest,
    photos: PhotoSet,
    more_photos: PhotoSet,
    relabel: Callable[..., Dataset],
) -> None:
    photos.add("a.jpg", [5, 5, 20, 20])
    ingested(photos)
    relabel("box")
    more_photos.add("b.jpg", [9, 9, 30, 30])
    ingested(more_photos, name="more")
    assert statuses(relabel("box"), "masks/box") == ["ok", "ok"]
    with pytest.raises(NothingToCommitError):
        relabel("box")


def test_rows_of_other_settings_are_not_carried_over(
    ingested: Ingest,
    photos: PhotoSet,
    more_photos: PhotoSet,
    relabel: Callable[..., Dataset],
) -> None:
    photos.add("a.jpg", [5, 5, 20, 20])
    ingested(photos)
    relabel("grabcut")
    more_photos.add("b.jpg", [9, 9, 30, 30])
    dataset = ingested(more_photos, name="more")
    for margin, is_carried in ((0.25, True), (0.9, False)):
        identity = registry.identity("grabcut", {"margin": margin})
        (payload,) = plan_label(dataset, "grabcut", asdict(identity))
        assert bool(payload.carried) == is_carried


def test_new_origins_alone_draw_no_mask_again(
    ingested: Ingest,
    photos: PhotoSet,
    more_photos: PhotoSet,
    relabel: Callable[..., Dataset],
) -> None:
    photos.add("a.jpg", [5, 5, 20, 20])
    ingested(photos)
    before = relabel("box")
    more_photos.add("b.jpg")
    dataset = ingested(more_photos, name="more")
    (payload,) = plan_label(dataset, "box", asdict(registry.identity("box")))
    assert payload.carried == before.cell(payload.shard, "masks/box").object_id


def test_masks_drawn_anew_take_their_verdicts_out(
    store: Store, ingested: Ingest, photos: PhotoSet, relabel: Callable[..., Dataset]
) -> None:
    photos.add("a.jpg", [5, 5, 40, 40])
    ingested(photos)
    before = relabel("grabcut")
    policy = Policy(name="any", teachers=("grabcut",))
    filtered = Dataset(store, filter_masks(store, FilterConfig(policy=policy)))
    assert "verdicts" in filtered.manifest.layers()
    assert "verdicts" in relabel("box").manifest.layers()  # a layer that nobody judged
    after = relabel("grabcut", margin=0.0, max_side=16)
    (shard,) = after.manifest.shards()
    layer = "masks/grabcut"
    assert after.cell(shard, layer).object_id != before.cell(shard, layer).object_id
    assert "verdicts" not in after.manifest.layers()


def test_failed_boxes_can_be_tried_again(
    store: Store, ingested: Ingest, photos: PhotoSet, relabel: Callable[..., Dataset]
) -> None:
    """Memory that ran out once must not cost a mask for ever."""
    photos.add("a.jpg", [5, 5, 20, 20])
    photos.add("b.jpg", [5, 5, 20, 20])
    dataset = ingested(photos)
    (payload,) = plan_label(dataset, "box", asdict(registry.identity("box")))
    worker = LabelWorker(store, registry.build("box"))
    worker.run(payload.assembled((), {1: "worker_died"}))
    assert statuses(relabel("box"), "masks/box") == ["ok", "failed"]
    with pytest.raises(NothingToCommitError):
        relabel("box")
    assert statuses(relabel("box", retry_failed=True), "masks/box") == ["ok", "ok"]
    with pytest.raises(NothingToCommitError):
        relabel("box")


def test_trying_again_in_vain_changes_nothing_and_may_be_repeated(
    ingested: Ingest, photos: PhotoSet, relabel: Callable[..., Dataset]
) -> None:
    photos.add("a.jpg", [5, 5, 20, 20], [50, 5, 2, 2])
    ingested(photos)
    assert statuses(relabel("grabcut"), "masks/grabcut") == ["ok", "failed"]
    for retry_failed in (True, False, True):
        with pytest.raises(NothingToCommitError):
            relabel("grabcut", retry_failed=retry_failed)
