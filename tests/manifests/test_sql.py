"""SQL over a ref: right rows on every protocol, only what was asked for, and only reading."""

from __future__ import annotations

import csv
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from manifests import layout, schemas
from manifests.cells import write_cell
from manifests.dataset import Dataset, init
from manifests.errors import InputError, ObjectDamagedError, ObjectMissingError
from manifests.manifest import Manifest
from manifests.sql import SqlSession
from manifests.sql_files import CellFiles, cell_url
from manifests.sql_output import json_rows, write_csv, write_parquet
from manifests.sql_tables import TableNames
from manifests.store import Store
from tests.manifests.conftest import DatasetBuilder, mask_row

_BOX = (2.0, 2.0, 9.0, 9.0)


def fill(builder: DatasetBuilder) -> DatasetBuilder:
    """Three shards: two teachers and verdicts, one teacher and verdicts, boxes alone."""
    size_hw = (12, 20)
    small = np.zeros(size_hw, np.uint8)
    small[3:5, 3:6] = 1
    other = mask_row(small, size_hw)
    candidate = {name: other[name] for name in (field.name for field in schemas.MASK_FIELDS)}
    builder.image("a.jpg")
    builder.box("shoe", _BOX, teacher="sam", layers={"masks/box": mask_row(small, size_hw)})
    builder.box("hat", _BOX, teacher="box", mask=small, keep=False, reason="too_small",
                layers={"masks/sam": mask_row(None, size_hw)})  # fmt: skip
    builder.image("b.jpg")
    row = mask_row(np.ones(size_hw, np.uint8), size_hw, candidates=[candidate])
    builder.box("shoe", _BOX, teacher="sam", layers={"masks/sam": row}, candidate=1)
    builder.shard()
    builder.image("c.jpg")
    builder.box("shoe", _BOX, teacher="box", mask=small)
    builder.shard()
    builder.image("d.jpg", quarantine="blurry")
    builder.box("bag", _BOX, teacher=None)
    builder.shard(verdicts=False)
    return builder


@pytest.fixture
def dataset(builder: DatasetBuilder) -> Dataset:
    return fill(builder).commit()


@contextmanager
def asking(dataset: Dataset) -> Iterator[Any]:
    """A function from a query to its rows."""
    with SqlSession(dataset) as session:
        yield lambda text: json_rows(session.query(text).head(10_000))


def ask(dataset: Dataset, text: str) -> list[dict[str, Any]]:
    with asking(dataset) as asked:
        rows: list[dict[str, Any]] = asked(text)
    return rows


# -- what is read --------------------------------------------------------------------------------


def test_tables_have_the_rows_of_the_layers_on_every_protocol(store_url: str) -> None:
    store = Store(store_url)
    init(store)
    dataset = fill(DatasetBuilder(store)).commit()
    layers = {"boxes": "boxes", "images": "image_index", "masks_sam": "masks/sam",
              "masks_box": "masks/box", "verdicts": "verdicts"}  # fmt: skip
    with asking(dataset) as asked:
        for table, layer in layers.items():
            expected = [
                {"shard": cell.shard, "row": row, **values}
                for cell in dataset.manifest.of_layer(layer)
                for row, values in enumerate(json_rows(dataset.table(cell.shard, layer)))
            ]
            assert asked(f"from {table} order by shard, row") == expected
        counted = asked("select category, count(*) n from boxes group by 1 order by 2 desc, 1")
        assert counted == [{"category": name, "n": n}
                           for name, n in (("shoe", 3), ("bag", 1), ("hat", 1))]  # fmt: skip
        joined = asked(
            "select category, status from boxes left join masks_box using (shard, row) "
            "order by shard, row"
        )
    assert [row["status"] for row in joined] == ["ok", "ok", "absent", "ok", None]


