"""Making a commit again: the work is really done, nothing is moved, every difference is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.again import ReproduceConfig
from engine.filter import FilterConfig, filter_masks
from engine.ingest import ingest
from engine.label import LabelConfig, label
from engine.reproduce import reproduce, reproduce_chain
from manifests import layout, rle
from manifests.cells import write_cell
from manifests.commit import Commit
from manifests.dataset import Dataset, init
from manifests.errors import (
    JobError,
    OutcomeDiffersError,
)
from manifests.merge import create_branch, merge_into, revert
from manifests.refs import Refs
from manifests.store import Store
from manifests.takedown import take_down
from manifests.writer import Writer
from tests.engine.chain import (
    HERE,
    INLINE,
    POLICY,
    Ears,
    chain_on,
    fates,
    files,
    fill,
    other_photo,
    saved,
)
from tests.engine.conftest import PhotoSet


@pytest.fixture
def head(store: Store, photos: PhotoSet) -> str:
    """The last commit of a chain on `main`."""
    return chain_on(store, fill(photos))


def test_every_step_comes_out_the_same_and_nothing_is_moved(store: Store, head: str) -> None:
    before = files(store)
    steps = list(reproduce_chain(store, "main", HERE))
    assert [step.operation for step in steps] == ["init", "ingest", "label", "label", "filter"]
    made = [step.reproduction for step in steps]
    for reproduction in made:
        assert reproduction is not None
        assert reproduction.is_same
        assert not reproduction.warnings
        assert not reproduction.comparison.cells
        reproduction.require_same()
    assert [found.comparison.num_made for found in made if found] == [0, 7, 2, 2, 2]
    assert files(store) == before
    assert Refs(store).resolve("main") == head


def test_of_masks_drawn_before_only_the_new_ones_are_drawn_again(
    store: Store, photos: PhotoSet, more_photos: PhotoSet
) -> None:
    chain_on(store, fill(photos))
    more_photos.add("new.jpg", [2, 2, 20, 20], content=None)
    more_photos.document["images"][0]["id"] = 77
    more_photos.document["annotations"][0]["image_id"] = 77
    (more_photos.images / "new.jpg").write_bytes(other_photo())
    ingest(store, more_photos.config("second"))
    commit_id = label(store, LabelConfig(teacher="box", pool=INLINE))
    ears = Ears()
    made = reproduce(store, commit_id, HERE, ears)
    assert made.comparison.layers["masks/box"] == {"given": 2, "same": 1}
    assert ears.last is not None
    assert (ears.last.num_tasks, ears.last.num_tasks_found) == (3, 2)


class TestDifferences:
    def test_a_tampered_mask_is_named_although_its_record_says_it_is_right(
        self, store: Store, head: str
    ) -> None:
        """Whoever only looked up finished work would find the tampered cell again."""
        labelled = Refs(store).resolve("main~2")
        dataset = Dataset(store, labelled)
        cell = dataset.manifest.of_layer("masks/box")[1]
        table = dataset.table(cell.shard, cell.layer)
        rows = table.to_pylist()
        mask = np.zeros((60, 80), np.uint8)
        mask[1, 1] = 1
        rows[0] |= {"counts": rle.encode(mask), "area_px": 1}
        tampered = write_cell(
            store, table.from_pylist(rows, schema=table.schema), shard=cell.shard,
            layer=cell.layer, inputs=cell.inputs, statistics=cell.statistics,
        )  # fmt: skip
        for path in store.fs.find(f"{store.root}/results"):
            record = json.loads(Path(path).read_text())
            for entry in record["cells"]:
                if entry["object_id"] == cell.object_id:
                    entry |= {"object_id": tampered.object_id, "num_bytes": tampered.num_bytes}
            Path(path).write_text(json.dumps(record))
        manifest = dataset.manifest.with_cells([tampered]).save(store)
        made = reproduce(store, saved(store, labelled, manifest=manifest), HERE)
        assert fates(made) == [("differs", "masks/box")]
        [found] = made.comparison.cells
        assert found.shard == cell.shard
        assert (found.expected, found.found) == (tampered.object_id, cell.object_id)
        assert found.detail == f"1 of {len(rows)} rows, in counts, area_px; the first is row 0"
        with pytest.raises(
            OutcomeDiffersError, match=r"\(label\) came out different: 1 of 2 cells"
        ):
            made.require_same()

    def test_a_changed_photo_is_told_by_name(
        self, store: Store, head: str, photos: PhotoSet
    ) -> None:
        (photos.images / "a.jpg").write_bytes(other_photo())
        made = reproduce(store, "main~3", HERE)
        assert not made.is_same
        assert not made.warnings  # its annotations have not changed
        shards = {cell.shard for cell in made.comparison.cells}
        assert len(shards) == 2
        assert {fate for fate, _ in fates(made)} == {"missing", "extra"}
        assert made.comparison.layers["images"] == {"same": 1, "missing": 1, "extra": 1}
        assert [sentence.split(" (")[0] for sentence in made.comparison.images] == [
            "image a.jpg", "image a.jpg",
        ]  # fmt: skip

    def test_a_changed_annotation_is_told_beforehand_and_afterwards(
        self, store: Store, head: str, photos: PhotoSet
    ) -> None:
        photos.document["annotations"][2]["bbox"] = [1, 2, 30, 41]
        photos.document["categories"][0]["supercategory"] = "things"
        photos.config()
        ears = Ears()
        made = reproduce(store, "main~3", HERE, ears)
        assert made.warnings == tuple(ears.warnings)
        [warning] = ears.warnings
        assert "annotations of source 'set' changed since: expected 1 file with SHA-256" in warning
        assert ("differs", "boxes") in fates(made)
        [boxes] = [cell for cell in made.comparison.cells if cell.layer == "boxes"]
        assert "1 of 4 rows, in annotation_id, box_xyxy" in boxes.detail
        assert made.comparison.categories == (
            "category 'shoe': no supercategory {'set': '7'} became things {'set': '7'}",
        )

    def test_a_lost_box_shows_in_ledger_and_rejects(
        self, store: Store, head: str, photos: PhotoSet
    ) -> None:
        photos.annotate(99, [1, 1, 5, 5])
        photos.config()
        made = reproduce(store, "main~3", HERE)
        assert not fates(made)
        [ledger] = made.comparison.ledger
        assert ledger.startswith("ledger of boxes, shoe: inputs 8 became 9, dropped ")
        [rejects] = made.comparison.rejects
        assert "rows became" in rejects

    def test_another_policy_flips_verdicts(self, store: Store, head: str) -> None:
        config = {**Commit.load(store, head).operation.config, "rules": {"min_area_px": 999}}
        stricter = saved(store, head, operation={"config": config})
        made = reproduce(store, stricter, HERE)
        assert set(fates(made)) == {("differs", "verdicts")}
        assert any("keep" in cell.detail for cell in made.comparison.cells)

    def test_rows_in_other_bytes_are_the_same(self, store: Store, head: str) -> None:
        """Another version of pyarrow writes other bytes, and the next cell names them."""
        import io

        import pyarrow.parquet as pq

        dataset = Dataset(store, Refs(store).resolve("main~3"))
        cells = []
        for cell in dataset.manifest.of_layer("image_index"):
            sink = io.BytesIO()
            pq.write_table(dataset.table(cell.shard, cell.layer), sink, compression="gzip")
            stored = store.put_bytes(sink.getvalue())
            cells.append(replace(cell, object_id=stored.object_id, num_bytes=stored.num_bytes))
            boxes = dataset.cell(cell.shard, "boxes")
            assert boxes.inputs == (cell.object_id,)
            cells.append(replace(boxes, inputs=(stored.object_id,)))
        manifest = dataset.manifest.with_cells(cells).save(store)
        made = reproduce(store, saved(store, dataset.commit_id, manifest=manifest), HERE)
        assert made.is_same
        assert {("same_rows", "image_index")} <= set(fates(made))
        assert {fate for fate, _ in fates(made)} == {"same_rows"}


def test_a_step_whose_branch_moved_on_is_made_from_its_base(
    store: Store, photos: PhotoSet, more_photos: PhotoSet
) -> None:
    ingest(store, fill(photos).config())
    config = LabelConfig(teacher="box", pool=INLINE)
    late = Writer(store, "main")
    more_photos.add("new.jpg", [2, 2, 20, 20], content=other_photo())
    between = ingest(store, more_photos.config("second"))
    from engine.label import draft_label

    commit_id = late.publish(draft_label(late.dataset, config))
    commit = Commit.load(store, commit_id)
    assert (commit.parents, commit.base) == ((between,), late.dataset.commit_id)
    made = reproduce(store, commit_id, HERE)
    assert made.is_same
    assert made.comparison.layers["masks/box"] == {"same": 1}
    on_parent = reproduce(store, saved(store, commit_id, base=None), HERE)
    assert ("extra", "masks/box") in fates(on_parent)


def test_records_kept_apart_go_also_after_a_failure(store: Store, head: str) -> None:
    shards = Dataset(store, head).manifest.shards()
    store.fs.rm_file(f"{store.root}/{layout.object_path(shards[1])}")
    before = files(store)
    with pytest.raises(JobError, match="is missing"):
        reproduce(store, "main~1", _impatient())
    assert files(store) == before


def _impatient() -> ReproduceConfig:
    return replace(HERE, driver=replace(HERE.driver, max_attempts=1, backoff_s=0.01))


def test_any_kind_of_store_reproduces(store_url: str, photos: PhotoSet) -> None:
    store = Store(store_url)
    init(store)
    head = chain_on(store, fill(photos))
    before = files(store)
    assert reproduce(store, f"{head}~1", HERE).is_same
    assert files(store) == before


def test_merges_reverts_and_takedowns_are_made_again_too(
    store: Store, photos: PhotoSet, more_photos: PhotoSet
) -> None:
    chain_on(store, fill(photos))
    create_branch(store, "other", "main~3")
    more_photos.add("new.jpg", [2, 2, 20, 20], content=other_photo())
    ingest(store, replace(more_photos.config("second"), branch="other"))
    label(store, LabelConfig(teacher="box", branch="other", pool=INLINE))
    merge_into(store, "main", "other")
    dataset = Dataset.open(store, "main")
    shard = dataset.manifest.shards()[0]
    image_id = dataset.table(shard, "image_index")["image_id"][0].as_py()
    take_down(store, "main", {shard: [image_id]}, reason="not ours")
    filter_masks(store, FilterConfig(policy=replace(POLICY, rules={"min_area_px": 700})))
    revert(store, "main", "main")
    before = files(store)
    steps = list(reproduce_chain(store, "main", HERE))
    assert [step.operation for step in steps if step.reproduction is None] == ["ingest"]
    assert [str(step.error) for step in steps if "bring back what was taken" in str(step.error)]
    made = [step.reproduction for step in steps if step.reproduction]
    assert {reproduction.operation for reproduction in made} == {
        "init", "ingest", "label", "filter", "merge", "rm", "revert",
    }  # fmt: skip
    assert len(made) == 10
    assert all(reproduction.is_same for reproduction in made)
    assert files(store) == before
