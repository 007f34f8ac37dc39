"""The table of texts: encoded once, in the order asked for, names in the template, phrases bare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from manifests.errors import InputError
from student.text import table
from student.text.hashed import HashedTextEncoder
from student.text.table import TextTable


class _Counting:
    """The hashed encoder, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._inner = HashedTextEncoder(dim=16)

    @property
    def dim(self) -> int:
        return self._inner.dim

    @property
    def identity(self) -> Mapping[str, str]:
        return self._inner.identity

    def encode(self, texts: Sequence[str]) -> Tensor:
        self.asked.extend(texts)
        return self._inner.encode(texts)


def test_each_text_is_encoded_once() -> None:
    encoder = _Counting()
    texts = TextTable(encoder)
    texts.vectors(["bag", "shoe", "bag"])
    texts.vectors(["shoe", "hat"])
    assert encoder.asked == ["bag", "shoe", "hat"]


_NAMES = st.lists(st.sampled_from(["bag", "shoe", "hat", "dog", "red bag"]), max_size=8)


@given(st.lists(_NAMES, max_size=4))
def test_rows_are_in_the_order_of_the_names(asked: list[list[str]]) -> None:
    encoder = HashedTextEncoder(dim=16)
    texts = TextTable(encoder)
    for names in asked:
        assert torch.equal(texts.vectors(names), encoder.encode(names))


def test_names_go_into_the_template_and_phrases_do_not() -> None:
    encoder = _Counting()
    texts = TextTable(encoder, "a photo of a {}.")
    texts.vectors(["shopping_bag"])
    texts.phrase_vectors(["the  red bag\non the left"])
    assert encoder.asked == ["a photo of a shopping bag.", "the red bag on the left"]


def test_braces_in_a_name_are_a_part_of_it() -> None:
    encoder = _Counting()
    TextTable(encoder, "a {} here").vectors(["{0} {x}"])
    assert encoder.asked == ["a {0} {x} here"]


def test_changing_what_was_given_out_changes_nothing() -> None:
    texts = TextTable(HashedTextEncoder(dim=16))
    first = texts.vectors(["bag"])
    kept = first.clone()
    first.zero_()
    assert torch.equal(texts.vectors(["bag"]), kept)


def test_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_MAX_CACHED", 2)
    encoder = _Counting()
    texts = TextTable(encoder)
    assert texts.vectors(["a", "b", "c"]).shape == (3, 16)
    texts.vectors(["c", "b"])
    assert encoder.asked == ["a", "b", "c"]
    texts.vectors(["a"])
    assert encoder.asked == ["a", "b", "c", "a"]


def test_no_names_are_no_vectors() -> None:
    assert TextTable(HashedTextEncoder(dim=16)).vectors([]).shape == (0, 16)


@pytest.mark.parametrize("blank", ["", "  ", "\n\t", "_"])
def test_categories_without_text_are_refused(blank: str) -> None:
    texts = TextTable(HashedTextEncoder(dim=16))
    with pytest.raises(InputError, match=r"categories without text: .* got 1 blank of 2.* place 2"):
        texts.vectors(["bag", blank])
    with pytest.raises(InputError, match=r"phrases without text.*; leave them out"):
        texts.phrase_vectors([blank])


def test_a_template_without_a_place_is_refused() -> None:
    with pytest.raises(InputError, match=r"text\.template: expected {} in it, got 'a photo'"):
        TextTable(HashedTextEncoder(), "a photo")


def test_the_identity_has_the_template() -> None:
    encoder = HashedTextEncoder()
    assert TextTable(encoder, "a {}").identity != TextTable(encoder).identity
