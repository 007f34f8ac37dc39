"""What is taught of masks, texts and noised queries: weights, dropped masks, judged texts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from student.config import LossConfig
from student.losses.criterion import Criterion, Losses
from student.losses.flat_targets import flat_targets
from student.losses.heads import denoised_heads
from student.records import SegmenterOutput, Targets
from tests.student.losses.synthetic import (
    CONFIG,
    NUM_TEXTS,
    gradient,
    make_batch,
    make_denoised,
    make_output,
    make_targets,
    seeded,
)

BOXES_ONLY = replace(CONFIG, masks_dice=0, masks_bce=0)


def taught(
    output: SegmenterOutput,
    *targets: Targets,
    is_judged: Tensor | None = None,
    config: LossConfig = CONFIG,
) -> Losses:
    """The losses, with gradients in the output's leaves."""
    losses = Criterion(config)(
        output,
        make_batch(*targets, is_judged=is_judged),
        num_targets=2,
        generator=seeded(7),
    )
    losses.total.backward()
    return losses


def mask_gradients(output: SegmenterOutput) -> Tensor:
    return torch.cat([gradient(output.pixel_embeddings).flatten()] + [
        gradient(head.mask_embeddings).flatten() for head in output.layers
    ])  # fmt: skip


@pytest.mark.parametrize(
    "change", [{"weights": torch.zeros(2)}, {"has_mask": torch.tensor([False, False])}]
)
def test_masks_without_weight_teach_no_mask_but_class_and_box(change: dict[str, Tensor]) -> None:
    output = make_output(1)
    losses = taught(output, make_targets(2, **change))
    assert losses.parts["mask_dice"] == losses.parts["mask_bce"] == 0
    assert not mask_gradients(output).any()
    for name in ("class_logits", "boxes_cxcywh"):
        assert gradient(getattr(output.last, name)).any()


def test_without_use_weights_a_weight_of_zero_is_as_good_as_one() -> None:
    config = replace(CONFIG, use_weights=False)
    zero, one = make_output(1), make_output(1)
    a = taught(zero, make_targets(2, weights=torch.zeros(2)), config=config)
    b = taught(one, make_targets(2), config=config)
    assert torch.equal(a.total, b.total)
    assert a.parts["mask_dice"] > 0


def test_a_dropped_mask_takes_its_gradient_alone_away() -> None:
    """One query a target, so that who is matched does not change with masks."""
    targets = make_targets(2, labels=torch.tensor([0, 1]))
    output = make_output(1, num_queries=2, num_layers=1)
    boxes = targets.boxes_cxcywh[None].clone().requires_grad_()
    logits = torch.tensor([[[9.0, -9, -9, -9], [-9, 9, -9, -9]]], requires_grad=True)
    sure = replace(output.last, boxes_cxcywh=boxes, class_logits=logits)
    output = replace(output, layers=(sure,), proposals=None)
    taught(output, replace(targets, has_mask=torch.tensor([True, False])))
    embeddings = gradient(output.last.mask_embeddings)[0]
    assert embeddings[0].any()
    assert not embeddings[1].any()


def test_a_weight_scales_its_masks_gradient_whatever_stands_beside_it() -> None:
    sizes = []
    for weight in (0.0, 0.1, 0.5, 1.0):
        output = replace(make_output(1, num_queries=1, num_layers=1), proposals=None)
        taught(output, make_targets(1, weights=torch.tensor([weight])))
        sizes.append(float(gradient(output.last.mask_embeddings).norm()))
    assert sizes[0] == 0
    assert sizes == sorted(sizes)
    assert [size / sizes[3] for size in sizes] == pytest.approx([0, 0.1, 0.5, 1.0], rel=1e-4)


def test_mask_embeddings_of_unmatched_queries_are_taught_nothing() -> None:
    output = replace(make_output(1, num_queries=5, num_layers=1), proposals=None)
    taught(output, make_targets(2))
    touched = gradient(output.last.mask_embeddings)[0].abs().sum(-1) > 0
    assert int(touched.sum()) == 2


