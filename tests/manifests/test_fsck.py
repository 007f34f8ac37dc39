"""fsck on whole stores, on stores with one damaged object, and on cells written wrong."""

from __future__ import annotations

import io
import itertools
import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from manifests import layout, schemas
from manifests.cells import write_cell
from manifests.dataset import Dataset, init
from manifests.digest import canonical_json
from manifests.errors import MaskmillError, ObjectDamagedError, RefError, StoreError
from manifests.findings import Finding
from manifests.fsck import FsckOptions, FsckReport, fsck
from manifests.manifest import Cell
from manifests.parquet import table_to_parquet
from manifests.refs import Refs
from manifests.removed import Removals, RemovedImage
from manifests.store import Store
from tests.manifests.conftest import DatasetBuilder
from tests.manifests.damage import HURTS, WholeStore, fill, flipped, make_whole_store

_MASKS = schemas.masks_layer("mobile_sam")
_LABEL = r"run 'maskmill label mobile_sam' to draw it again"
_INGEST = r"restore it from a copy, or run 'maskmill branch repair .{12}' and repeat the ingest of"
_GO_BACK = r"put main back to .{12}, the newest commit that can be read"
EXPECTED = {
    schemas.IMAGES: rf"shard .{{12}} of images .*: main and tag v1 cannot be labelled.*{_INGEST}",
    schemas.IMAGE_INDEX: rf"shard .{{12}} of image_index .*: main and tag v1 cannot be.*{_INGEST}",
    schemas.BOXES: rf"shard .{{12}} of boxes .*: main and tag v1 cannot be labelled.*{_INGEST}",
    schemas.MASKS_HUMAN: rf"shard .{{12}} of masks/human .*: main and tag v1 .*{_INGEST}",
    _MASKS: rf"shard .{{12}} of masks/mobile_sam .*: main and tag v1 cannot be filtered.*{_LABEL}",
    schemas.VERDICTS: r"shard .{12} of verdicts .*: main cannot be exported.*'maskmill filter'",
    "head commit": rf"commit .{{12}} .*: main cannot be opened; .*{_GO_BACK}",
    "old commit": r"commit .{12} .*: main and tag v1 cannot show their history further back than",
    "head manifest": rf"manifest .{{12}} .*: main cannot be opened.*{_GO_BACK}",
    "old manifest": r"manifest .{12} .*: commit .{12} in the history of main and tag v1 cannot be",
    "rejects": r"table of rejects .{12} .*: commit .{12} in the history of .* cannot say which",
    "removed": r"table of removed images .{12} .*: main cannot say which images were taken down",
    "marker": r"maskmill.json is .*: no command opens the store",
    "newest entry": r"entry 4 of main is .*: main cannot be opened; restore refs/heads/main/0+4",
    "old entry": r"entry 2 of main is .*: main cannot show where it was then",
    "tag": r"entry 1 of tag v1 is .*: tag v1 cannot be opened",
}
"""What fsck must say of damage in each position."""


def image_complaint(data: bytes, size_hw: tuple[int, int]) -> str | None:
    """As engine.stored_image, which this package does not know."""
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except (OSError, SyntaxError) as error:
        return str(error)
    return None if (image.height, image.width) == size_hw else f"it is {image.size}"


def look(store: Store, *, full: bool = True, **more: Any) -> FsckReport:
    """Everything is looked at, nothing is moved."""
    options = FsckOptions(full=full, quarantine=False, check_image=image_complaint)
    return fsck(store, replace(options, **more))


def damage_in(report: FsckReport) -> list[Finding]:
    return [finding for finding in report.findings if finding.severity == "damage"]


@pytest.mark.parametrize("full", [False, True])
def test_a_whole_store_is_sound(store_url: str, full: bool) -> None:
    whole = make_whole_store(store_url)
    report = look(whole.store, full=full)
    assert report.findings == ()
    assert report.is_sound
    assert report.refs == {"main": whole.commits["filter"], "tag v1": whole.commits["label"]}
    assert (report.num_commits, report.num_cells) == (4, 11)


