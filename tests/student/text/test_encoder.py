"""What every text encoder promises, and what only some can."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from manifests.errors import InputError
from student.config import TextConfig
from student.text.encoder import TextEncoder, build_text_encoder
from student.text.hashed import HashedTextEncoder
from student.text.minilm import mean_of_tokens
from tests.student.text.conftest import clip_folder

_TEXTS = ("red bag", "handbag", "shoes", "a small dog that sleeps on a red sofa", "é ñ 犬")
# Of "red bag" and "ñ" in 4 channels, in any process and on any machine.
_HASHED = [[-0.285023, -0.618774, 0.717565, 0.144848], [0.390092, -0.003862, -0.830394, -0.397817]]


@pytest.fixture(params=["hashed", "clip", "minilm"])
def encoder(request: pytest.FixtureRequest) -> TextEncoder:
    return request.getfixturevalue(str(request.param))  # type: ignore[no-any-return]  # by name


def test_vectors_are_float32_of_unit_length(encoder: TextEncoder) -> None:
    vectors = encoder.encode(_TEXTS)
    assert vectors.shape == (len(_TEXTS), encoder.dim)
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(_TEXTS)))


def test_no_texts_are_no_vectors(encoder: TextEncoder) -> None:
    assert encoder.encode([]).shape == (0, encoder.dim)


def test_a_text_does_not_depend_on_those_beside_it(encoder: TextEncoder) -> None:
    many = [*_TEXTS, *(f"{text} number {number}" for text in _TEXTS for number in range(20))]
    alone = torch.cat([encoder.encode([text]) for text in _TEXTS])
    torch.testing.assert_close(encoder.encode(many)[: len(_TEXTS)], alone, atol=1e-5, rtol=0)
    assert len(many) > 64  # more than one batch


def test_different_texts_have_different_vectors(encoder: TextEncoder) -> None:
    vectors = encoder.encode(_TEXTS)
    likeness = vectors @ vectors.T - 2 * torch.eye(len(_TEXTS))
    assert likeness.max() < 0.999


def test_a_trained_network_can_be_multiplied_with_vectors(encoder: TextEncoder) -> None:
    vectors = encoder.encode(_TEXTS[:2])
    assert not vectors.requires_grad
    layer = nn.Linear(encoder.dim, 3)
    layer(vectors).sum().backward()
    assert layer.weight.grad is not None


def test_the_identity_is_words(encoder: TextEncoder) -> None:
    identity = encoder.identity
    assert identity["encoder"] in ("hashed", "clip", "minilm")
    assert all(isinstance(value, str) and value for value in identity.values())


def test_hashed_is_the_same_everywhere() -> None:
    got = HashedTextEncoder(dim=4).encode(["red bag", "ñ"])
    torch.testing.assert_close(got, torch.tensor(_HASHED), atol=1e-6, rtol=0)


def test_hashed_texts_that_share_letters_are_alike() -> None:
    bag, handbag, shoe = HashedTextEncoder(dim=512).encode(["bag", "handbag", "shoe"])
    assert bag @ handbag > bag @ shoe + 0.2


@given(st.text(), st.integers(min_value=8, max_value=64))
def test_hashed_of_any_text_has_unit_length(text: str, dim: int) -> None:
    vectors = HashedTextEncoder(dim=dim).encode([text])
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(1))


def test_padding_has_no_part_in_the_mean() -> None:
    embeddings = torch.tensor([[[3.0, 0.0], [0.0, 4.0], [50.0, 50.0]]])  # [1, T=3, E=2]
    mean = mean_of_tokens(embeddings, torch.tensor([[1, 1, 0]]))
    torch.testing.assert_close(mean, torch.tensor([[0.6, 0.8]]))


@pytest.mark.parametrize(
    ("texts", "published"),
    [
        (
            # The three sentences of the sentence-transformers README, and what it says of them.
            ("The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."),
            (0.6660, 0.1046, 0.1411),
        )
    ],
)
def test_minilm_gives_the_published_similarities(
    minilm: TextEncoder, texts: Sequence[str], published: Sequence[float]
) -> None:
    first, second, third = minilm.encode(texts)
    got = torch.stack([first @ second, first @ third, second @ third])
    torch.testing.assert_close(got, torch.tensor(published), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("text", "near", "far"),
    [
        ("red bag", "handbag", "shoes"),
        ("sneakers", "shoes", "handbag"),
        ("puppy", "dog", "car"),
        ("the man in the blue coat", "person", "table"),
        ("trousers", "pants", "hat"),
    ],
)
def test_minilm_knows_what_words_mean(minilm: TextEncoder, text: str, near: str, far: str) -> None:
    anchor, nearer, farther = minilm.encode([text, near, far])
    assert anchor @ nearer > anchor @ farther + 0.1


def test_minilm_cuts_what_is_too_long(minilm: TextEncoder) -> None:
    assert minilm.encode(["bag " * 5000]).isfinite().all()


def test_building_draws_no_random_numbers(minilm: TextEncoder, tmp_path: Path) -> None:
    folder = clip_folder(tmp_path)
    before = torch.get_rng_state()
    build_text_encoder(TextConfig(encoder="minilm"))
    build_text_encoder(TextConfig(encoder="clip", weights=str(folder)))
    assert torch.equal(torch.get_rng_state(), before)
    del minilm  # only so that the test is skipped without weights


def test_an_unknown_encoder_is_refused() -> None:
    config = TextConfig(encoder="word2vec")  # type: ignore[arg-type]  # what this is about
    with pytest.raises(InputError, match=r"text\.encoder: expected one of minilm, clip, hashed"):
        build_text_encoder(config)
