"""Sine embeddings tell places apart, and boxes come back from their logits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from student.model.positions import inverse_sigmoid, sine_embedding


def test_nearer_places_have_nearer_embeddings() -> None:
    places = torch.linspace(0.05, 0.95, 32)[:, None]
    embedded = sine_embedding(places, 16)
    assert embedded.shape == (32, 16)
    distances = torch.cdist(embedded, embedded)
    assert (distances[0, :16].diff() > 0).all()
    assert (distances + torch.eye(32) > 0.05).all()


def test_every_coordinate_has_its_own_channels() -> None:
    both = sine_embedding(torch.tensor([[0.2, 0.7]]), 8)
    alone = [sine_embedding(torch.tensor([[value]]), 8) for value in (0.2, 0.7)]
    assert torch.equal(both, torch.cat(alone, dim=1))


@given(st.floats(1e-3, 1 - 1e-3))
def test_inverse_sigmoid_is_the_inverse(share: float) -> None:
    assert inverse_sigmoid(torch.tensor(share)).sigmoid().item() == pytest.approx(share, abs=1e-5)


def test_inverse_sigmoid_is_finite_with_finite_gradients_at_the_ends() -> None:
    ends = torch.tensor([0.0, 1.0], requires_grad=True)
    logits = inverse_sigmoid(ends)
    logits.sum().backward()
    assert logits.isfinite().all()
    assert ends.grad is not None
    assert ends.grad.isfinite().all()
