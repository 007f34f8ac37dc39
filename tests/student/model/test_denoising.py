"""Denoising: how far boxes move, which texts are swapped, who sees whom, and the same again."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import box_convert  # type: ignore[import-untyped]

from student.config import DenoisingConfig
from student.model.denoising import Denoising, noised_boxes
from student.records import Targets
from tests.student.model.tiny import TEXT_DIM, targets

DIM = 8


def _denoising(**changes: int | float) -> Denoising:
    torch.manual_seed(0)
    return Denoising(DenoisingConfig(**changes), dim=DIM, text_dim=TEXT_DIM)  # type: ignore[arg-type]


def _texts(num: int = 3) -> Tensor:
    return torch.randn(num, TEXT_DIM, generator=torch.Generator().manual_seed(1))


@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=3).filter(any),
    queries=st.integers(1, 30),
)
@settings(max_examples=40, deadline=None)
def test_every_group_has_each_target_once_as_positive_and_once_as_negative(
    counts: list[int], queries: int
) -> None:
    batch = [targets(num) for num in counts]
    noised = _denoising(queries=queries)(batch, _texts(), torch.Generator().manual_seed(0))
    assert noised is not None
    total = noised.target_rows.shape[1]
    assert total <= max(2, queries)
    for image, num in enumerate(counts):
        for group in noised.groups.unique():
            for is_positive in (True, False):
                chosen = (noised.groups == group) & (noised.is_positive[image] == is_positive)
                rows = noised.target_rows[image][chosen]
                kept = rows[rows >= 0].tolist()
                assert len(set(kept)) == len(kept) == min(num, total // 2, max(1, queries // 2))
                assert all(row < num for row in kept)


@given(noise=st.floats(0.01, 1.0), seed=st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_positives_move_little_and_negatives_further(noise: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.tensor([0.5, 0.5, 0.2, 0.3]).expand(1, 40, 4)
    is_positive = torch.arange(40) < 20
    moved = noised_boxes(boxes, is_positive, noise, generator)
    assert ((moved >= 0) & (moved <= 1)).all()
    sides = [box_convert(b, "cxcywh", "xyxy") for b in (moved, boxes)]
    shares = (sides[0] - sides[1]).abs() / (boxes[..., [2, 3, 2, 3]] / 2 * noise)
    if noise <= 0.5:  # else sides pass each other
        assert shares[:, :20].max() <= 1 + 1e-3
        assert shares[:, 20:].min() >= 1 - 1e-3
        assert shares[:, 20:].max() <= 2 + 1e-3


def test_without_noise_positives_are_the_targets() -> None:
    batch, texts = [targets(3), targets(1)], _texts()
    denoising = _denoising(queries=12, box_noise=0.0, label_noise=0.0)
    noised = denoising(batch, texts, None)
    assert noised is not None
    for image, target in enumerate(batch):
        kept = noised.target_rows[image] >= 0
        rows = noised.target_rows[image][kept]
        torch.testing.assert_close(
            noised.boxes_cxcywh[image][kept], target.boxes_cxcywh[rows], rtol=0, atol=1e-6
        )
        contents = denoising.norm(denoising.linear(texts))[target.labels[rows]]
        torch.testing.assert_close(noised.content[image][kept], contents)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_given_share_of_texts_is_swapped_for_any_other(share: float) -> None:
    denoising, texts = _denoising(queries=2000, label_noise=share), _texts(4)
    one = targets(1, num_texts=4)
    noised = denoising([one], texts, torch.Generator().manual_seed(0))
    assert noised is not None
    contents = denoising.norm(denoising.linear(texts))
    labels = torch.cdist(noised.content[0], contents).argmin(dim=1)
    is_swapped = labels != one.labels[0]
    assert is_swapped.float().mean().item() == pytest.approx(share, abs=0.04)
    if share:
        counts = labels[is_swapped].bincount(minlength=4)
        assert (counts > 0).sum() == 3


def test_a_single_text_is_never_swapped() -> None:
    noised = _denoising(queries=20, label_noise=1.0)([targets(2, num_texts=1)], _texts(1), None)
    assert noised is not None
    assert torch.equal(noised.content[0, 0], noised.content[0, 1])


def test_who_sees_whom() -> None:
    noised = _denoising(queries=8)([targets(2), targets(1)], _texts(), None)
    assert noised is not None
    num_queries, num = 3, noised.target_rows.shape[1]
    assert num == 8  # two groups of two targets, twice
    hidden = noised.hidden(num_queries)
    assert hidden.shape == (2, num_queries + num, num_queries + num)
    assert hidden[:, :num_queries, num_queries:].all()
    assert not hidden[:, :, :num_queries].any()
    among = hidden[:, num_queries:, num_queries:]
    assert among[:, :4, 4:].all()
    assert among[:, 4:, :4].all()
    assert not among[0, :4, :4].any()
    is_padding = noised.target_rows[1] < 0
    assert is_padding.sum() == 4
    itself = torch.eye(num, dtype=torch.bool)
    assert torch.equal(among[1][:, is_padding], ~itself[:, is_padding])
    assert not hidden.all(dim=2).any()  # nobody sees nothing, which would be NaN


def test_no_targets_at_all_are_no_queries() -> None:
    denoising = _denoising(queries=8)
    assert denoising([targets(0), targets(0)], _texts(), None) is None
    denoising.nothing().backward()
    assert denoising.nothing() == 0
    assert all(p.grad is not None and not p.grad.any() for p in denoising.parameters())


def test_the_same_generator_gives_the_same_noise() -> None:
    batch: list[Targets] = [targets(9), targets(2)]
    denoising = _denoising(queries=8)
    first, same, other = (
        denoising(batch, _texts(), torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)
    )
    assert first is not None
    assert same is not None
    assert other is not None
    for name in ("content", "boxes_cxcywh", "target_rows"):
        assert torch.equal(getattr(first, name), getattr(same, name))
        assert not torch.equal(getattr(first, name), getattr(other, name))