def test_shards_sort_as_ingested_and_the_same_cell_counts_for_each_shard(
    builder: DatasetBuilder,
) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        builder.image(name)
        builder.box("shoe", _BOX)
        builder.shard()
    dataset = builder.commit()
    first = ask(dataset, "from annotations order by shard limit 1")
    # This LIMIT ends the scan of boxes before that of the others.
    assert ask(dataset, "from annotations limit 1") == first
    cells = dataset.manifest.of_layer(schemas.VERDICTS)
    assert len({cell.object_id for cell in cells}) == 1
    rows = ask(dataset, "select shard, count(*) n from verdicts group by 1 order by 1")
    assert [row["shard"] for row in rows] == list(dataset.manifest.shards())
    assert {row["n"] for row in rows} == {1}
    second = dataset.manifest.shards()[1]
    [row] = ask(dataset, f"from boxes where shard = '{second}'")
    [same] = ask(dataset, f"from boxes where starts_with(shard::varchar, '{second[:12]}')")
    assert row == same
    top = f"select annotation_id from boxes where shard = '{second}' order by row desc limit 1"  # noqa: S608
    assert ask(dataset, top) == [{"annotation_id": row["annotation_id"]}]
    assert row["image_id"] == dataset.table(second, "boxes")["image_id"][0].as_py()


def test_annotations_have_the_signals_of_the_chosen_mask(dataset: Dataset) -> None:
    rows = ask(dataset, "from annotations order by shard, row")
    assert [row["teacher"] for row in rows] == [
        "masks/sam", "masks/box", "masks/sam", "masks/box", None,
    ]  # fmt: skip
    assert [row["area_px"] for row in rows] == [49, 6, 6, 6, None]
    assert [row["keep"] for row in rows] == [True, False, True, True, None]
    assert [row["reason"] for row in rows] == [None, "too_small", None, None, None]
    assert rows[2]["candidate"] == 1
    assert [row["category"] for row in rows] == ["shoe", "hat", "shoe", "shoe", "bag"]
    assert list(rows[0])[:3] == ["shard", "row", "annotation_id"]
    assert "box_score" in rows[0]
    assert ask(dataset, "from annotations limit 2") == rows[:2]
    assert ask(dataset, "select count(*) n from annotations where keep") == [{"n": 3}]
    assert ask(dataset, "select annotation_id from annotations limit 1 offset 4") == [
        {"annotation_id": rows[4]["annotation_id"]}
    ]


def test_annotations_never_join_other_rows(dataset: Dataset) -> None:
    """A cell that holds other rows than its manifest says must not shift the rows behind it."""
    cell = dataset.manifest.of_layer("masks/sam")[0]
    table = dataset.table(cell.shard, cell.layer)
    short = write_cell(dataset.store, table.slice(1), shard=cell.shard, layer=cell.layer)
    wrong = {"shard": cell.shard, "layer": cell.layer, "num_bytes": short.num_bytes}
    lying = type(cell)(object_id=short.object_id, num_rows=cell.num_rows, **wrong)
    dataset.manifest = dataset.manifest.with_cells([lying])
    with pytest.raises(ObjectDamagedError, match="do not have the same rows"):
        ask(dataset, "select annotation_id, area_px from annotations")
    honest = type(cell)(object_id=short.object_id, num_rows=short.num_rows, **wrong)
    dataset.manifest = dataset.manifest.with_cells([honest])
    with pytest.raises(ObjectDamagedError, match="expected the 3 rows of boxes"):
        ask(dataset, "select area_px from annotations")


def test_annotations_without_verdicts_or_boxes(builder: DatasetBuilder) -> None:
    empty = builder.commit()
    with pytest.raises(InputError, match="no boxes"):
        ask(empty, "from annotations")
    assert ask(empty, "select count(*) n from manifest") == [{"n": 0}]
    builder.image("a.jpg")
    builder.box("shoe", _BOX)
    builder.shard(verdicts=False)
    [row] = ask(builder.commit(), "from annotations")
    assert (row["keep"], row["area_px"], row["category"]) == (None, None, "shoe")


def test_manifest_commits_and_removed(dataset: Dataset) -> None:
    with asking(dataset) as asked:
        cells = asked("select layer, object, rows, bytes from manifest where layer = 'boxes'")
        assert [row["object"] for row in cells] == [
            cell.object_id for cell in dataset.manifest.of_layer("boxes")
        ]
        [commit] = asked("select commit_id, operation, message from commits")
        assert commit["commit_id"] == dataset.commit_id
        assert asked("from removed") == []
        joined = "select count(*) n from boxes join manifest using (shard) where layer = 'boxes'"
        assert asked(joined) == [{"n": 5}]


class CountingStore(Store):
    """Counts the bytes of every range that is read."""

    num_bytes = 0

    def read_range(self, object_id: str, *, start: int, num_bytes: int) -> bytes:
        self.num_bytes += num_bytes
        return super().read_range(object_id, start=start, num_bytes=num_bytes)

    def get_bytes(self, object_id: str) -> bytes:
        data = super().get_bytes(object_id)
        self.num_bytes += len(data)
        return data


