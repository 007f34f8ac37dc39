"""Any JSON, cut anywhere, reads as Python's json reads it; text that is none is refused."""

from __future__ import annotations

import gzip
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.sources.json_scan import BorderScanner
from engine.sources.json_stream import ArrayKey, read_arrays
from engine.sources.json_window import MAX_ELEMENT_BYTES
from manifests.errors import InputError, SourceSyntaxError

PATH = "memory://json_stream/file.json"
KEYS = (ArrayKey(name="a", element=object, coerce=lambda value: value),)
SMALL = (
    '{"info": {"x": [1, {"y": "}\\\\\\""}]}, "empty": [], "n": -1.5e3, "s": "q\\"u", "o": {},\n'
    ' "nums": [1 , 2,3], "a": [{"id": 1, "s": "[\\",{"}, [2],\n{"é": "\\u00e9\\ud83d\\ude00"} ,'
    ' "x,]", null, {"id": NaN, "v": -Infinity}], "last": true}'
)

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
    | st.sampled_from(['"', "\\", '\\"', "[{", "}]", ",", "\\\\", '",{"', "\n"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def read(text: str | bytes, *, chunk_bytes: int = 4 << 20, batch_rows: int = 20_000) -> list[Any]:
    fsspec.filesystem("memory").pipe(PATH, text.encode() if isinstance(text, str) else text)
    batches = read_arrays(PATH, KEYS, chunk_bytes=chunk_bytes, batch_rows=batch_rows)
    return [element for batch in batches for element in batch.elements]


def same(one: object, other: object) -> bool:
    """Equality with NaN equal to itself."""
    return repr(one) == repr(other) or json.dumps(one) == json.dumps(other)


@settings(deadline=None, max_examples=300)
@given(
    before=st.dictionaries(texts, values, max_size=3),
    elements=st.lists(values, max_size=12),
    after=st.dictionaries(texts, values, max_size=3),
    chunk_bytes=st.integers(1, 40) | st.sampled_from([64, 100, 1000, 1 << 20]),
    batch_rows=st.integers(1, 5) | st.just(20_000),
    indent=st.none() | st.integers(0, 3),
    is_ascii=st.booleans(),
    separators=st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")]),
)
def test_equals_json_loads(
    before: dict[str, Any],
    elements: list[Any],
    after: dict[str, Any],
    chunk_bytes: int,
    batch_rows: int,
    indent: int | None,
    is_ascii: bool,
    separators: tuple[str, str],
) -> None:
    document = {**before, "a": elements, **{k: v for k, v in after.items() if k != "a"}}
    document["a"] = elements
    text = json.dumps(document, indent=indent, ensure_ascii=is_ascii, separators=separators)
    found = read(text, chunk_bytes=chunk_bytes, batch_rows=batch_rows)
    assert same(found, json.loads(text)["a"])


@settings(deadline=None, max_examples=400)
@given(
    at=st.integers(0, len(SMALL) - 1),
    replacement=st.sampled_from([*list('"\\,:[]{}01x \n'), "", '""', "}}"]),
    chunk_bytes=st.integers(1, 50) | st.just(1 << 20),
)
@example(at=0, replacement="", chunk_bytes=1)
def test_a_changed_character_is_refused_or_read_as_json_does(
    at: int, replacement: str, chunk_bytes: int
) -> None:
    text = SMALL[:at] + replacement + SMALL[at + 1 :]
    try:
        expected = json.loads(text)
    except ValueError:
        expected = None
    if isinstance(expected, dict) and isinstance(expected.get("a"), list):
        assert same(read(text, chunk_bytes=chunk_bytes), expected["a"])
    else:
        with pytest.raises(InputError):
            read(text, chunk_bytes=chunk_bytes)


@pytest.mark.parametrize("chunk_bytes", [1, 7, 1 << 20])
def test_every_truncation_is_refused(chunk_bytes: int) -> None:
    data = SMALL.encode()
    assert len(read(data, chunk_bytes=chunk_bytes)) == 6
    for size in range(len(data)):
        with pytest.raises(SourceSyntaxError) as caught:
            read(data[:size], chunk_bytes=chunk_bytes)
        before = data[:size].decode(errors="replace")
        end = (before.count("\n") + 1, len(before) - before.rfind("\n"))
        assert (caught.value.line, caught.value.column) <= end


@pytest.mark.parametrize(
    ("text", "line", "column", "detail"),
    [
        ("", 1, 1, "the file is empty"),
        (" \n \t", 2, 3, "the file is empty"),
        ("[]", 1, 1, "expected a JSON object in UTF-8, got an array"),
        ("7", 1, 1, "expected a JSON object in UTF-8, got '7'"),
        ('{"a":[]}x', 1, 9, "expected the end of the file, got 'x'"),
        ('{"a":[]', 1, 8, "expected ',' or '}', got the end of the file"),
        ('{"a":{}}', 1, 6, "'a' is an object, expected an array"),
        ('{"a":null}', 1, 6, "'a' is 'n', expected an array"),
        ('{"a":"x"}', 1, 6, "'a' is a string, expected an array"),
        ('{"a":[1,2', 1, 10, "the file ends inside 'a'"),
        ('{"a":["abc', 1, 11, "the file ends inside 'a'"),
        ('{"a":[1,]}', 1, 9, "expected a value"),
        ('{"a":[,1]}', 1, 7, "expected a value"),
        ('{"a":[1,,1]}', 1, 9, "expected a value"),
        ('{"a":[1 2]}', 1, 9, "expected ',' or the end, got '2'"),
        ('{"a":[1}', 1, 8, "expected ']' here"),
        ('{"a":[{"b":1]}', 1, 13, "expected ',' delimiter"),
        ('{"a":[{"b" 1}]}', 1, 12, "expected ':' delimiter"),
        ('{"a":[{},\n{"é":tru}]}', 2, 6, "expected a value"),
        ('{"é": 1,\r\n "éé": [], x}', 2, 12, "expected a key in double quotes, got 'x'"),
        ('{"x":{"y":[1,\n2,]},"a":[]}', 2, 3, "expected a value"),
        ('{"x":tru,"a":[]}', 1, 6, "expected a value"),
        ("{'a':[]}", 1, 2, "expected a key in double quotes, got '''"),
        ('\ufeff{"a":[x]}', 1, 7, "expected a value"),
    ],
)
@pytest.mark.parametrize("chunk_bytes", [1, 3, 1 << 20])
def test_line_and_column(text: str, line: int, column: int, detail: str, chunk_bytes: int) -> None:
    with pytest.raises(SourceSyntaxError) as caught:
        read(text, chunk_bytes=chunk_bytes)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert detail in str(caught.value)
    assert caught.value.path == PATH


def test_a_fault_far_into_a_file_of_one_line_has_its_column() -> None:
    good = ",".join(json.dumps({"id": number}) for number in range(60_000))
    with pytest.raises(SourceSyntaxError) as caught:
        read(f'{{"a":[{good},{{"id":?}}]}}', chunk_bytes=1 << 16)
    assert (caught.value.line, caught.value.column) == (1, len(f'{{"a":[{good},{{"id":?'))


def test_bytes_that_are_not_utf8_have_a_place() -> None:
    with pytest.raises(SourceSyntaxError, match=r"line 2, column 3: byte 0xff is not UTF-8"):
        read(b'{"a":[\n "\xff"]}')


def test_nan_and_infinity_cost_nothing_but_speed() -> None:
    found = read('{"a":[{"v":NaN},{"v":-Infinity},{"v":1}]}')
    assert math.isnan(found[0]["v"])
    assert found[1:] == [{"v": -math.inf}, {"v": 1}]


def test_numbers_beyond_every_limit_are_numbers() -> None:
    assert read('{"a":[%s, 1e999, NaN]}' % ("9" * 5000))[0] == math.inf


def test_deep_nesting_is_an_error_and_no_crash() -> None:
    with pytest.raises(SourceSyntaxError, match="nested too deeply"):
        read('{"a":[' + "[" * 200_000 + "]" * 200_000 + "]}")


def test_a_missing_key_is_named_with_those_found() -> None:
    with pytest.raises(InputError, match="has no key 'a': expected the keys a, found b, c"):
        read('{"b":[],"c":1}')


def test_a_repeated_key_is_read_twice() -> None:
    assert read('{"a":[1],"a":[2]}') == [1, 2]


def test_batches_hold_at_most_the_rows_asked_for() -> None:
    fsspec.filesystem("memory").pipe(PATH, json.dumps({"a": [{}] * 1000}).encode())
    sizes = [len(batch.elements) for batch in read_arrays(PATH, KEYS, batch_rows=64)]
    assert sum(sizes) == 1000
    assert max(sizes) <= 65


def test_a_lost_quote_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "lost.json"
    with path.open("wb") as file:
        file.write(b'{"a":["')
        for _ in range(MAX_ELEMENT_BYTES // (1 << 20) + 20):
            file.write(b"x" * (1 << 20))
    with pytest.raises(SourceSyntaxError, match="an element of 'a' is too long to be one"):
        list(read_arrays(str(path), KEYS))


def test_gzip_is_read_by_its_suffix(tmp_path: Path) -> None:
    path = tmp_path / "file.json.gz"
    path.write_bytes(gzip.compress(SMALL.encode()))
    assert sum(len(batch.elements) for batch in read_arrays(str(path), KEYS)) == 6


def test_a_cut_or_false_gzip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.json.gz"
    noise = json.dumps({"a": np.random.default_rng(0).random(5000).tolist()}).encode()
    for data in (gzip.compress(noise)[:-2000], b"no gzip at all", gzip.compress(noise)[:5]):
        path.write_bytes(data)
        with pytest.raises(SourceSyntaxError, match="compressed data are damaged"):
            list(read_arrays(str(path), KEYS))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("memory://json_stream/nothing.json", "no file at memory://json_stream/nothing.json"),
        ("/nonexistent/x.json", "no file at /nonexistent/x.json"),
        ("nosuch://x/y.json", "cannot open nosuch://x/y.json: .*Protocol not known"),
        (str(Path(__file__).parent), "is a folder: expected a file"),
    ],
)
def test_unreachable_files(path: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(read_arrays(path, KEYS))


@settings(deadline=None, max_examples=200)
@given(elements=st.lists(values, max_size=6), split=st.lists(st.integers(1, 9), max_size=40))
def test_the_scanner_cuts_only_between_elements(elements: list[Any], split: list[int]) -> None:
    parts = [json.dumps(element).encode() for element in elements]
    text, commas = b",".join(parts) + b"]", set()
    for part in parts[:-1]:
        commas.add(sum(map(len, parts[: len(commas)])) + len(commas) + len(part))
    scanner, at, end = BorderScanner(), 0, None
    for size in [*split, len(text)]:
        borders = scanner.scan(np.frombuffer(text[at : at + size], np.uint8))
        assert {int(cut) + at for cut in borders.cuts} <= commas
        if borders.end is not None:
            end = borders.end + at
            break
        at += size
    assert end == len(text) - 1


_MEASURE = """
import resource, sys
from engine.sources.protocol import SourceConfig
from engine.sources.registry import open_source
config = SourceConfig(format="coco", annotations=sys.argv[1], images="", name="n")
rows = sum(batch.table.num_rows for batch in open_source(config).scan())
print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    entry = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1.5, 2.5, 3.5, 4.5], "iscrowd": 0}
    text = json.dumps(entry)
    peaks = []
    for megabytes in (5, 50):
        path = tmp_path / f"{megabytes}.json"
        count = megabytes * 1_000_000 // (len(text) + 1)
        with path.open("w") as file:
            file.write('{"images": [], "categories": [], "annotations": [')
            file.write(",".join([text] * count) + "]}")
        done = subprocess.run(
            [sys.executable, "-c", _MEASURE, str(path)], capture_output=True, text=True, check=True
        )
        rows, peak_mb = map(int, done.stdout.split())
        assert rows == count
        peaks.append(peak_mb)
    assert peaks[1] - peaks[0] < 30


def test_an_element_far_longer_than_a_chunk(write: Callable[..., Path]) -> None:
    long = {"s": 'x",[{' * 100_000}
    path = write({"long.json": json.dumps({"a": [1, long, {"id": 2}]})}) / "long.json"
    batches = read_arrays(str(path), KEYS, chunk_bytes=5000)
    assert [element for batch in batches for element in batch.elements] == [1, long, {"id": 2}]