def test_an_empty_store_is_sound(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    with pytest.raises(StoreError, match="make one with 'maskmill init'"):
        look(store)
    init(store)
    assert look(store).findings == ()


class TestOneDamagedObject:
    @pytest.mark.parametrize("how", [*HURTS, "replaced"])
    def test_in_every_position(self, tmp_path: Path, how: str) -> None:
        self._check(make_whole_store(str(tmp_path / "store")), how)

    def test_in_every_position_on_s3(self, s3_url: str) -> None:
        self._check(make_whole_store(s3_url), "flipped", "missing")

    def _check(self, whole: WholeStore, *hows: str) -> None:
        """The ways to be damaged in turn."""
        positions = whole.positions()
        assert positions.keys() == EXPECTED.keys()
        for (name, key), how in zip(positions.items(), itertools.cycle(hows), strict=False):
            other = positions["boxes" if name != "boxes" else "head manifest"]
            other_bytes = whole.store.read_optional(other)
            with whole.damaged(key, HURTS.get(how, lambda data, new=other_bytes: new)):
                self._check_position(whole, name, how)
        assert look(whole.store).findings == ()

    def _check_position(self, whole: WholeStore, name: str, how: str) -> None:
        if name == "tag" and how == "missing":
            assert "tag v1" not in look(whole.store).refs  # nothing tells that it was there
            return
        [finding] = damage_in(look(whole.store))
        assert_says(EXPECTED[name], finding)
        changes_size = how != "flipped"
        quick = damage_in(look(whole.store, full=False))
        is_small = name in {"marker", "rejects", "removed"} or "entry" in name or name == "tag"
        is_read = is_small or "commit" in name or "manifest" in name
        assert len(quick) == int(changes_size or is_read), name

    @pytest.mark.parametrize("digit", range(0, 64, 7))
    def test_an_entry_that_names_another_commit(self, tmp_path: Path, digit: int) -> None:
        whole = make_whole_store(str(tmp_path / "store"))
        key = whole.positions()["newest entry"]
        at = (whole.store.read_optional(key) or b"").index(b'"commit":"') + 10 + digit
        with whole.damaged(key, lambda data: flipped(data, at)):
            [finding] = damage_in(look(whole.store, full=False))
            assert_says(r"(commit .{12} is missing|entry 4 of main is damaged)", finding)
            assert_says("main cannot be opened", finding)
            with pytest.raises(ObjectDamagedError if "entry" in finding.what else MaskmillError):
                Dataset.open(whole.store)


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
        "has a mask without status 'ok', or no mask with it, in row",
    ),
    (_MASKS, _set(0, counts=None), "has a mask without status 'ok', or no mask with it, in row 0"),
    (
        _MASKS,
        _candidate(counts=_RLE),
        "has a candidate whose RLE does not cover its image's pixels",
    ),
    (_MASKS, _candidate(area_px=1), "has a candidate whose area is not that of its RLE in row 2"),
    (
        _MASKS,
        _candidate(mask_box_xyxy=[0, 0, 1, 1]),
        "a candidate whose box is not that of its RLE",
    ),
    (_MASKS, _candidate(counts=None), "has a candidate without a mask in row 2"),
    (schemas.MASKS_HUMAN, _set(0, area_px=1), "masks/human has a mask whose area is not"),
    (schemas.VERDICTS, _drop_last, "verdicts has 2 rows, but its boxes have 3"),
    (schemas.VERDICTS, _set(0, teacher=None), "keeps a box without a mask in row 0"),
    (
        schemas.VERDICTS,
        _set(0, teacher="masks/x"),
        "names masks of 'masks/x', which its shard does",
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
        dataset = _filled(builder)
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
        assert_says(r"images has a broken image \([0-9a-f]{32}.jpg: image file is trunc", finding)

    def test_images_that_are_no_tar(self, builder: DatasetBuilder) -> None:
        dataset = _filled(builder)
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
        [finding] = damage_in(_look_at(dataset, *cells))
        assert_says("images cannot be read as a tar", finding)

    def test_shard_called_after_another_object(self, builder: DatasetBuilder) -> None:
        dataset = _filled(builder)
        one, two = dataset.manifest.of_layer(schemas.IMAGES)
        swapped = replace(one, object_id=two.object_id, num_bytes=two.num_bytes)
        found = damage_in(_look_at(dataset, swapped))
        assert any("is another object" in finding.what for finding in found)

    def test_layers_that_are_not_there(self, builder: DatasetBuilder) -> None:
        dataset = _filled(builder)
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
        dataset = _filled(builder)
        shard = dataset.manifest.shards()[0]
        table = change(dataset.table(shard, _MASKS))
        [finding] = damage_in(
            _look_at(dataset, write_cell(builder.store, table, shard=shard, layer=_MASKS))
        )
        assert says in finding.what

    def test_more_columns_are_a_newer_maskmills(self, builder: DatasetBuilder) -> None:
        dataset = _filled(builder)
        shard = dataset.manifest.shards()[0]
        table = dataset.table(shard, _MASKS).append_column("new", pa.array([1, 2, 3]))
        cell = write_cell(builder.store, table, shard=shard, layer=_MASKS)
        report = _look_at(dataset, cell)
        [finding] = report.findings
        assert (finding.severity, report.is_sound) == ("warning", True)
        assert_says(r"columns that this maskmill does not know \(new\)", finding)

    def test_a_cell_that_is_no_table(self, builder: DatasetBuilder) -> None:
        dataset = _filled(builder)
        stored = builder.store.put_bytes(b"PAR1 or not")
        old = dataset.manifest.of_layer(schemas.BOXES)[0]
        cell = replace(old, object_id=stored.object_id, num_bytes=stored.num_bytes)
        [finding] = damage_in(_look_at(dataset, cell))
        assert_says("boxes cannot be read as a table", finding)

    def test_a_layer_of_the_future_lies_on_the_boxes(self, builder: DatasetBuilder) -> None:
        dataset = _filled(builder)
        shard = dataset.manifest.shards()[0]
        for rows, count in ((3, 0), (2, 1)):
            table = pa.table({"value": pa.array(range(rows))})
            cell = write_cell(builder.store, table, shard=shard, layer="confidence")
            found = damage_in(_look_at(dataset, cell))
            assert [f.what for f in found if "confidence has 2 rows" in f.what] == [
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
        dataset = _filled(builder)
        cell = replace(dataset.manifest.of_layer(layer)[0], statistics=listed)
        found = damage_in(_look_at(dataset, cell))
        assert [says in finding.what for finding in found] == [True] * bool(says)

    def test_rows_and_bytes_that_the_manifest_has_wrong(self, builder: DatasetBuilder) -> None:
        dataset = _filled(builder)
        for layer in (schemas.IMAGES, schemas.BOXES, schemas.VERDICTS):
            cell = dataset.manifest.of_layer(layer)[0]
            [finding] = damage_in(_look_at(dataset, replace(cell, num_rows=cell.num_rows + 1)))
            assert_says(rf"{layer} is listed with {cell.num_rows + 1} rows, but it has", finding)
            [finding] = damage_in(_look_at(dataset, replace(cell, num_bytes=9)))
            assert_says("is listed with 9 bytes, but it has .* and they hash to its name", finding)

    def test_a_name_that_no_object_can_have(self, builder: DatasetBuilder) -> None:
        dataset = _filled(builder)
        for bad in ("x", "../../etc/passwd", "A" * 64, ""):
            cell = replace(dataset.manifest.of_layer(schemas.BOXES)[0], object_id=bad)
            for full in (False, True):
                manifest = dataset.manifest.with_cells([cell]).save(dataset.store)
                commit = replace(dataset.commit, manifest=manifest).save(dataset.store)
                [finding] = damage_in(look(dataset.store, ref=commit, full=full))
                assert_says("boxes cannot be there", finding)

    def test_a_cell_listed_twice(self, builder: DatasetBuilder) -> None:
        dataset = _filled(builder)
        table = dataset.manifest.to_table()
        twice = table_to_parquet(pa.concat_tables([table, table.slice(0, 1)]))
        manifest = builder.store.put_bytes(twice).object_id
        commit = replace(dataset.commit, manifest=manifest).save(dataset.store)
        for full in (False, True):
            [finding] = damage_in(look(dataset.store, ref=commit, full=full))
            assert_says("manifest .{12} lists 1 cells twice", finding)

    @pytest.mark.parametrize("bad", [b"", b"{}", b"[1]", b"PAR1", b'{"a":"\xff"}'])
    def test_objects_that_are_not_what_they_are_used_as(
        self, builder: DatasetBuilder, bad: bytes
    ) -> None:
        dataset = _filled(builder)
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
        dataset = _filled(builder)
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
        dataset = _filled(builder)
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
        dataset = _filled(builder)
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
        dataset = _filled(builder)
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


class TestWhatIsLookedAt:
    def test_one_ref(self, tmp_path: Path) -> None:
        whole = make_whole_store(str(tmp_path / "store"))
        whole.store.remove(layout.object_path(whole.object_of(schemas.VERDICTS)))
        assert look(whole.store, ref="v1", full=False).is_sound
        assert not look(whole.store, ref="main", full=False).is_sound
        assert look(whole.store, ref="main~1", full=False).is_sound
        with pytest.raises(RefError, match="the nearest is 'main'"):
            look(whole.store, ref="mian")

    def test_takedowns_are_no_damage(self, builder: DatasetBuilder) -> None:
        dataset = _filled(builder)
        shard = dataset.manifest.shards()[0]
        builder.store.remove(layout.object_path(shard))
        assert not look(builder.store, ref=dataset.commit_id).is_sound
        gone = RemovedImage(
            image_id="1" * 32, file_name="x.jpg", source="shop", shard=shard, successor=None,
            reason="licence", author="somebody", time="2026-11-23T20:00:00Z",
        )  # fmt: skip
        removed = Removals([gone]).save(builder.store)
        # A later commit knows; an old one is looked at, too, and does not.
        later = replace(dataset.commit, removed=removed, parents=(dataset.commit_id,))
        for full in (False, True):
            report = look(builder.store, ref=later.save(builder.store), full=full)
            [finding] = report.findings
            assert (finding.severity, finding.kind, report.is_sound) == ("note", "taken_down", True)
            assert_says("1 image of it were taken down on .* by somebody .licence.", finding)

    def test_what_only_a_log_names_may_have_gone(self, tmp_path: Path) -> None:
        whole = make_whole_store(str(tmp_path / "store"))
        refs = Refs(whole.store)
        refs.advance("main", expected=refs.head("main"), commit=whole.commits["label"], reason="t")
        for key in ("head commit", "head manifest", schemas.VERDICTS):
            whole.store.remove(whole.positions()[key])
            report = look(whole.store)
            assert report.is_sound
            assert all(finding.severity == "note" for finding in report.findings)
            assert_says(r"main@\{1\} cannot .*'maskmill gc' deletes", report.findings[0])

    def test_a_deleted_branch(self, tmp_path: Path) -> None:
        whole = make_whole_store(str(tmp_path / "store"))
        refs = Refs(whole.store)
        refs.create_branch("gone", whole.commits["filter"])
        refs.delete_branch("gone")
        report = look(whole.store)
        assert (report.findings, "gone" in report.refs) == ((), False)

    def test_a_gap_in_a_log(self, tmp_path: Path) -> None:
        whole = make_whole_store(str(tmp_path / "store"))
        for number in (2, 3):
            whole.store.remove(layout.ref_entry_path(layout.HEADS, "main", number))
        [finding] = look(whole.store).findings
        assert_says("entry 2 of main and all others up to 3 are missing", finding)

    def test_a_hint_that_is_damaged_itself(self, tmp_path: Path) -> None:
        whole = make_whole_store(str(tmp_path / "store"))
        for hint in (b"", b"x", b"99999999", b"1"):
            whole.store.overwrite(layout.newest_hint_path(layout.HEADS, "main"), hint)
            assert look(whole.store).findings == ()

    def test_one_object_in_two_cells(self, builder: DatasetBuilder) -> None:
        for name in ("a.jpg", "b.jpg"):
            builder.image(name)
            builder.box("cat", (2, 3, 9, 8), annotation_id=name)
            builder.shard()
        dataset = builder.commit()
        one, two = dataset.manifest.of_layer(schemas.VERDICTS)
        assert one.object_id == two.object_id
        builder.store.remove(layout.object_path(one.object_id))
        [finding] = look(builder.store, ref=dataset.commit_id).findings
        assert len(finding.cells) == 2
        assert_says(r"of verdicts \(and 1 more cells\) is missing", finding)

    def test_an_object_that_the_store_cannot_read_is_no_damage(self, tmp_path: Path) -> None:
        whole = make_whole_store(str(tmp_path / "store"))
        path = tmp_path / "store" / whole.positions()[schemas.BOXES]
        path.unlink()
        path.mkdir()  # reading it fails, whoever asks
        with pytest.raises(StoreError, match="directory"):
            look(whole.store)

    def test_progress_is_told(self, tmp_path: Path) -> None:
        whole = make_whole_store(str(tmp_path / "store"))
        listener = _Listener()
        options = FsckOptions(full=True, quarantine=False)
        fsck(whole.store, options, listener=listener)
        assert listener.phases["looking for objects"] == [11, 11]
        done = listener.phases["reading contents"]
        assert done[0] == done[1] == sum(cell.num_bytes for cell in whole.dataset.manifest)


class _Listener:
    """Phase -> [total, done]."""

    def __init__(self) -> None:
        self.phases: dict[str, list[int]] = {}

    def begin(self, name: str, *, total: int, in_bytes: bool = False) -> None:
        self._now = self.phases.setdefault(name, [total, 0])

    def advance(self, count: int) -> None:
        self._now[1] += count


def _filled(builder: DatasetBuilder) -> Dataset:
    fill(builder)
    return builder.commit()


def _look_at(dataset: Dataset, *cells: Cell, **commit: Any) -> FsckReport:
    """A commit like that of the dataset but for some cells."""
    manifest = dataset.manifest.with_cells(cells).save(dataset.store)
    changed = replace(dataset.commit, manifest=manifest, **commit)
    return look(dataset.store, ref=changed.save(dataset.store))


def assert_says(pattern: str, finding: Finding) -> None:
    assert re.search(pattern, finding.sentence), finding.sentence
