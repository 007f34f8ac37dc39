"""fsck on objects that hash to their names, and hold what they must not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from manifests import layout, schemas
from manifests.cells import write_cell
from manifests.dataset import Dataset
from manifests.digest import canonical_json
from manifests.fsck import FsckReport
from manifests.manifest import Cell, Manifest
from manifests.parquet import table_to_parquet
from manifests.refs import Refs
from tests.manifests.conftest import DatasetBuilder
from tests.manifests.damage import assert_says, damage_in, fill, filled, look, make_whole_store

_MASKS = schemas.masks_layer("mobile_sam")
Rows = list[dict[str, Any]]


def _set(row: int, **values: Any) -> Callable[[Rows], None]:
    return lambda rows: rows[row].update(values)


def _candidate(**values: Any) -> Callable[[Rows], None]:
    return lambda rows: rows[2]["candidates"][1].update(values)


def _drop_last(rows: Rows) -> None:
    rows.pop()


def _swap(rows: Rows) -> None:
    rows[0], rows[2] = rows[2], rows[0]


def _same_id(rows: Rows) -> None:
    rows[1]["annotation_id"] = rows[0]["annotation_id"]


_RLE = b"0123"
WRONG_ROWS: list[tuple[str, Callable[[Rows], None], str]] = [
    (schemas.IMAGE_INDEX, _set(0, height=13), "images has a broken image .*it is .20, 12."),
    (schemas.IMAGE_INDEX, _set(0, height=0), "image_index has an image without pixels in row 0"),
    (schemas.IMAGE_INDEX, _set(1, offset=7), "a place in the tar at which its image is not in row"),
    (schemas.IMAGE_INDEX, _set(1, offset=-1), "a place before the tar's beginning in row 1"),
    (schemas.IMAGE_INDEX, _set(1, size=9), "a place in the tar at which its image is not in row 1"),
    (schemas.IMAGE_INDEX, _set(1, image_id="f" * 32), "at which its image is not in row 1"),
    (schemas.IMAGE_INDEX, _drop_last, "image_index does not list 1 images of the tar"),
    (schemas.BOXES, _set(1, image_row=9), "names an image row that its image_index of 2 rows does"),
    (schemas.BOXES, _set(1, image_id="f" * 32), "another image's id than its image_index in row 1"),
    (schemas.BOXES, _swap, "does not have the rows of each image together: row"),
    (schemas.BOXES, _set(0, box_xyxy=[2, 3, 21, 8]), "has a box outside its image in row 0"),
    (schemas.BOXES, _set(0, box_xyxy=[-1, 3, 9, 8]), "has a box outside its image in row 0"),
    (schemas.BOXES, _set(2, box_xyxy=[4, 3, 4, 8]), "has a box without area in row 2"),
    (schemas.BOXES, _set(2, box_xyxy=[4, float("nan"), 5, 8]), "a box without area in row 2"),
    (schemas.BOXES, _same_id, "has annotation id [0-9a-f]{32} again in shard .{12}"),
    (schemas.BOXES, _drop_last, r"masks/mobile_sam has 3 rows, but its boxes have 2"),
    (_MASKS, _drop_last, "has 2 rows, but its boxes have 3"),
    (_MASKS, _set(0, counts=_RLE), "a mask whose RLE does not cover its image's pixels in row 0"),
    (_MASKS, _set(0, counts=b"\xff"), "a mask whose RLE has a character outside COCO's alphabet"),
    (_MASKS, _set(1, area_px=5), "has a mask whose area is not that of its RLE in row 1"),
    (_MASKS, _set(1, area_px=None), "has a mask whose area is not that of its RLE in row 1"),
    (_MASKS, _set(1, mask_box_xyxy=[0, 0, 1, 1]), "has a mask whose box is not that of its RLE"),
    (_MASKS, _set(1, mask_box_xyxy=None), "has a mask whose box is not that of its RLE in row 1"),
    (_MASKS, _set(0, height=20, width=12), "has masks of another size than their image in row 0"),
    (_MASKS, _set(0, status="fine"), "has a status that nobody knows in row 0"),
    (
        _MASKS,
        _set(0, status="failed"),
        "has a mask without status 'ok', or no mask with it",
    ),
    (_MASKS, _set(0, counts=None), "has a mask without status 'ok', or no mask with it, in row 0"),
    (
        _MASKS,
        _candidate(counts=_RLE),
        "a candidate whose RLE does not cover its image's pixels",
    ),
    (_MASKS, _candidate(area_px=1), "has a candidate whose area is not that of its RLE in row 2"),
    (
        _MASKS,
        _candidate(mask_box_xyxy=[0, 0, 1, 1]),
        "candidate whose box is not that of its RLE",
    ),
    (_MASKS, _candidate(counts=None), "has a candidate without a mask in row 2"),
    (schemas.MASKS_HUMAN, _set(0, area_px=1), "masks/human has a mask whose area is not"),
    (schemas.VERDICTS, _drop_last, "verdicts has 2 rows, but its boxes have 3"),
    (schemas.VERDICTS, _set(0, teacher=None), "keeps a box without a mask in row 0"),
    (
        schemas.VERDICTS,
        _set(0, teacher="masks/x"),
        "names masks of 'masks/x', which its shard",
    ),
    (schemas.VERDICTS, _set(2, teacher="masks/human"), "keeps a mask that 'masks/human' does not"),
    (schemas.VERDICTS, _set(0, candidate=1), "a candidate that 'masks/mobile_sam' does not have"),
    (schemas.VERDICTS, _set(0, candidate=-1), "a candidate that 'masks/mobile_sam' does not have"),
]


class TestContentWrittenWrong:
    """Objects that hash to their names, and hold what they must not."""

    @pytest.mark.parametrize(
        ("layer", "change", "says"),
        WRONG_ROWS,
        ids=[f"{w[0]}-{n}" for n, w in enumerate(WRONG_ROWS)],
    )
    def test_rows(
        self, builder: DatasetBuilder, layer: str, change: Callable[[Rows], None], says: str
    ) -> None:
        dataset = filled(builder)
        cell = dataset.manifest.of_layer(layer)[0]
        table = dataset.table(cell.shard, layer)
        rows = table.to_pylist()
        change(rows)
        changed = pa.Table.from_pylist(rows, schema=table.schema)
        new = write_cell(builder.store, changed, shard=cell.shard, layer=layer)
        found = damage_in(_look_at(dataset, new))
        assert any(re.search(says, finding.sentence) for finding in found), found
        assert all(finding.cells and finding.remedy for finding in found)
        assert not list(builder.store.list_names(layout.QUARANTINE))

    def test_images_that_do_not_decode(self, builder: DatasetBuilder) -> None:
        builder.image("a.jpg")
        builder.data[0] = builder.data[0][:200]
        builder.shard()
        [finding] = damage_in(look(builder.store, ref=builder.commit().commit_id))
        assert_says(r"images has a broken image \([0-9a-f]{32}.jpg: .*[Tt]runcated", finding)

    def test_images_that_are_no_tar(self, builder: DatasetBuilder) -> None:
        dataset = filled(builder)
        stored = builder.store.put_bytes(b"no tar" * 300)
        cells = [
            replace(cell, shard=stored.object_id, object_id=object_id, num_bytes=num_bytes)
            for cell in dataset.manifest
            if cell.shard == dataset.manifest.shards()[0]
            for object_id, num_bytes in [
                (stored.object_id, stored.num_bytes)
                if cell.layer == schemas.IMAGES
                else (cell.object_id, cell.num_bytes)
            ]
        ]
        commit = replace(dataset.commit, manifest=Manifest(cells).save(builder.store))
        [finding] = damage_in(look(builder.store, ref=commit.save(builder.store)))
        assert_says("images cannot be read as a tar", finding)

    def test_shard_called_after_another_object(self, builder: DatasetBuilder) -> None:
        dataset = filled(builder)
        one, two = dataset.manifest.of_layer(schemas.IMAGES)
        swapped = replace(one, object_id=two.object_id, num_bytes=two.num_bytes)
        found = damage_in(_look_at(dataset, swapped))
        assert any("is another object" in finding.what for finding in found)

    def test_layers_that_are_not_there(self, builder: DatasetBuilder) -> None:
        dataset = filled(builder)
        for gone, says in (
            (schemas.IMAGE_INDEX, "has no image_index beside it"),
            (schemas.IMAGES, "has no images beside it"),
            (schemas.BOXES, "verdicts has no boxes beside it"),
        ):
            manifest = dataset.manifest.without(dataset.manifest.shards()[0], gone)
            commit = replace(dataset.commit, manifest=manifest.save(dataset.store))
            found = damage_in(look(dataset.store, ref=commit.save(dataset.store)))
            assert any(says in finding.what for finding in found), gone

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (lambda table: table.drop(["area_px"]), "lacks the column 'area_px'"),
            (lambda table: table.select(table.column_names[::-1]), "columns in another order"),
            (
                lambda table: table.set_column(
                    5, "area_px", table["area_px"].cast(pa.int32()),
                ),
                "has 'area_px' as int32, expected int64",
            ),
            (
                lambda table: table.set_column(0, "status", pa.nulls(3, pa.string())),
                "has 3 rows without 'status'",
            ),
        ],
    )  # fmt: skip
    def test_columns(
        self, builder: DatasetBuilder, change: Callable[[pa.Table], pa.Table], says: str
    ) -> None:
        dataset = filled(builder)
        shard = dataset.manifest.shards()[0]
        table = change(dataset.table(shard, _MASKS))
        [finding] = damage_in(
            _look_at(dataset, write_cell(builder.store, table, shard=shard, layer=_MASKS))
        )
        assert says in finding.what

    def test_more_columns_are_a_newer_maskmills(self, builder: DatasetBuilder) -> None:
        dataset = filled(builder)
        shard = dataset.manifest.shards()[0]
        table = dataset.table(shard, _MASKS).append_column("new", pa.array([1, 2, 3]))
        cell = write_cell(builder.store, table, shard=shard, layer=_MASKS)
        report = _look_at(dataset, cell)
        [finding] = report.findings
        assert (finding.severity, report.is_sound) == ("warning", True)
        assert_says(r"columns that this maskmill does not know \(new\)", finding)

    def test_a_cell_that_is_no_table(self, builder: DatasetBuilder) -> None:
        dataset = filled(builder)
        stored = builder.store.put_bytes(b"PAR1 or not")
        old = dataset.manifest.of_layer(schemas.BOXES)[0]
        cell = replace(old, object_id=stored.object_id, num_bytes=stored.num_bytes)
        [finding] = damage_in(_look_at(dataset, cell))
        assert_says("boxes cannot be read as a table", finding)

    def test_a_layer_of_the_future_lies_on_the_boxes(self, builder: DatasetBuilder) -> None:
        dataset = filled(builder)
        shard = dataset.manifest.shards()[0]
        for rows, count in ((3, 0), (2, 1)):
            table = pa.table({"value": pa.array(range(rows))})
            cell = write_cell(builder.store, table, shard=shard, layer="novelty")
            found = damage_in(_look_at(dataset, cell))
            assert [f.what for f in found if "novelty has 2 rows" in f.what] == [
                f.what for f in found
            ]
            assert len(found) == count

    @pytest.mark.parametrize(
        ("layer", "listed", "says"),
        [
            (schemas.BOXES, {"category:cat": 2}, "listed with 0 of 'dog', but it has 1"),
            (schemas.BOXES, {"category:cat": 2, "category:dog": 1}, ""),
            (schemas.BOXES, {"category:cat": 2, "category:dog": 1, "min_side": 4}, ""),
            (_MASKS, {"ok": 2}, "listed with 2 of 'ok', but it has 3"),
            (_MASKS, {"ok": 3, "failed": 1}, "listed with 1 of 'failed', but it has 0"),
            (schemas.VERDICTS, {"kept": 1}, "listed with 1 of 'kept', but it has 3"),
            (schemas.VERDICTS, {"kept": 3, "small": 1}, "listed with 1 of 'small', but it has 0"),
            (schemas.IMAGE_INDEX, {"quarantined": 1}, "1 of 'quarantined', but it has 0"),
            (schemas.IMAGE_INDEX, {"quarantined": 0}, ""),
        ],
    )
    def test_statistics(
        self, builder: DatasetBuilder, layer: str, listed: dict[str, int], says: str
    ) -> None:
        dataset = filled(builder)
        cell = replace(dataset.manifest.of_layer(layer)[0], statistics=listed)
        found = damage_in(_look_at(dataset, cell))
        assert [says in finding.what for finding in found] == [True] * bool(says)

    def test_rows_and_bytes_that_the_manifest_has_wrong(self, builder: DatasetBuilder) -> None:
        dataset = filled(builder)
        for layer in (schemas.IMAGES, schemas.BOXES, schemas.VERDICTS):
            cell = dataset.manifest.of_layer(layer)[0]
            [finding] = damage_in(_look_at(dataset, replace(cell, num_rows=cell.num_rows + 1)))
            assert_says(rf"{layer} is listed with {cell.num_rows + 1} rows, but it has", finding)
            [finding] = damage_in(_look_at(dataset, replace(cell, num_bytes=9)))
            assert_says("is listed with 9 bytes, but it has .* and they hash to its name", finding)

    def test_a_name_that_no_object_can_have(self, builder: DatasetBuilder) -> None:
        dataset = filled(builder)
        for bad in ("x", "../../etc/passwd", "A" * 64, ""):
            cell = replace(dataset.manifest.of_layer(schemas.BOXES)[0], object_id=bad)
            for full in (False, True):
                manifest = dataset.manifest.with_cells([cell]).save(dataset.store)
                commit = replace(dataset.commit, manifest=manifest).save(dataset.store)
                [finding] = damage_in(look(dataset.store, ref=commit, full=full))
                assert_says("boxes cannot be there", finding)

    def test_a_cell_listed_twice(self, builder: DatasetBuilder) -> None:
        dataset = filled(builder)
        table = dataset.manifest.to_table()
        twice = table_to_parquet(pa.concat_tables([table, table.slice(0, 1)]))
        manifest = builder.store.put_bytes(twice).object_id
        commit = replace(dataset.commit, manifest=manifest).save(dataset.store)
        for full in (False, True):
            found = damage_in(look(dataset.store, ref=commit, full=full))
            assert_says("manifest .{12} lists 1 cells twice", found[0])

    @pytest.mark.parametrize("bad", [b"", b"{}", b"[1]", b"PAR1", b'{"a":"\xff"}'])
    def test_objects_that_are_not_what_they_are_used_as(
        self, builder: DatasetBuilder, bad: bytes
    ) -> None:
        dataset = filled(builder)
        store, object_id = builder.store, builder.store.put_bytes(bad).object_id
        commits = {
            "is not a manifest": replace(dataset.commit, manifest=object_id).save(store),
            "is not a table of rejects": replace(dataset.commit, rejects=object_id).save(store),
            "is not a table of removed": replace(dataset.commit, removed=object_id).save(store),
            "is not a commit": replace(dataset.commit, parents=(object_id,)).save(store),
        }
        for says, commit_id in commits.items():
            [finding] = damage_in(look(store, ref=commit_id))
            assert says in finding.what
            assert finding.commits == (commit_id,)

    def test_a_ledger_that_does_not_balance(self, builder: DatasetBuilder) -> None:
        dataset = filled(builder)
        row = {"layer": "boxes", "category": "cat", "inputs": 3, "kept": 1, "dropped": {"x": 1},
               "failed": {}}  # fmt: skip
        for bad in (row, row | {"kept": -1, "dropped": {"x": 4}}):
            text = canonical_json(asdict(dataset.commit) | {"ledger": {"rows": [bad]}})
            commit_id = builder.store.put_bytes(text).object_id
            for full in (False, True):
                [finding] = damage_in(look(builder.store, ref=commit_id, full=full))
                assert_says(r"has a ledger that cannot be right \(ledger of boxes", finding)
                assert_says("take that back with 'maskmill revert", finding)

    def test_a_newer_commit_is_no_damage(self, builder: DatasetBuilder) -> None:
        dataset = filled(builder)
        text = json.dumps(json.loads(builder.store.get_bytes(dataset.commit_id)) | {"format": 2})
        commit_id = builder.store.put_bytes(text.encode()).object_id
        report = look(builder.store, ref=commit_id)
        [finding] = report.findings
        assert (finding.severity, report.is_sound) == ("warning", True)
        assert_says("has format 2, .*use the maskmill version that wrote it", finding)


class TestIds:
    def test_images_twice_in_two_shards(self, builder: DatasetBuilder) -> None:
        for _ in range(2):
            builder.image("a.jpg", image_id="0" * 32)
            builder.box("cat", (2, 3, 9, 8), annotation_id="1" * 32)
            builder.shard()
        found = damage_in(look(builder.store, ref=builder.commit().commit_id))
        image, annotation = sorted(found, key=lambda finding: "annotation" in finding.what)
        first, second = builder.commit().manifest.shards()
        assert_says(f"shard {first[:12]} of image_index has image id 0{{32}} again in shard "
                    f"{second[:12]}", image)  # fmt: skip
        assert_says("boxes has annotation id 1{32} again", annotation)

    def test_the_same_ids_on_two_branches_are_fine(self, builder: DatasetBuilder) -> None:
        fill(builder)
        one = builder.commit()
        shard = one.manifest.shards()[0]
        boxes = one.table(shard, schemas.BOXES)
        changed = boxes.set_column(3, "category", pa.array(["cow"] * 3))
        cell = write_cell(builder.store, changed, shard=shard, layer=schemas.BOXES)
        two = replace(one.commit, manifest=one.manifest.with_cells([cell]).save(builder.store))
        Refs(builder.store).create_tag("one", one.commit_id)
        Refs(builder.store).create_tag("two", two.save(builder.store))
        assert look(builder.store).findings == ()


class TestStale:
    def test_masks_for_other_boxes(self, builder: DatasetBuilder) -> None:
        dataset = filled(builder)
        shard = dataset.manifest.shards()[0]
        boxes = dataset.cell(shard, schemas.BOXES).object_id
        masks = dataset.cell(shard, _MASKS)
        current = replace(masks, inputs=(shard, boxes, "9" * 64))  # rows were carried over
        assert _look_at(dataset, current).findings == ()
        report = _look_at(dataset, replace(masks, inputs=(shard, "8" * 64)))
        [finding] = report.findings
        assert (finding.severity, finding.kind, report.is_sound) == ("warning", "stale", True)
        assert_says(
            "masks/mobile_sam was made for other boxes than those .*'maskmill label", finding
        )

    def test_verdicts_on_other_masks(self, builder: DatasetBuilder) -> None:
        dataset = filled(builder)
        shard = dataset.manifest.shards()[0]
        boxes, masks, verdicts = (
            dataset.cell(shard, layer) for layer in (schemas.BOXES, _MASKS, schemas.VERDICTS)
        )
        inputs = (boxes.object_id, masks.object_id)
        assert _look_at(dataset, replace(verdicts, inputs=inputs)).findings == ()
        report = _look_at(dataset, replace(verdicts, inputs=(boxes.object_id, "9" * 64)))
        [finding] = report.findings
        assert_says("verdicts was made from other masks than .*'maskmill filter'", finding)

    def test_only_heads_count(self, tmp_path: Path) -> None:
        whole = make_whole_store(str(tmp_path / "store"))
        verdicts = whole.dataset.cell(whole.shard, schemas.VERDICTS)
        stale = replace(verdicts, inputs=("9" * 64,))
        head = replace(
            whole.dataset.commit,
            manifest=whole.dataset.manifest.with_cells([stale]).save(whole.store),
        ).save(whole.store)
        again = replace(whole.dataset.commit, parents=(head,)).save(whole.store)
        refs = Refs(whole.store)
        refs.advance("main", expected=refs.head("main"), commit=head, reason="test")
        assert [f.kind for f in look(whole.store).findings] == ["stale"]
        refs.advance("main", expected=refs.head("main"), commit=again, reason="test")
        assert look(whole.store).findings == ()


def _look_at(dataset: Dataset, *cells: Cell, **commit: Any) -> FsckReport:
    """A commit like that of the dataset but for some cells."""
    manifest = dataset.manifest.with_cells(cells).save(dataset.store)
    changed = replace(dataset.commit, manifest=manifest, **commit)
    return look(dataset.store, ref=changed.save(dataset.store))
