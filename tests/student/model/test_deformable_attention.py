"""Deformable attention is the sum that its paper writes down, and looks where it should."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from student.model.deformable_attention import DeformableAttention
from student.model.pyramid import Pyramid

SHAPES = ((5, 4), (3, 2))
NUM_TOKENS = 26
DIM, HEADS, POINTS = 8, 2, 3


def _attention(seed: int = 0) -> DeformableAttention:
    torch.manual_seed(seed)
    attention = DeformableAttention(dim=DIM, heads=HEADS, levels=len(SHAPES), points=POINTS)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return attention


def _pyramid(batch: int = 2, seed: int = 1) -> Pyramid:
    generator = torch.Generator().manual_seed(seed)
    padding = torch.rand(batch, NUM_TOKENS, generator=generator) < 0.3
    tokens = torch.randn(batch, NUM_TOKENS, DIM, generator=generator)
    return Pyramid(tokens=tokens.requires_grad_(), padding=padding, shapes_hw=SHAPES)


def _queries(num: int, coordinates: int, batch: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    queries = torch.randn(batch, num, DIM, generator=generator)
    references = torch.rand(batch, num, coordinates, generator=generator)
    return queries.requires_grad_(), references.requires_grad_()


def _slow(
    attention: DeformableAttention, queries: Tensor, references: Tensor, pyramid: Pyramid
) -> Tensor:
    """Equation 3 with one Python loop for each of its sums."""
    values = attention.values(pyramid.tokens) * ~pyramid.padding[..., None]
    offsets, weights = attention.offsets(queries), attention.weights(queries)
    found = []
    for b in range(queries.shape[0]):
        for q in range(queries.shape[1]):
            heads = []
            for h in range(HEADS):
                start = h * len(SHAPES) * POINTS
                shares = weights[b, q, start : start + len(SHAPES) * POINTS].softmax(dim=0)
                result = torch.zeros(DIM // HEADS)
                first = 0
                for level, (rows, columns) in enumerate(SHAPES):
                    of_level = values[b, first : first + rows * columns]
                    of_head = of_level[:, h * DIM // HEADS : (h + 1) * DIM // HEADS]
                    first += rows * columns
                    for p in range(POINTS):
                        k = level * POINTS + p
                        offset = offsets[b, q, (start + k) * 2 : (start + k) * 2 + 2]
                        x, y = _place(references[b, q], offset, rows, columns)
                        result = result + shares[k] * _bilinear(of_head, x, y, rows, columns)
                heads.append(result)
            found.append(torch.cat(heads))
    return attention.out(torch.stack(found).view(queries.shape))


def _place(reference: Tensor, offset: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Column and row, in tokens; the middle of the first token is 0.0."""
    if len(reference) == 2:
        x, y = reference[0] + offset[0] / columns, reference[1] + offset[1] / rows
    else:
        x = reference[0] + offset[0] / POINTS * reference[2] / 2
        y = reference[1] + offset[1] / POINTS * reference[3] / 2
    return x * columns - 0.5, y * rows - 0.5


def _bilinear(values: Tensor, x: Tensor, y: Tensor, rows: int, columns: int) -> Tensor:
    left, top = math.floor(x.item()), math.floor(y.item())
    result = torch.zeros(values.shape[1])
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < rows and 0 <= column < columns:
                share = (1 - (x - column).abs()) * (1 - (y - row).abs())
                result = result + share * values[row * columns + column]
    return result


@pytest.mark.parametrize("coordinates", [2, 4])
def test_equals_a_slow_loop_in_values_and_gradients(coordinates: int) -> None:
    attention, pyramid = _attention(), _pyramid()
    queries, references = _queries(5, coordinates)
    wanted = [queries, references, pyramid.tokens, *attention.parameters()]
    fast = attention(queries, references, pyramid)
    slow = _slow(attention, queries, references, pyramid)
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-5)
    of_fast = torch.autograd.grad(fast.sin().sum(), wanted)
    of_slow = torch.autograd.grad(slow.sin().sum(), wanted)
    for ours, theirs in zip(of_fast, of_slow, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_is_the_same_with_and_without_gradients() -> None:
    attention, pyramid = _attention(), _pyramid()
    queries, references = _queries(5, 4)
    with torch.no_grad():
        without = attention(queries, references, pyramid)
    assert torch.equal(attention(queries, references, pyramid), without)


def test_one_image_among_others_is_that_image_alone() -> None:
    attention, pyramid = _attention(), _pyramid(batch=3)
    queries, references = _queries(5, 2, batch=3)
    together = attention(queries, references, pyramid)
    for index in range(3):
        one = slice(index, index + 1)
        alone = Pyramid(tokens=pyramid.tokens[one], padding=pyramid.padding[one], shapes_hw=SHAPES)
        found = attention(queries[one], references[one], alone)
        torch.testing.assert_close(found, together[one])


def test_padded_tokens_do_not_matter() -> None:
    attention, pyramid = _attention(), _pyramid()
    queries, references = _queries(5, 2)
    other = torch.where(pyramid.padding[..., None], 1e4, pyramid.tokens)
    found = attention(queries, references, pyramid)
    assert torch.equal(attention(queries, references, pyramid.with_tokens(other)), found)


def test_heads_look_at_first_in_different_directions_ever_further_out() -> None:
    attention = DeformableAttention(dim=8, heads=4, levels=1, points=3)
    offsets = attention.offsets(torch.randn(8)).view(4, 3, 2)
    along = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    for point in range(3):
        torch.testing.assert_close(offsets[:, point], along * (point + 1), rtol=0, atol=1e-6)
    assert not attention.weights(torch.randn(8)).any()


def test_bfloat16_moves_no_sampling_location() -> None:
    attention = DeformableAttention(dim=8, heads=1, levels=1, points=1)
    for parameter in attention.parameters():
        torch.nn.init.zeros_(parameter)
    for layer in (attention.values, attention.out):
        torch.nn.init.eye_(layer.weight)
    columns = 200
    tokens = torch.zeros(1, columns, 8)
    tokens[:, columns // 2 :] = 256.0  # one step up; bfloat16 cannot tell columns 99 and 100 apart
    pyramid = Pyramid(
        tokens=tokens,
        padding=torch.zeros(1, columns, dtype=torch.bool),
        shapes_hw=((1, columns),),
    )
    between = torch.tensor([[[0.5 + 0.25 / columns, 0.5]]])
    with torch.autocast("cpu", torch.bfloat16):
        found = attention(torch.zeros(1, 1, 8), between, pyramid)
    torch.testing.assert_close(found.float(), torch.full((1, 1, 8), 192.0), rtol=0, atol=0.5)


def test_trains_in_bfloat16() -> None:
    attention, pyramid = _attention(), _pyramid()
    queries, references = _queries(5, 4)
    exact = attention(queries, references, pyramid)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = attention(queries, references, pyramid)
    torch.testing.assert_close(rounded.float(), exact, rtol=0.05, atol=0.1)
    rounded.float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in attention.parameters())
