"""The criterion: the sums of slow loops, gradients where something is taught, and odd batches."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from manifests.errors import InputError
from student.losses.criterion import Criterion
from student.losses.predicted import predicted_tensors
from tests.student.losses.scored import everything, losses_of
from tests.student.losses.slow_criterion import flat_masked_targets, flat_output, slow_parts
from tests.student.losses.synthetic import (
    CONFIG,
    NUM_TEXTS,
    SIDE,
    gradient,
    make_batch,
    make_denoised,
    make_head,
    make_output,
    make_targets,
    seeded,
)

PARTS = {
    "class", "box_l1", "box_giou", "mask_dice", "mask_bce", "auxiliary", "proposals", "denoising",
}  # fmt: skip


@pytest.mark.parametrize("use_weights", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_parts_are_those_of_slow_loops(seed: int, use_weights: bool) -> None:
    is_judged = torch.rand(2, NUM_TEXTS, generator=seeded(seed)) > 0.4
    config = replace(CONFIG, use_weights=use_weights, focal_alpha=0.3, masks_bce=3, boxes_l1=2)
    batch = make_batch(
        flat_masked_targets(3, seed=seed),
        flat_masked_targets(2, seed=seed + 100),
        is_judged=is_judged,
    )
    output = flat_output(everything())
    losses = losses_of(output, batch, config, num_targets=3.5)
    with torch.no_grad():
        expected = slow_parts(output, batch, config, num_targets=3.5)
    assert set(losses.parts) == set(expected) == PARTS
    for name, value in expected.items():
        assert float(losses.parts[name]) == pytest.approx(value, rel=1e-4, abs=1e-5), name
    assert losses.total.item() == pytest.approx(sum(expected.values()), rel=1e-4)
    assert losses.num_skipped == 0


def test_without_deep_supervision_earlier_layers_are_taught_nothing() -> None:
    output = everything()
    batch = make_batch(make_targets(3), make_targets(2, seed=1))
    losses = losses_of(output, batch, replace(CONFIG, deep_supervision=False))
    losses.total.backward()
    assert losses.parts["auxiliary"] == 0
    assert output.denoised is not None
    for early, late in (
        (output.layers[0], output.layers[2]),
        (output.denoised.layers[0], output.denoised.layers[2]),
    ):
        # A gradient of 0, not none: parameters of that layer are still waited for.
        assert early.class_logits.grad is not None
        assert not early.class_logits.grad.any()
        assert gradient(late.class_logits).any()


def test_the_result_follows_the_generator_alone() -> None:
    batch = make_batch(make_targets(3), make_targets(2, seed=1))
    once, again = losses_of(everything(), batch), losses_of(everything(), batch)
    torch.manual_seed(0)
    assert torch.equal(once.total, again.total)
    other = Criterion(CONFIG)(everything(), batch, num_targets=4, generator=seeded(8))
    assert not torch.equal(once.total, other.total)


def test_twice_the_targets_elsewhere_halve_the_loss() -> None:
    batch = make_batch(make_targets(3), make_targets(2, seed=1))
    once = losses_of(everything(), batch, num_targets=4)
    half = losses_of(everything(), batch, num_targets=8)
    torch.testing.assert_close(half.total, once.total / 2)


@pytest.mark.parametrize("num_targets", [0.0, -1.0, float("nan")])
def test_what_cannot_be_divided_by_is_refused(num_targets: float) -> None:
    with pytest.raises(InputError, match="num_targets: expected more than 0, got"):
        losses_of(make_output(1), make_batch(make_targets(1)), num_targets=num_targets)


def test_no_targets_give_a_finite_loss_and_gradients_to_all() -> None:
    output = replace(
        make_output(2), denoised=make_denoised([[-1, -1], [-1, -1]], [[False] * 2] * 2)
    )
    losses = losses_of(output, make_batch(make_targets(0), make_targets(0)), num_targets=1)
    losses.total.backward()
    assert losses.total.isfinite()
    assert losses.parts["class"] > 0
    for tensor in predicted_tensors(output):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
    assert gradient(output.last.class_logits).any()
    assert not gradient(output.pixel_embeddings).any()


def test_no_texts_and_no_noised_queries_give_a_loss() -> None:
    output, batch = make_output(1, num_layers=1), make_batch(make_targets(0))
    bare, none = (
        replace(head, class_logits=head.class_logits.detach()[..., :0].requires_grad_())
        for head in (output.last, make_head(1, 0, seed=0))
    )
    noised = replace(make_denoised([[]], [[]]), layers=(none,))
    output = replace(output, layers=(bare,), proposals=None, denoised=noised)
    losses = losses_of(output, replace(batch, is_judged=torch.zeros(1, 0, dtype=torch.bool)))
    losses.total.backward()
    assert losses.total == 0


def test_more_targets_than_queries_give_a_finite_loss() -> None:
    losses = losses_of(make_output(1, num_queries=3), make_batch(make_targets(9)))
    assert losses.total.isfinite()
    assert losses.num_skipped == 0


def test_one_pixel_masks_give_finite_gradients() -> None:
    masks = torch.zeros(2, SIDE, SIDE, dtype=torch.uint8)
    masks[0, 3, 4] = masks[1, 0, 0] = 1
    size = 1 / SIDE
    boxes = torch.tensor([[4.5, 3.5, 1, 1], [0.5, 0.5, 1, 1]]) * size
    output = make_output(1)
    batch = make_batch(make_targets(2, masks=masks, boxes_cxcywh=boxes))
    losses_of(output, batch).total.backward()
    assert all(gradient(tensor).isfinite().all() for tensor in predicted_tensors(output))
    assert gradient(output.pixel_embeddings).any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_under_autocast_is_computed_in_float32(dtype: torch.dtype) -> None:
    output, batch = make_output(1), make_batch(make_targets(3))
    half = replace(
        output,
        layers=tuple(
            replace(head, mask_embeddings=head.mask_embeddings.to(dtype)) for head in output.layers
        ),
        pixel_embeddings=output.pixel_embeddings.to(dtype),
    )
    whole = replace(
        half,
        layers=tuple(
            replace(head, mask_embeddings=head.mask_embeddings.float()) for head in half.layers
        ),
        pixel_embeddings=half.pixel_embeddings.float(),
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = losses_of(half, batch)
    assert losses.total.dtype == torch.float32
    assert torch.equal(losses.total, losses_of(whole, batch).total)


def test_it_learns_a_scene_by_gradient_alone() -> None:
    targets = make_targets(2)
    output = make_output(1, num_queries=3, num_layers=1)
    leaves = predicted_tensors(output)
    optimizer = torch.optim.Adam(leaves, lr=0.05)
    first = losses_of(output, make_batch(targets)).total.item()
    for _ in range(60):
        optimizer.zero_grad()
        losses_of(output, make_batch(targets)).total.backward()
        optimizer.step()
    assert losses_of(output, make_batch(targets)).total.item() < first / 3
