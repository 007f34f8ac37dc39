"""The student's loss: every head of the network against the targets of its images.

Method: Mask DINO's set criterion (Li et al., arXiv 2206.02777): focal class loss, L1 and GIoU of
boxes, dice and cross-entropy of masks, with deep supervision of every decoder layer, the encoder's
proposals under the full loss, and contrastive denoising (DINO, arXiv 2203.03605, section 3.3). Each
head is matched anew; noised queries know their target and are not matched.

**What masks are divided by.** Every loss is divided by the number of targets, masks too.
Mask2Former divides by the number of masks, which is the same where every target has one. Divided by
the sum of weights, masks that all have weight 0.5 would teach as much as certain ones, and each
mask that is dropped would make the others count more. Here a weight of 0.5 halves that mask's
gradient, whatever stands beside it.

**Noised queries.** A target has several noised copies; their losses are divided by the number of
copies as well, so that denoising counts as much as one more head.

**Images with NaN.** They are named in the log, counted, and teach nothing. If the network's own
activations are NaN there, its gradients may still be: the caller looks at their norm.

Legend: B images, Q queries, K texts, C channels, M pairs, h and w the size of the pixel embeddings.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from manifests.errors import InputError
from student.config import LossConfig
from student.losses.boxes import cxcywh_to_xyxy, paired_giou
from student.losses.class_loss import class_loss
from student.losses.flat_targets import FlatTargets, flat_targets
from student.losses.heads import Head, denoised_heads, matched_heads
from student.losses.mask_losses import point_mask_losses
from student.losses.matcher import Matching, match
from student.losses.predicted import as_float32, no_loss
from student.records import Batch, SegmenterOutput

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """The loss of one batch.

    Attributes:
        total: scalar float32 with its gradient; the sum of `parts`.
        parts: scalars without gradient, weighted as in the total: `class`, `box_l1`, `box_giou`,
            `mask_dice` and `mask_bce` of the last layer, and the sums `auxiliary` (the layers
            before it), `proposals` and `denoising`.
        num_skipped: images that taught nothing, as something about them was not finite.
    """

    total: Tensor
    parts: Mapping[str, Tensor]
    num_skipped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Truth:
    """What all heads are held against.

    Attributes:
        is_judged: [B, K] bool.
        targets: of the batch.
        pixels: B maps of [C, h * w], which masks are made of.
        map_hw: h and w.
    """

    is_judged: Tensor
    targets: FlatTargets
    pixels: tuple[Tensor, ...]
    map_hw: tuple[int, int]


class Criterion:
    """Losses as LossConfig weighs them; all in float32, also under autocast."""

    def __init__(self, config: LossConfig) -> None:
        self._config = config

    def __call__(
        self,
        output: SegmenterOutput,
        batch: Batch,
        *,
        num_targets: float,
        generator: torch.Generator,
    ) -> Losses:
        """The loss of a batch; a batch without targets still gives gradients to all of `output`.

        Args:
            num_targets: what losses are divided by, above 0: the targets of the whole global batch,
                at least 1, over the number of workers.
            generator: of the points; on the output's device it saves copies.
        """
        if not num_targets > 0:
            raise InputError(
                f"num_targets: expected more than 0, got {num_targets}; take 1 for a batch without "
                "targets"
            )
        device = output.pixel_embeddings.device
        with torch.autocast(device.type, enabled=False):
            return self._losses(as_float32(output), batch, num_targets, generator)

    def _losses(
        self, output: SegmenterOutput, batch: Batch, num_targets: float, generator: torch.Generator
    ) -> Losses:
        config = self._config
        layers = output.layers if config.deep_supervision else output.layers[-1:]
        predictions = [*layers] if output.proposals is None else [*layers, output.proposals]
        targets = flat_targets(batch.targets, use_weights=config.use_weights)
        matching = match(output, predictions, targets, config=config, generator=generator)
        num_skipped = _named_skips(matching, batch)
        truth = _truth(batch, targets, output.pixel_embeddings)
        heads = matched_heads(predictions, matching, num_targets=num_targets)
        *before, last = heads[: len(layers)]
        noised = denoised_heads(
            output.denoised, matching.is_finite, targets, num_targets=num_targets
        )
        parts = self._head(last, truth, generator) | {
            "auxiliary": self._heads(before, truth, generator),
            "proposals": self._heads(heads[len(layers) :], truth, generator),
            "denoising": self._heads(noised[-len(layers) :], truth, generator),
        }
        return Losses(
            total=torch.stack([*parts.values(), no_loss(output)]).sum(),
            parts={name: part.detach() for name, part in parts.items()},
            num_skipped=num_skipped,
        )

    def _heads(self, heads: Sequence[Head], truth: _Truth, generator: torch.Generator) -> Tensor:
        """The summed losses of several heads, 0 of none."""
        losses = [loss for h in heads for loss in self._head(h, truth, generator).values()]
        return torch.stack([truth.pixels[0].new_zeros(()), *losses]).sum()

    def _head(self, head: Head, truth: _Truth, generator: torch.Generator) -> dict[str, Tensor]:
        """The weighted losses of one head, by name."""
        config = self._config
        losses = {
            "class": config.classes * self._classes(head, truth),
            **self._boxes(head, truth.targets),
            **self._masks(head, truth, generator),
        }
        return {name: loss / head.divisor for name, loss in losses.items()}

    def _classes(self, head: Head, truth: _Truth) -> Tensor:
        logits, pairs = head.predictions.class_logits, head.pairs
        device = logits.device
        is_counted = truth.is_judged[:, None] & head.is_live[:, :, None]  # [B, Q, K]
        is_positive = torch.zeros_like(is_counted)
        own = (
            pairs.images.to(device),
            pairs.queries.to(device),
            truth.targets.labels[pairs.targets.to(device)],
        )
        is_positive[own] = True
        return class_loss(
            logits,
            is_positive,
            is_counted | is_positive,
            alpha=self._config.focal_alpha,
            gamma=self._config.focal_gamma,
        )

    def _boxes(self, head: Head, targets: FlatTargets) -> dict[str, Tensor]:
        pairs = head.pairs
        boxes = head.predictions.boxes_cxcywh[pairs.images, pairs.queries]  # [M, 4]
        wanted = targets.boxes_cxcywh[pairs.targets.to(boxes.device)]  # [M, 4]
        giou = paired_giou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(wanted))  # [M]
        return {
            "box_l1": self._config.boxes_l1 * F.l1_loss(boxes, wanted, reduction="sum"),
            "box_giou": self._config.boxes_giou * (1 - giou).sum(),
        }

    def _masks(self, head: Head, truth: _Truth, generator: torch.Generator) -> dict[str, Tensor]:
        """Mask logits exist for queries whose target has a mask that counts, and for no other."""
        config, pairs, targets = self._config, head.pairs, truth.targets
        chosen = targets.has_weight[pairs.targets]
        if not chosen.any():
            zero = truth.pixels[0].new_zeros(())
            return {"mask_dice": zero, "mask_bce": zero}
        images, queries = pairs.images[chosen], pairs.queries[chosen]
        rows = pairs.targets[chosen].to(truth.pixels[0].device)
        counts = torch.bincount(images, minlength=len(truth.pixels)).tolist()
        embeddings = head.predictions.mask_embeddings[images, queries]  # [M, C]
        by_image = torch.split(embeddings, counts)
        logits = torch.cat([e @ p for e, p in zip(by_image, truth.pixels, strict=True)])
        losses = point_mask_losses(
            logits.reshape(-1, *truth.map_hw),  # [M, h, w]
            targets.masks,
            rows,
            targets.mask_weights[rows],
            config=config,
            generator=generator,
        )
        return {
            "mask_dice": config.masks_dice * losses.dice,
            "mask_bce": config.masks_bce * losses.bce,
        }


def _truth(batch: Batch, targets: FlatTargets, pixel_embeddings: Tensor) -> _Truth:
    height, width = pixel_embeddings.shape[2:]
    return _Truth(
        is_judged=batch.is_judged,
        targets=targets,
        pixels=pixel_embeddings.flatten(2).unbind(),
        map_hw=(height, width),
    )


def _named_skips(matching: Matching, batch: Batch) -> int:
    """How many images are not finite; each is named in the log."""
    skipped = torch.nonzero(~matching.is_finite).flatten().tolist()
    for image in skipped:
        _log.warning(
            "image %s: its predictions, targets or matching costs are NaN or infinite; it teaches "
            "nothing in this step",
            batch.image_ids[image],
        )
    return len(skipped)
