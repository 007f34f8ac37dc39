"""The matcher: as cheap as the best of all assignments, and never lost on odd input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from student.config import LossConfig
from student.losses.boxes import cxcywh_to_xyxy, paired_giou
from student.losses.class_loss import focal_losses
from student.losses.flat_targets import flat_targets
from student.losses.mask_losses import bce_losses, dice_losses
from student.losses.matcher import Matching, match
from student.losses.points import sample_logits, sample_masks, uniform_points
from student.records import Predictions, SegmenterOutput, Targets, mask_logits
from tests.student.losses.synthetic import CONFIG, make_output, make_targets, seeded

NAN_PLACES = ("class_logits", "boxes_cxcywh", "mask_embeddings")


def matched(
    output: SegmenterOutput, targets: Sequence[Targets], config: LossConfig = CONFIG
) -> Matching:
    heads = list(output.layers)
    flat = flat_targets(targets, use_weights=config.use_weights)
    return match(output, heads, flat, config=config, generator=seeded(9))


def chosen(matching: Matching, head: int, image: int) -> dict[int, int]:
    """Query to flat row of one image."""
    pairs = matching.pairs[head]
    here = pairs.images == image
    return dict(zip(pairs.queries[here].tolist(), pairs.targets[here].tolist(), strict=True))


def slow_costs(
    head: Predictions, pixels: Tensor, points: Tensor, image: int, target: Targets
) -> list[list[float]]:
    """[Q][N] costs of one image, pair by pair, from whole maps of mask logits."""
    maps = mask_logits(head.mask_embeddings, pixels)[image]
    return [
        [
            slow_cost(head, maps[query], points, (image, query), target, row)
            for row in range(len(target.labels))
        ]
        for query in range(len(maps))
    ]


def slow_cost(
    head: Predictions,
    logits: Tensor,
    points: Tensor,
    at: tuple[int, int],
    target: Targets,
    row: int,
) -> float:
    logit = head.class_logits[at][target.labels[row]]
    positive, negative = (
        focal_losses(logit, torch.tensor(truth), alpha=0.25, gamma=2) for truth in (True, False)
    )
    box, wanted = head.boxes_cxcywh[at], target.boxes_cxcywh[row]
    cost = CONFIG.classes * (positive - negative) + CONFIG.boxes_l1 * (box - wanted).abs().sum()
    cost = cost - CONFIG.boxes_giou * paired_giou(cxcywh_to_xyxy(box), cxcywh_to_xyxy(wanted))
    if target.has_mask[row]:
        said = sample_logits(logits[None], points[None])
        truth = sample_masks(target.masks, torch.tensor([row]), points[None])
        dice, bce = dice_losses(said, truth), bce_losses(said, truth)
        mask_cost = CONFIG.masks_dice * dice + CONFIG.masks_bce * bce
        cost = cost + target.weights[row] * mask_cost[0]
    return float(cost)


def brute_force(costs: list[list[float]]) -> float:
    """The least sum over min(Q, N) pairs."""
    num_queries, num_targets = len(costs), len(costs[0])
    if num_queries >= num_targets:
        return min(
            sum(costs[query][row] for row, query in enumerate(queries))
            for queries in permutations(range(num_queries), num_targets)
        )
    return min(
        sum(costs[query][row] for query, row in enumerate(rows))
        for rows in permutations(range(num_targets), num_queries)
    )


@settings(max_examples=25, deadline=None)
@given(
    counts=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    num_queries=st.integers(2, 5),
    seed=st.integers(0, 999),
)
def test_matching_costs_as_little_as_the_best_of_all_assignments(
    counts: list[int], num_queries: int, seed: int
) -> None:
    output = make_output(len(counts), num_queries=num_queries, seed=seed)
    targets = [
        make_targets(
            count,
            seed=seed + image,
            has_mask=torch.rand(count, generator=seeded(seed)) > 0.3,
            weights=torch.rand(count, generator=seeded(seed + 1)),
        )
        for image, count in enumerate(counts)
    ]
    matching = matched(output, targets)
    points = uniform_points(
        len(counts), CONFIG.points, generator=seeded(9), device=torch.device("cpu")
    )
    with torch.no_grad():
        for index, head in enumerate(output.layers):
            for image, target in enumerate(targets):
                pairs = chosen(matching, index, image)
                assert len(pairs) == min(num_queries, counts[image])
                assert len(set(pairs.values())) == len(pairs)
                if not pairs:
                    continue
                costs = slow_costs(head, output.pixel_embeddings, points[image], image, target)
                first = sum(counts[:image])
                found = sum(costs[query][row - first] for query, row in pairs.items())
                assert found == pytest.approx(brute_force(costs), abs=1e-3)


def with_answers(output: SegmenterOutput, targets: Targets, queries: list[int]) -> SegmenterOutput:
    """The output whose last layer has the targets' boxes and texts at these queries."""
    head = output.last
    logits, boxes = head.class_logits.detach().clone(), head.boxes_cxcywh.detach().clone()
    boxes[0, queries] = targets.boxes_cxcywh
    logits[0, queries, targets.labels] = 8
    last = replace(head, class_logits=logits, boxes_cxcywh=boxes)
    return replace(output, layers=(*output.layers[:-1], last))


