"""Which query answers for which target: the Hungarian matching.

Method: DETR's bipartite matching (Carion et al., arXiv 2005.12872, section 3.1) with Mask DINO's
costs (Li et al., arXiv 2206.02777): focal class, L1, GIoU, dice and cross-entropy, with the weights
of the losses. One matching over all queries, of either kind (MQ-Former, CVPR 2025). Mask costs are
taken at uniform points, the same for all masks of an image and for all heads of a step.

A mask's costs are multiplied by its weight, like its losses: they are the costs to be expected of a
mask that is right with that probability, and a target without a mask has none. What a text's
`is_judged` says plays no part here: a cost looks at the target's own text alone.

Legend: B images, Q queries, N the most targets of one image, T targets of the batch, P points,
C channels, K texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from student.config import LossConfig
from student.losses.boxes import cxcywh_to_xyxy, pairwise_giou
from student.losses.class_loss import focal_losses
from student.losses.flat_targets import FlatTargets
from student.losses.mask_losses import pairwise_bce, pairwise_dice
from student.losses.points import sample_features, sample_masks, uniform_points
from student.losses.predicted import predicted_tensors
from student.records import Predictions, SegmenterOutput


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """M queries and their targets, on the CPU, in the order of their images.

    Attributes:
        images, queries: [M] int64.
        targets: [M] int64, rows of FlatTargets.
    """

    images: Tensor
    queries: Tensor
    targets: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """The pairs of every head.

    Attributes:
        pairs: one for each head; none of an image that is not finite.
        is_finite: [B] bool on the CPU; False: a prediction or a cost of the image is NaN or
            infinite.
    """

    pairs: tuple[Pairs, ...]
    is_finite: Tensor


@torch.no_grad()
def match(
    output: SegmenterOutput,
    heads: Sequence[Predictions],
    targets: FlatTargets,
    *,
    config: LossConfig,
    generator: torch.Generator,
) -> Matching:
    """The cheapest assignment of targets to queries in every image and head.

    Each target gets one query; with more targets than queries, each query gets one target.

    Args:
        output: float32; all of it must be finite for an image to be matched.
        heads: those of its predictions that are matched, each anew.
    """
    costs = _costs(output.pixel_embeddings, heads, targets, config=config, generator=generator)
    is_finite = _finite_predictions(output)  # [B]
    # One copy from the device: the flags, then every head's costs.
    flat = torch.cat([is_finite.float(), *(cost.flatten() for cost in costs)]).cpu().numpy()
    num_images = len(targets.counts)
    alive, flat = flat[:num_images] > 0, flat[num_images:]
    blocks: list[list[NDArray[np.float32]]] = []  # [heads][B] of [Q, targets of the image]
    for cost in costs:
        head_costs, flat = flat[: cost.numel()].reshape(cost.shape), flat[cost.numel() :]
        blocks.append([c[:, :n] for c, n in zip(head_costs, targets.counts, strict=True)])
    for image in range(num_images):
        alive[image] &= all(np.isfinite(head[image]).all() for head in blocks)
    pairs = tuple(_assigned(head, alive, targets.starts) for head in blocks)
    return Matching(pairs=pairs, is_finite=torch.from_numpy(alive))


def head_costs(
    head: Predictions,
    targets: FlatTargets,
    pixels_at_points: Tensor,
    masks_at_points: Tensor,
    *,
    config: LossConfig,
) -> Tensor:
    """[B, Q, N] costs of one head; what stands beyond an image's own targets means nothing.

    Args:
        pixels_at_points: [B, C, P].
        masks_at_points: [B, N, P] in [0, 1].
    """
    labels = targets.padded(targets.labels)[:, None]  # [B, 1, N]
    boxes = targets.padded(targets.boxes_cxcywh)  # [B, N, 4]
    mask_weights = targets.padded(targets.mask_weights)[:, None]  # [B, 1, N]
    logits = head.class_logits.gather(2, labels.expand(-1, head.class_logits.shape[1], -1))
    focal = {
        truth: focal_losses(
            logits, torch.full_like(logits, truth, dtype=torch.bool),
            alpha=config.focal_alpha, gamma=config.focal_gamma,
        )
        for truth in (True, False)
    }  # fmt: skip
    giou = pairwise_giou(cxcywh_to_xyxy(head.boxes_cxcywh), cxcywh_to_xyxy(boxes))
    masks = head.mask_embeddings @ pixels_at_points  # [B, Q, P]
    mask_costs = config.masks_dice * pairwise_dice(masks, masks_at_points)
    mask_costs = mask_costs + config.masks_bce * pairwise_bce(masks, masks_at_points)
    return (
        config.classes * (focal[True] - focal[False])
        + config.boxes_l1 * torch.cdist(head.boxes_cxcywh, boxes, p=1)
        + config.boxes_giou * -giou
        + mask_weights * mask_costs
    )


def _costs(
    pixel_embeddings: Tensor,
    heads: Sequence[Predictions],
    targets: FlatTargets,
    *,
    config: LossConfig,
    generator: torch.Generator,
) -> list[Tensor]:
    num_images = len(pixel_embeddings)
    device = pixel_embeddings.device
    points = uniform_points(num_images, config.points, generator=generator, device=device)
    pixels = sample_features(pixel_embeddings, points)  # [B, C, P]
    rows = torch.arange(len(targets.labels), device=device)
    masks = sample_masks(targets.masks, rows, points[targets.images])  # [T, P]
    masks = targets.padded(masks)  # [B, N, P]
    return [head_costs(head, targets, pixels, masks, config=config) for head in heads]


def _finite_predictions(output: SegmenterOutput) -> Tensor:
    """[B] bool: no prediction of the image, of any head, is NaN or infinite."""
    tensors = predicted_tensors(output)
    return torch.stack([tensor.isfinite().flatten(1).all(1) for tensor in tensors]).all(0)


def _assigned(
    costs: Sequence[NDArray[np.float32]], alive: NDArray[np.bool_], starts: Sequence[int]
) -> Pairs:
    """The pairs of one head, from the [Q, targets] costs of each image."""
    empty = np.zeros(0, dtype=np.int64)
    images, queries, rows = [empty], [empty], [empty]
    for image in np.flatnonzero(alive).tolist():
        chosen, columns = linear_sum_assignment(costs[image])
        images.append(np.full(len(chosen), image))
        queries.append(chosen)
        rows.append(columns + starts[image])
    return Pairs(
        images=torch.from_numpy(np.concatenate(images)),
        queries=torch.from_numpy(np.concatenate(queries)),
        targets=torch.from_numpy(np.concatenate(rows)),
    )
