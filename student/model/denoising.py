"""Contrastive denoising: noised targets as further queries, which must find their way back.

Method: DINO (arXiv 2203.03605, contrastive denoising) as in Mask DINO (arXiv 2206.02777), with
the text of a target as content. In each group every target comes once with little noise, to be
found, and once with more, to be told from an object.

Legend: B images, G groups, n targets an image at most, D = 2 G n noised queries, Q other queries,
C channels, K texts, E channels of a text embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert  # type: ignore[import-untyped]

from student.config import DenoisingConfig
from student.records import Targets


@dataclass(frozen=True, slots=True, kw_only=True)
class Noised:
    """Noised targets of a batch.

    Attributes:
        content: [B, D, C].
        boxes_cxcywh: [B, D, 4] in [0, 1].
        target_rows: [B, D] int64, the row of `Targets` each came from; -1: padding.
        is_positive: [B, D] bool.
        groups: [D] int64.
    """

    content: Tensor
    boxes_cxcywh: Tensor
    target_rows: Tensor
    is_positive: Tensor
    groups: Tensor

    def hidden(self, num_queries: int) -> Tensor:
        """[B, Q + D, Q + D] bool: True where the first may not see the second.

        Nobody sees a noised query but those of its group, and nobody sees padding but itself.
        """
        groups = nn.functional.pad(self.groups, (num_queries, 0), value=-1)  # [Q + D]
        is_other = (groups >= 0) & (groups[:, None] != groups)  # [Q + D, Q + D]
        is_padding = nn.functional.pad(self.target_rows < 0, (num_queries, 0))  # [B, Q + D]
        itself = torch.eye(len(groups), dtype=torch.bool, device=groups.device)
        return is_other | (is_padding[:, None] & ~itself)


class Denoising(nn.Module):
    """Targets to noised queries."""

    def __init__(self, config: DenoisingConfig, *, dim: int, text_dim: int) -> None:
        super().__init__()
        self._config = config
        self.linear, self.norm = nn.Linear(text_dim, dim), nn.LayerNorm(dim)

    def forward(
        self, targets: Sequence[Targets], texts: Tensor, generator: torch.Generator | None
    ) -> Noised | None:
        """Noised queries for every image; None if no image has a target.

        An image with more than half of `queries` as targets gets a sample of them.
        """
        most = min(max(len(target.labels) for target in targets), max(1, self._config.queries // 2))
        if not most:
            return None
        rows = torch.stack([self._rows(target, most, generator) for target in targets])  # [B, D]
        groups = torch.arange(rows.shape[1], device=rows.device) // (2 * most)
        is_positive = torch.arange(rows.shape[1], device=rows.device) // most % 2 == 0
        labels = self._noised_labels(_gathered(targets, "labels", rows), len(texts), generator)
        boxes = _gathered(targets, "boxes_cxcywh", rows)
        return Noised(
            content=self.norm(self.linear(texts))[labels],
            boxes_cxcywh=noised_boxes(boxes, is_positive, self._config.box_noise, generator),
            target_rows=rows,
            is_positive=is_positive.expand_as(rows),
            groups=groups,
        )

    def nothing(self) -> Tensor:
        """A zero to which every parameter contributes, so that workers' gradients fit together."""
        return sum(parameter.sum() for parameter in self.parameters()) * 0  # type: ignore[return-value]

    def _rows(self, target: Targets, most: int, generator: torch.Generator | None) -> Tensor:
        """[D] int64: the rows of one image's targets, over and over, padded with -1."""
        num, device = len(target.labels), target.labels.device
        rows = torch.full((most,), -1, device=device)
        if num > most:
            rows = _uniform((num,), device, generator).argsort()[:most]
        else:
            rows[:num] = torch.arange(num, device=device)
        num_groups = max(1, self._config.queries // (2 * most))
        return rows.repeat(2 * num_groups)

    def _noised_labels(
        self, labels: Tensor, num_texts: int, generator: torch.Generator | None
    ) -> Tensor:
        """[B, D]: some of them another text's, all others equally likely."""
        if num_texts < 2:
            return labels
        is_swapped = _uniform(labels.shape, labels.device, generator) < self._config.label_noise
        steps = (_uniform(labels.shape, labels.device, generator) * (num_texts - 1)).long()
        others = (labels + 1 + steps.clamp(max=num_texts - 2)) % num_texts
        return torch.where(is_swapped, others, labels)


def noised_boxes(
    boxes_cxcywh: Tensor, is_positive: Tensor, noise: float, generator: torch.Generator | None
) -> Tensor:
    """[B, D, 4] boxes whose four sides moved, those of negatives further than of positives.

    A positive's side moves by up to `noise` of half the box, a negative's by up to twice as much
    and at least as far as a positive's most.
    """
    shape, device = boxes_cxcywh.shape, boxes_cxcywh.device
    halves = boxes_cxcywh[..., 2:].repeat(1, 1, 2) / 2  # [B, D, 4]
    distance = _uniform(shape, device, generator) + (~is_positive)[:, None]
    sign = (_uniform(shape, device, generator) < 0.5).float() * 2 - 1
    moved = box_convert(boxes_cxcywh, "cxcywh", "xyxy") + distance * sign * halves * noise
    low = torch.minimum(moved[..., :2], moved[..., 2:])
    high = torch.maximum(moved[..., :2], moved[..., 2:])
    boxes: Tensor = box_convert(torch.cat([low, high], dim=2).clamp(0, 1), "xyxy", "cxcywh")
    return boxes


def _gathered(targets: Sequence[Targets], name: str, rows: Tensor) -> Tensor:
    """[B, D, ...] of a field of the targets; zeros for padding."""
    fields = []
    for target, chosen in zip(targets, rows, strict=True):
        values = getattr(target, name)
        padded = torch.cat([values, values.new_zeros(1, *values.shape[1:])])
        fields.append(padded[chosen])  # -1 is the added row
    return torch.stack(fields)


def _uniform(
    shape: Sequence[int], device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """Numbers in [0, 1); the same from the same generator, wherever it is."""
    source = device if generator is None else generator.device
    return torch.rand(tuple(shape), generator=generator, device=source).to(device)
