"""Paths inside a store: what they look like, and that no name leads out of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import layout
from manifests.errors import RefError

_ID = "ab" + "0" * 62


def test_literal_paths() -> None:
    """They are the format: another version must find what this one wrote."""
    assert layout.MARKER == "maskmill.json"
    assert layout.object_path(_ID) == f"objects/ab/{_ID}"
    assert layout.result_path(_ID) == f"results/ab/{_ID}"
    assert layout.result_path(_ID, "again-1") == f"scratch/again-1/ab/{_ID}"
    entry = layout.ref_entry_path(layout.HEADS, "team/x", 42)
    assert entry == "refs/heads/team/x/00000042"
    assert layout.ref_entry_path(layout.TAGS, "v1", 1) == "refs/tags/v1/00000001"


@pytest.mark.parametrize("name", ["main", "a/b", "v1.0", "2026-11", "A_b", "1a", "x" * 200])
def test_possible_ref_names(name: str) -> None:
    assert layout.check_ref_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", "/", "a/", "/a", "a//b", ".", "..", "../x", "a/../b", "a..b", ".a", "a/.b", "-a"),
        *("00000001", "a/00000001", "7", "a b", "a\n", "a\\b", "a~1", "é", "a\0", "x" * 201, "٣"),
    ],
)
def test_impossible_ref_names(name: str) -> None:
    with pytest.raises(RefError, match="is not possible: use letters, digits"):
        layout.check_ref_name(name)


@given(st.text(max_size=30))
def test_no_ref_name_leaves_its_folder_or_looks_like_an_entry(name: str) -> None:
    try:
        path = layout.ref_entry_path(layout.HEADS, name, 1)
    except RefError:
        return
    parts = path.split("/")
    assert parts[:2] == ["refs", "heads"]
    assert not {"", ".", ".."} & set(parts)
    assert not any(part.isdigit() for part in parts[2:-1])


@pytest.mark.parametrize("name", ["..", "a/../../objects", "/a", ".a"])
def test_no_scratch_leaves_its_folder(name: str) -> None:
    with pytest.raises(RefError, match="is not possible"):
        layout.result_path(_ID, name)


@given(st.text(max_size=70))
def test_only_digests_are_ids(text: str) -> None:
    for path in (layout.object_path, layout.result_path):
        with pytest.raises(RefError, match="expected 64 hex digits"):
            path(text)
