"""A network, a loss and batches small enough to reason about, with the real ones' signatures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from student.losses.criterion import Losses
from student.records import Batch, Targets

SIDE, DIM, TEXTS = 4, 8, 3


class TinyNetwork(nn.Module):
    """One vector for each image; `targets_only` takes part only where there are targets."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, DIM, 3), nn.BatchNorm2d(DIM))
        self.head = nn.Linear(DIM, 1)
        self.norm = nn.LayerNorm(DIM)
        self.labels = nn.Embedding(TEXTS, DIM)
        self.targets_only = nn.Parameter(torch.ones(DIM))
        self.dropout = nn.Dropout(0.0)
        self.backbone[1].eval()  # so that an image's outcome does not depend on its batch
        self.backbone[1].requires_grad_(False)

    def train(self, mode: bool = True) -> TinyNetwork:
        super().train(mode)
        self.backbone[1].eval()
        return self

    def forward(
        self,
        images: Tensor,
        padding: Tensor,
        texts: Tensor,
        targets: Sequence[Targets] | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        features = self.norm(self.backbone(images).mean((2, 3)))  # [B, DIM]
        rows = []
        for number, target in enumerate(targets or ()):
            row = features[number]
            if len(target.labels):
                row = row + (self.labels(target.labels) * self.targets_only).sum(0)
            rows.append(row)
        return self.head(self.dropout(torch.stack(rows)))[:, 0]  # [B]


class SumLoss:
    """The squares of the outputs, so many times as there are targets, over `num_targets`."""

    def __call__(
        self, output: Tensor, batch: Batch, *, num_targets: float, generator: torch.Generator
    ) -> Losses:
        counts = torch.tensor([float(len(target.labels)) for target in batch.targets])
        total = ((output - 1) ** 2 * counts).sum() / num_targets
        return Losses(total=total, parts={"class": total.detach()}, num_skipped=0)


def batch(numbers: Sequence[int], *, value: float | None = None) -> Batch:
    """Images that depend on their numbers alone; image n has n % 3 targets."""
    return Batch(
        images=torch.stack([_image(number, value) for number in numbers]),
        padding=torch.zeros(len(numbers), SIDE, SIDE, dtype=torch.bool),
        texts=torch.zeros(TEXTS, 2),
        names=("bag", "hat", "shoe"),
        is_judged=torch.ones(len(numbers), TEXTS, dtype=torch.bool),
        targets=tuple(_targets(number % 3) for number in numbers),
        image_ids=tuple(f"image-{number}" for number in numbers),
        sizes_hw=torch.full((len(numbers), 2), SIDE),
    )


def _image(number: int, value: float | None) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    image = torch.rand(3, SIDE, SIDE, generator=generator)
    return image if value is None else torch.full_like(image, value)


def _targets(count: int) -> Targets:
    return Targets(
        labels=torch.arange(count),
        boxes_cxcywh=torch.full((count, 4), 0.5),
        masks=torch.ones(count, SIDE, SIDE, dtype=torch.uint8),
        has_mask=torch.ones(count, dtype=torch.bool),
        weights=torch.ones(count),
    )


def network(seed: int = 0) -> TinyNetwork:
    """With weights that depend on the seed alone."""
    torch.manual_seed(seed)
    return TinyNetwork()