def test_right_answers_are_matched_with_their_targets() -> None:
    targets = make_targets(3, has_mask=torch.zeros(3, dtype=torch.bool))
    output = with_answers(make_output(1, num_queries=8), targets, [6, 1, 4])
    assert chosen(matched(output, [targets]), head=1, image=0) == {6: 0, 1: 1, 4: 2}


def test_masks_alone_decide_between_two_targets_with_one_box() -> None:
    halves = torch.zeros(2, 16, 16, dtype=torch.uint8)
    halves[0, :, :8], halves[1, :, 8:] = 1, 1
    targets = make_targets(
        2, labels=torch.tensor([1, 1]), boxes_cxcywh=torch.full((2, 4), 0.5), masks=halves
    )
    output = make_output(1, num_queries=2, num_layers=1)
    pixels = torch.zeros_like(output.pixel_embeddings)
    pixels[:, 0, :, :2], pixels[:, 0, :, 2:] = 1, -1
    embeddings = torch.zeros_like(output.last.mask_embeddings)
    embeddings[0, :, 0] = torch.tensor([-9.0, 9.0])
    same = torch.zeros_like(output.last.class_logits)
    boxes = torch.full_like(output.last.boxes_cxcywh, 0.5)
    head = Predictions(class_logits=same, boxes_cxcywh=boxes, mask_embeddings=embeddings)
    output = replace(output, layers=(head,), pixel_embeddings=pixels)
    assert chosen(matched(output, [targets]), 0, 0) == {0: 1, 1: 0}


def test_more_targets_than_queries_give_every_query_one() -> None:
    output = make_output(2, num_queries=3)
    matching = matched(output, [make_targets(7), make_targets(2, seed=1)])
    assert len(chosen(matching, 0, 0)) == 3
    assert len(chosen(matching, 0, 1)) == 2


def test_no_targets_at_all_give_no_pairs() -> None:
    matching = matched(make_output(2), [make_targets(0), make_targets(0)])
    assert matching.is_finite.all()
    assert all(not len(pairs.queries) for pairs in matching.pairs)


@pytest.mark.parametrize("place", NAN_PLACES)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_an_image_with_nan_in_any_head_is_matched_with_nothing(place: str, value: float) -> None:
    output = make_output(3)
    with torch.no_grad():
        getattr(output.layers[0], place)[1, 2] = value
    matching = matched(output, [make_targets(2, seed=image) for image in range(3)])
    assert matching.is_finite.tolist() == [True, False, True]
    for head in range(2):
        assert not chosen(matching, head, 1)
        assert len(chosen(matching, head, 0)) == len(chosen(matching, head, 2)) == 2


def test_other_images_are_matched_as_if_the_one_with_nan_were_whole() -> None:
    targets = [make_targets(3, seed=image) for image in range(2)]
    whole, broken = make_output(2), make_output(2)
    with torch.no_grad():
        broken.pixel_embeddings[0] = torch.nan
    assert chosen(matched(whole, targets), 0, 1) == chosen(matched(broken, targets), 0, 1)


def test_costs_that_overflow_and_targets_with_nan_are_caught() -> None:
    output = make_output(2)
    with torch.no_grad():
        output.last.boxes_cxcywh[0] = 3e38
    boxes = torch.full((1, 4), torch.nan)
    matching = matched(output, [make_targets(1), make_targets(1, boxes_cxcywh=boxes)])
    assert matching.is_finite.tolist() == [False, False]
