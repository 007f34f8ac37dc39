"""The criterion once more in plain loops over floats, where masks are flat.

A mask is flat if it is the same everywhere on the canvas: then no loss depends on where the points
lie, and a mask is one number.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import permutations

import torch

from student.config import LossConfig
from student.records import Batch, Predictions, SegmenterOutput, Targets
from tests.student.losses.synthetic import DIM, SIDE, make_targets, seeded

NAMES = ("class", "box_l1", "box_giou", "mask_dice", "mask_bce")


def flat_output(output: SegmenterOutput) -> SegmenterOutput:
    """The output with pixel embeddings that are the same at every pixel of an image."""
    flat = torch.randn(len(output.pixel_embeddings), DIM, 1, 1, generator=seeded(50))
    pixels = flat.expand(-1, -1, SIDE // 4, SIDE // 4).clone().requires_grad_()
    return replace(output, pixel_embeddings=pixels)


def flat_masked_targets(num: int, *, seed: int) -> Targets:
    """Targets with masks of all or nothing, some dropped, of random weights."""
    generator = seeded(seed)
    full = torch.randint(0, 2, (num, 1, 1), generator=generator, dtype=torch.uint8)
    return make_targets(
        num,
        seed=seed,
        masks=full.expand(-1, SIDE, SIDE).clone(),
        has_mask=torch.rand(num, generator=generator) > 0.3,
        weights=torch.rand(num, generator=generator),
    )


def slow_parts(
    output: SegmenterOutput, batch: Batch, config: LossConfig, *, num_targets: float
) -> dict[str, float]:
    """`Losses.parts`."""
    heads = [_matched(head, output, batch, config) for head in output.layers]
    parts = {name: heads[-1][name] / num_targets for name in NAMES}
    parts["auxiliary"] = sum(sum(head.values()) for head in heads[:-1]) / num_targets
    if output.proposals is not None:
        proposals = _matched(output.proposals, output, batch, config)
        parts["proposals"] = sum(proposals.values()) / num_targets
    if output.denoised is not None:
        positive = output.denoised.is_positive & (output.denoised.target_rows >= 0)
        copies = int(positive.sum()) / sum(len(target.labels) for target in batch.targets)
        noised = [_noised(head, output, batch, config) for head in output.denoised.layers]
        parts["denoising"] = sum(sum(h.values()) for h in noised) / (num_targets * copies)
    return parts


def _matched(
    head: Predictions, output: SegmenterOutput, batch: Batch, config: LossConfig
) -> dict[str, float]:
    sums = dict.fromkeys(NAMES, 0.0)
    for image, target in enumerate(batch.targets):
        num_queries, rows = head.class_logits.shape[1], range(len(target.labels))
        pairs = [
            [_pair(head, output, config, (image, query), target, row) for row in rows]
            for query in range(num_queries)
        ]
        best = min(
            permutations(range(num_queries), len(rows)),
            key=lambda queries: sum(pairs[q][row]["cost"] for row, q in enumerate(queries)),
        )
        owner = {query: row for row, query in enumerate(best)}
        _add(sums, head, batch, config, image, {q: owner.get(q) for q in range(num_queries)})
        for query, row in owner.items():
            for name in NAMES[1:]:
                sums[name] += pairs[query][row][name]
    return sums


def _noised(
    head: Predictions, output: SegmenterOutput, batch: Batch, config: LossConfig
) -> dict[str, float]:
    assert output.denoised is not None
    sums = dict.fromkeys(NAMES, 0.0)
    for image, target in enumerate(batch.targets):
        rows = output.denoised.target_rows[image].tolist()
        positive = output.denoised.is_positive[image].tolist()
        owners = {q: rows[q] if positive[q] else None for q in range(len(rows)) if rows[q] >= 0}
        _add(sums, head, batch, config, image, owners)
        for query, row in owners.items():
            if row is not None:
                pair = _pair(head, output, config, (image, query), target, row)
                for name in NAMES[1:]:
                    sums[name] += pair[name]
    return sums


def _add(
    sums: dict[str, float],
    head: Predictions,
    batch: Batch,
    config: LossConfig,
    image: int,
    owners: dict[int, int | None],
) -> None:
    """The class losses of one image."""
    for query, row in owners.items():
        own = None if row is None else int(batch.targets[image].labels[row])
        for text in range(head.class_logits.shape[2]):
            if text == own or batch.is_judged[image, text]:
                logit = float(head.class_logits[image, query, text])
                sums["class"] += config.classes * _focal(logit, text == own, config)


def _pair(
    head: Predictions,
    output: SegmenterOutput,
    config: LossConfig,
    at: tuple[int, int],
    target: Targets,
    row: int,
) -> dict[str, float]:
    """The weighted losses of one query and target, and what matching them costs."""
    logit = float(head.class_logits[at][target.labels[row]])
    box, wanted = head.boxes_cxcywh[at].tolist(), target.boxes_cxcywh[row].tolist()
    mask = float(head.mask_embeddings[at] @ output.pixel_embeddings[at[0], :, 0, 0])
    weight = float(target.weights[row]) if config.use_weights else 1.0
    weight *= float(target.has_mask[row])
    dice, bce = _flat_mask(mask, float(target.masks[row, 0, 0]), config.points)
    giou = _giou(box, wanted)
    losses = {
        "box_l1": config.boxes_l1 * sum(abs(a - b) for a, b in zip(box, wanted, strict=True)),
        "box_giou": config.boxes_giou * (1 - giou),
        "mask_dice": config.masks_dice * weight * dice,
        "mask_bce": config.masks_bce * weight * bce,
    }
    focal = _focal(logit, True, config) - _focal(logit, False, config)
    return losses | {"cost": sum(losses.values()) + config.classes * focal}


def _focal(logit: float, truth: bool, config: LossConfig) -> float:
    chance = 1 / (1 + math.exp(-logit))
    if truth:
        return -config.focal_alpha * (1 - chance) ** config.focal_gamma * math.log(chance)
    return -(1 - config.focal_alpha) * chance**config.focal_gamma * math.log(1 - chance)


def _flat_mask(logit: float, truth: float, points: int) -> tuple[float, float]:
    chance = 1 / (1 + math.exp(-logit))
    dice = 1 - (2 * points * chance * truth + 1) / (points * (chance + truth) + 1)
    return dice, -math.log(chance if truth else 1 - chance)


def _giou(a: list[float], b: list[float]) -> float:
    corners = [(x - w / 2, y - h / 2, x + w / 2, y + h / 2) for x, y, w, h in (a, b)]
    (ax, ay, ar, ab), (bx, by, br, bb) = corners
    overlap = max(0.0, min(ar, br) - max(ax, bx)) * max(0.0, min(ab, bb) - max(ay, by))
    hull = (max(ar, br) - min(ax, bx)) * (max(ab, bb) - min(ay, by))
    union = a[2] * a[3] + b[2] * b[3] - overlap
    return overlap / union - (hull - union) / hull