def test_a_text_that_is_not_judged_teaches_none_but_its_own_targets() -> None:
    judged = torch.ones(1, NUM_TEXTS, dtype=torch.bool)
    judged[0, 2] = False
    output = replace(make_output(1, num_queries=5, num_layers=1), proposals=None)
    taught(output, make_targets(2, labels=torch.tensor([2, 1])), is_judged=judged)
    logits = gradient(output.last.class_logits)[0]  # [Q, K]
    touched = logits != 0
    assert int(touched[:, 2].sum()) == 1
    assert logits[touched[:, 2], 2] < 0  # towards a higher score
    assert touched[:, [0, 1, 3]].all()


def test_what_is_not_judged_gives_no_gradient_in_that_image_alone() -> None:
    judged = torch.tensor([[True] * NUM_TEXTS, [False] * NUM_TEXTS])
    output = replace(make_output(2, num_layers=1), proposals=None)
    taught(output, make_targets(0), make_targets(0), is_judged=judged)
    assert (gradient(output.last.class_logits)[0] != 0).all()
    assert not gradient(output.last.class_logits)[1].any()


def noised_output(
    rows: list[int], is_positive: list[bool], *, num_layers: int = 1
) -> SegmenterOutput:
    denoised = make_denoised([rows], [is_positive], num_layers=num_layers)
    return replace(make_output(1, num_layers=num_layers), denoised=denoised)


def test_noised_queries_are_taught_by_what_they_are() -> None:
    """A positive one everything, a negative one that it is nothing, padding not at all."""
    judged = torch.tensor([[True, True, False, True]])
    output = noised_output([1, 1, -1], [True, False, True])
    taught(output, make_targets(2, labels=torch.tensor([0, 2])), is_judged=judged)
    assert output.denoised is not None
    head = output.denoised.layers[0]
    logits = gradient(head.class_logits)[0]  # [D, K]
    assert logits[0, 2] < 0
    assert (logits[0, [0, 1, 3]] > 0).all()
    assert (logits[1, [0, 1, 3]] > 0).all()
    assert logits[1, 2] == 0
    assert not logits[2].any()
    for name in ("boxes_cxcywh", "mask_embeddings"):
        rows = gradient(getattr(head, name))[0]
        assert rows[0].any()
        assert not rows[1:].any()


def test_a_noised_query_is_held_against_its_own_target() -> None:
    targets = make_targets(3)
    output = noised_output([2, 0, 1], [True, True, True])
    assert output.denoised is not None
    with torch.no_grad():
        output.denoised.layers[0].boxes_cxcywh[0] = targets.boxes_cxcywh[[2, 0, 1]]
    perfect = taught(output, targets, config=BOXES_ONLY).parts["denoising"]
    with torch.no_grad():
        output.denoised.layers[0].boxes_cxcywh[0] = targets.boxes_cxcywh
    swapped = taught(output, targets, config=BOXES_ONLY).parts["denoising"]
    assert perfect < swapped - 1


def test_twice_the_copies_weigh_the_same() -> None:
    once, twice = noised_output([0], [True]), noised_output([0, 0], [True, True])
    assert once.denoised is not None
    assert twice.denoised is not None
    with torch.no_grad():
        for name in ("class_logits", "boxes_cxcywh", "mask_embeddings"):
            getattr(twice.denoised.layers[0], name)[:] = getattr(once.denoised.layers[0], name)
    config = BOXES_ONLY
    torch.testing.assert_close(
        taught(once, make_targets(1), config=config).parts["denoising"],
        taught(twice, make_targets(1), config=config).parts["denoising"],
    )


def test_rows_of_a_noised_query_are_those_of_its_own_image() -> None:
    targets = flat_targets([make_targets(2), make_targets(0), make_targets(3)], use_weights=True)
    denoised = make_denoised([[1, 0], [-1, -1], [2, 0]], [[True, True]] * 3)
    heads = denoised_heads(denoised, torch.tensor([True, True, True]), targets, num_targets=5)
    assert len(heads) == 2
    assert heads[0].pairs.targets.tolist() == [1, 0, 4, 2]
    assert heads[0].pairs.images.tolist() == [0, 0, 2, 2]
    without_first = denoised_heads(
        denoised, torch.tensor([False, True, True]), targets, num_targets=5
    )
    assert without_first[0].pairs.targets.tolist() == [4, 2]
    assert without_first[0].is_live.tolist() == [[False, False], [False, False], [True, True]]