def test_only_the_columns_that_are_asked_for_are_read(tmp_path: Path) -> None:
    store = CountingStore(str(tmp_path / "store"))
    init(store)
    rng = np.random.default_rng(0)
    size = 2000
    table = pa.table(
        {"small": rng.integers(0, 9, size), "big": [rng.bytes(1000) for _ in range(size)],
         "other": [rng.bytes(500) for _ in range(size)]}
    )  # fmt: skip
    dataset = Dataset.open(store)
    dataset.manifest = Manifest([write_cell(store, table, shard="a" * 64, layer="signals")])
    store.num_bytes = 0
    assert ask(dataset, "select sum(small) s from signals") == [
        {"s": pc.sum(table["small"]).as_py()}
    ]
    assert store.num_bytes < 200_000
    ask(dataset, "select sum(octet_length(big)) from signals")
    assert store.num_bytes > 2_000_000


def test_threads_that_share_a_file_do_not_move_each_other(dataset: Dataset) -> None:
    cell = dataset.manifest.of_layer("boxes")[0]
    data = dataset.store.get_bytes(cell.object_id)
    file = CellFiles(dataset.store, [cell], who="a test").open(cell_url(cell.object_id))
    file.seek(4)
    with ThreadPoolExecutor(1) as threads:
        threads.submit(file.seek, 50).result()
        assert file.read(8) == data[4:12]
        assert threads.submit(file.read, 8).result() == data[50:58]
    assert file.tell() == 12


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "create table t (a int)", "create view t as select 1", "insert into boxes values (1)",
        "update boxes set row = 1", "delete from boxes", "truncate boxes", "drop view boxes",
        "alter table boxes add column a int", "copy (select 1) to 'out.csv'",
        "copy boxes to 'cells://x'", "export database 'out'", "import database 'out'",
        "attach 'x.db'", "attach ':memory:' as y", "detach memory", "install httpfs",
        "load httpfs", "set threads = 1", "reset threads", "pragma version", "checkpoint",
        "call pragma_version()", "begin", "vacuum", "set variable a = 1", "use memory",
        "prepare p as select 1", "execute p", "select 1; select 2", "select 1; drop view boxes",
        "with t as (insert into boxes values (1) returning *) from t",
        "with t as (delete from boxes returning *) from t",
        "with t as (copy (select 1) to 'cells://x') from t",
        "select 1) as t; drop view boxes; select * from (select 1",
        "explain analyze select 1", "comment on view boxes is 'x'",
        "create secret (type s3, key_id 'x', secret 'y')",
    ],
)  # fmt: skip
def test_sql_that_writes_is_refused(
    dataset: Dataset, query: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=r"refused|the query is wrong"):
        ask(dataset, query)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "source",
    [
        "read_csv('{}')", "read_text('{}')", "read_blob('{}')", "read_json('{}')",
        "read_parquet('{}')", "'{}'", "glob('{}')", "read_csv_auto('{}')", "sniff_csv('{}')",
        "parquet_metadata('{}')", "parquet_schema('{}')", "read_ndjson_objects('{}')",
        "read_text('file://{}')", "query('select * from read_text(''{}'')')",
        "read_text(['{}'])",
    ],
)  # fmt: skip
def test_no_other_file_can_be_read(dataset: Dataset, source: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="file or an address, which is refused"):
        ask(dataset, "select * from " + source.format(secret))  # noqa: S608


@pytest.mark.parametrize(
    "query",
    [
        "from read_parquet('https://example.com/x.parquet')", "from 's3://bucket/x.parquet'",
        "from read_text('/proc/self/environ')", "from read_csv('/dev/stdin')",
        "from glob('/*')", "from read_text('../../etc/passwd')",
        "from read_blob('cells://../{shard}')", "from read_blob('cells://{shard}')",
        "from glob('cells://*')", "select getenv('HOME')", "from secret_of_this_test",
        "select * from duckdb_secrets() where false or error('x')",
    ],
)  # fmt: skip
def test_neither_the_network_nor_images_nor_this_process_can_be_read(
    dataset: Dataset, query: str
) -> None:
    secret_of_this_test = pa.table({"a": [1]})  # DuckDB looks into its caller's variables, if let
    assert secret_of_this_test.num_rows
    text = query.format(shard=dataset.manifest.shards()[0])
    try:
        rows = ask(dataset, text)
    except (InputError, ObjectMissingError):
        return
    assert rows == []  # `glob` finds nothing


