"""Canonical bytes and ids: the same everywhere, different for different things."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.digest import canonical_json, content_id, digest_of, sha256_hex

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@dataclass
class _Point:
    y: int
    x: int


def test_literal_bytes() -> None:
    value = {"ü": [1, 2.5, None, True], "a": {"z": "\n", "b": ""}}
    assert canonical_json(value) == '{"a":{"b":"","z":"\\n"},"ü":[1,2.5,null,true]}'.encode()
    assert digest_of({}) == hashlib.sha256(b"{}").hexdigest()
    assert canonical_json(_Point(y=1, x=2)) == b'{"x":2,"y":1}'


def test_ids_are_pinned() -> None:
    """Ids are for ever: a change here breaks every store."""
    assert content_id("a", "bc") == "9a8acca1b6c6c0befd3fbc756aed625d"
    assert sha256_hex(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@given(st.dictionaries(st.text(max_size=4), _JSON, max_size=6))
def test_order_of_keys_does_not_matter(value: dict[str, object]) -> None:
    backwards = dict(reversed(value.items()))
    assert canonical_json(value) == canonical_json(backwards)


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": -float("inf")}])
def test_no_word_for_nan(value: object) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(value)


def test_parts_do_not_merge() -> None:
    ids = {content_id("ab", "c"), content_id("a", "bc"), content_id("abc"), content_id("abc", "")}
    assert len(ids) == 4


@given(st.lists(st.binary(max_size=8), max_size=4), st.lists(st.binary(max_size=8), max_size=4))
def test_ids_differ_as_their_parts_do(a: list[bytes], b: list[bytes]) -> None:
    assert (content_id(*a) == content_id(*b)) == (a == b)


def test_text_is_its_utf8() -> None:
    assert content_id("é") == content_id("é".encode())


def test_same_in_another_process() -> None:
    code = "from manifests.digest import digest_of; print(digest_of({'b': {3, }.pop(), 'a': 'x'}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest_of({"a": "x", "b": 3})
