"""The class loss: torchvision's focal loss where it counts, and nothing elsewhere."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from student.losses.class_loss import class_loss, focal_losses
from tests.student.losses.synthetic import seeded


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.5, 0.0), (1.0, 1.5), (0.0, 0.5)])
def test_focal_losses_are_torchvisions(alpha: float, gamma: float) -> None:
    logits = torch.randn(3, 5, 4, generator=seeded()) * 3
    is_positive = torch.rand(3, 5, 4, generator=seeded(1)) > 0.7
    torch.testing.assert_close(
        focal_losses(logits, is_positive, alpha=alpha, gamma=gamma),
        sigmoid_focal_loss(logits, is_positive.float(), alpha=alpha, gamma=gamma),
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("truth", [True, False])
def test_extreme_logits_stay_finite(gamma: float, truth: bool) -> None:
    logits = torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4], requires_grad=True)
    losses = focal_losses(logits, torch.full((5,), truth), alpha=0.25, gamma=gamma)
    losses.sum().backward()
    assert logits.grad is not None
    assert losses.isfinite().all()
    assert logits.grad.isfinite().all()


def test_what_does_not_count_gives_neither_loss_nor_gradient() -> None:
    logits = torch.randn(2, 3, 4, generator=seeded())
    is_counted = torch.rand(2, 3, 4, generator=seeded(1)) > 0.5
    logits[~is_counted] = torch.nan
    logits.requires_grad_()
    is_positive = torch.rand(2, 3, 4, generator=seeded(2)) > 0.5
    loss = class_loss(logits, is_positive, is_counted, alpha=0.25, gamma=2)
    loss.backward()
    slow = sum(
        sigmoid_focal_loss(logits[at], is_positive[at].float(), alpha=0.25, gamma=2)
        for at in zip(*torch.nonzero(is_counted, as_tuple=True), strict=True)
    )
    torch.testing.assert_close(loss, slow)
    assert logits.grad is not None
    assert (logits.grad[~is_counted] == 0).all()
    assert (logits.grad[is_counted] != 0).all()