def test_settings_and_temporary_files_tell_nothing_and_are_gone(dataset: Dataset) -> None:
    with SqlSession(dataset) as session:
        [row] = json_rows(session.query("select current_setting('temp_directory') d").head(1))
        folder = Path(row["d"])
        assert list(folder.iterdir()) == []
        locked = "select current_setting('lock_configuration') l"
        assert json_rows(session.query(locked).head(1)) == [{"l": True}]
    assert not folder.exists()


# -- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("selec 1", 'wrong at line 1, column 1: syntax error at or near "selec"'),
        ("select a\nfrom boxes\nwhere a = = 1", "at line 3, column 11"),
        ("select 1 /* open", "unterminated"),
        ("select nope from boxes", '"nope" not found in FROM clause! Candidate bindings'),
        ("select box_xxyy from boxes", '"box_xyxy"'),
        ("select foo(1)", "does not exist! Did you mean"),
        ("select category from boxes where row = 'x'", "could not convert string 'x'"),
        ("from nope", "no table nope; tables here: boxes, images, masks_box, masks_sam, verdicts"),
        ("from other.boxes", "no table other.boxes"),
        ("", "the query is empty"),
        ("-- nothing", "the query is empty"),
        (";", "the query is empty"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(dataset: Dataset, query: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        ask(dataset, query)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert dataset.manifest.shards()[0] not in str(caught.value)


@pytest.mark.parametrize(
    "query",
    [
        "select 1 a;", "select 1 a; -- done; really", "-- first\nselect 1 a", "(select 1 a)",
        "values (1)", "with t as (select 1 a) from t", "select ';' a",
        "select 1 a /* ; */ ;\n\n",
    ],
)  # fmt: skip
def test_a_semicolon_and_comments_are_no_matter(dataset: Dataset, query: str) -> None:
    assert len(ask(dataset, query)) == 1


def test_describe_summarize_and_pivot(dataset: Dataset) -> None:
    with asking(dataset) as asked:
        described = asked("describe verdicts")
        assert [row["column_name"] for row in described][:3] == ["shard", "row", "keep"]
        assert described[0]["column_type"] == "ENUM"
        assert len(asked("summarize boxes")) > 5
        pivoted = asked("pivot verdicts on keep using count(*)")
        assert len(pivoted) >= 1


def test_names_of_tables() -> None:
    names = TableNames(["boxes", "images", "image_index", "masks/a-b", "masks/a_b", "masks/X.1"])
    assert names.tables() == {
        "boxes": "boxes", "images": "image_index", '"masks/a-b"': "masks/a-b",
        '"masks/a_b"': "masks/a_b", "masks_x_1": "masks/X.1",
    }  # fmt: skip
    assert names.layer("IMAGES") == "image_index"
    assert names.layer("masks_x_1") == names.layer("masks/X.1") == "masks/X.1"
    assert names.layer("masks/a-b") == "masks/a-b"
    assert names.layer("nope") is None
    with pytest.raises(InputError, match=r'could be layer masks/a-b or masks/a_b; write "masks/a'):
        names.layer("masks_a_b")


def test_layers_whose_names_collide_are_asked_by_their_own(dataset: Dataset) -> None:
    cell = dataset.manifest.of_layer("masks/sam")[0]
    table = dataset.table(cell.shard, cell.layer)
    dataset.manifest = Manifest([
        *(write_cell(dataset.store, table.slice(0, n), shard=cell.shard, layer=layer)
          for n, layer in ((1, "masks/a-b"), (2, "masks/a_b"))),
    ])  # fmt: skip
    with pytest.raises(InputError, match="could be layer"):
        ask(dataset, "from masks_a_b")
    assert len(ask(dataset, 'from "masks/a-b"')) == 1
    assert len(ask(dataset, 'from "masks/a_b"')) == 2


def test_memory_is_a_size(dataset: Dataset) -> None:
    for memory in ("much", "-1GB", "1", "768 MB; drop table x"):
        with pytest.raises(InputError, match="expected a size such as"):
            SqlSession(dataset, memory=memory)


def test_a_query_that_needs_too_much_memory_says_so(dataset: Dataset) -> None:
    with SqlSession(dataset, memory="8MB") as session:
        result = session.query("select list(r.range) from range(30000000) r")
        with pytest.raises(InputError, match="more than 8MB of memory; allow it more"):
            result.head(1)


def test_ctrl_c_ends_a_query(dataset: Dataset) -> None:
    endless = "select count(*) from range(100000000000) a, range(9) b where a.range % 7 = b.range"
    # A test run in the background may have been told to ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with SqlSession(dataset) as session:
        result = session.query(endless)
        timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            result.head(1)
    signal.signal(signal.SIGINT, before)
    assert time.monotonic() - began < 20  # the session ends when its query does


# -- damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("harm", ["missing", "short", "zeros", "one bit", "empty"])
def test_a_damaged_cell_is_named(dataset: Dataset, number: int, harm: str, tmp_path: Path) -> None:
    cell = dataset.manifest.of_layer(schemas.BOXES)[number]
    path = Path(dataset.store.root) / layout.object_path(cell.object_id)
    data = path.read_bytes()
    path.unlink()
    if harm != "missing":
        at = len(data) // 3
        path.write_bytes({
            "short": data[:-9], "zeros": bytes(len(data)), "empty": b"",
            "one bit": data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :],
        }[harm])  # fmt: skip
    error = ObjectMissingError if harm == "missing" else ObjectDamagedError
    with SqlSession(dataset) as session:
        for _ in range(2):
            with pytest.raises(error, match=f"shard {cell.shard[:12]} of boxes is "):
                session.query("from boxes").head(100)
        with pytest.raises(error, match=f"shard {cell.shard[:12]} of boxes is "):
            write_csv(session.query("from boxes"), tmp_path / "out.csv")
        # Other layers are none the worse for it.
        assert session.query("from verdicts").count() == 4
    assert list(tmp_path.glob("*out.csv*")) == []


def test_no_flipped_bit_goes_unseen(dataset: Dataset) -> None:
    cell = dataset.manifest.of_layer("masks/sam")[0]
    path = Path(dataset.store.root) / layout.object_path(cell.object_id)
    data = path.read_bytes()
    for at in np.random.default_rng(0).integers(0, len(data), 25).tolist():
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(ObjectDamagedError):
            ask(dataset, "from masks_sam")


# -- files and JSON ------------------------------------------------------------------------------


def test_results_as_files(dataset: Dataset, tmp_path: Path) -> None:
    csv_path, parquet_path = tmp_path / "rows.csv", tmp_path / "rows.parquet"
    csv_path.write_text("from before")
    query = "select shard, row, status, counts, mask_box_xyxy, area_px from masks_sam"
    with SqlSession(dataset) as session:
        result = session.query(query)
        assert write_csv(result, csv_path) == write_parquet(result, parquet_path) == 3
        rows = json_rows(result.head(10))
    with csv_path.open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["shard"] for row in read] == [row["shard"] for row in rows]
    assert [row["counts"] for row in read] == [row["counts"] or "" for row in rows]
    assert json.loads(read[0]["mask_box_xyxy"]) == rows[0]["mask_box_xyxy"]
    table = pq.read_table(parquet_path)
    assert json_rows(table) == rows
    assert table.schema.field("shard").type == pa.string()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "rows.csv", "rows.parquet",
    ]  # fmt: skip


def test_a_place_where_no_file_can_be(dataset: Dataset, tmp_path: Path) -> None:
    with SqlSession(dataset) as session:
        result = session.query("select 1 a")
        with pytest.raises(InputError, match="is a folder"):
            write_csv(result, tmp_path)
        with pytest.raises(InputError, match="in a folder that does not exist"):
            write_parquet(result, tmp_path / "no" / "rows.parquet")


def test_json_has_a_word_for_everything(dataset: Dataset) -> None:
    [row] = ask(
        dataset,
        "select 'nan'::float a, 'inf'::double b, '\\xFFab\\x5C'::blob c, 3::hugeint d, 1.5::decimal"
        "(4,2) e, date '2020-01-02' f, [1.5::float] g, {'x': '\\x00'::blob} h, null i, true j",
    )
    assert row == {
        "a": None, "b": None, "c": "\\xFFab\\", "d": 3, "e": 1.5, "f": "2020-01-02", "g": [1.5],
        "h": {"x": "\\x00"}, "i": None, "j": True,
    }  # fmt: skip
    json.dumps(row, allow_nan=False)
