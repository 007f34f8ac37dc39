"""Whether an exported network says what the student says, on made-up photos.

Two things make a plain comparison unfair. Which tokens become conditional queries is a choice of
the best k: rounding may swap two neighbours, so queries are paired before they are compared. And
where the k-th and the next are equally good, rounding decides between different objects: such an
input says nothing about an export. It is known by the student itself answering differently as soon
as the pixels change by a millionth, and another one is taken.

Legend: B images, S side of the canvas, K texts, E channels of a text embedding, Q queries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from manifests.errors import InputError

_NUDGE = 1e-6
_TRIES = 8
_COLUMNS = 1024  # numbers of a query that are enough to tell it from the others


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkInput:
    """What an exported network is given.

    Attributes:
        images: [B, 3, S, S] float32, normalised; 0 where there is padding.
        padding: [B, S, S] bool, True where there is no image.
        texts: [K, E] float32 of unit length.
    """

    images: Tensor
    padding: Tensor
    texts: Tensor

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """In the order the network takes them."""
        return self.images, self.padding, self.texts


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkAnswer:
    """What it says.

    Attributes:
        class_logits: [B, Q, K].
        boxes_cxcywh: [B, Q, 4] in [0, 1] of the canvas.
        mask_logits: [B, Q, S / 4, S / 4].
    """

    class_logits: Tensor
    boxes_cxcywh: Tensor
    mask_logits: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The largest absolute differences between two answers, each of numbers in [0, 1].

    Attributes:
        scores: of class probabilities.
        boxes: of coordinates, in shares of the canvas.
        masks: of mask probabilities.
    """

    scores: float
    boxes: float
    masks: float

    @property
    def largest(self) -> float:
        """Of the three; NaN counts as infinite."""
        values = (self.scores, self.boxes, self.masks)
        return max(value if value == value else float("inf") for value in values)


Network = Callable[[NetworkInput], NetworkAnswer]
MakeInput = Callable[[int], NetworkInput]
"""From a seed to an input."""


def difference(one: NetworkAnswer, other: NetworkAnswer) -> Difference:
    """Of two answers to the same input, whichever order their queries are in."""
    parts_one, parts_other = _shares(one), _shares(other)
    gaps: dict[str, float] = dict.fromkeys(parts_one, 0.0)
    for image in range(len(one.class_logits)):
        rows = _pairs(
            [part[image] for part in parts_one.values()],
            [part[image] for part in parts_other.values()],
        )
        for name, part in parts_one.items():
            gap = (part[image] - parts_other[name][image][rows]).abs().max().item()
            gaps[name] = gap if gap != gap else max(gaps[name], gap)
    return Difference(**gaps)


def compare(
    student: Network, exported: Network, inputs: Sequence[MakeInput], *, tolerance: float
) -> Difference:
    """The largest differences between two networks over several kinds of input.

    Raises:
        InputError: one is larger than the tolerance.
    """
    found: list[Difference] = []
    for make in inputs:
        given = telling_input(student, make, tolerance=tolerance)
        found.append(difference(student(given), exported(given)))
    worst = Difference(
        scores=max(one.scores for one in found),
        boxes=max(one.boxes for one in found),
        masks=max(one.masks for one in found),
    )
    if max(one.largest for one in found) > tolerance:
        raise InputError(
            f"export: expected a file that differs from the student by at most {tolerance:g}, got "
            f"scores {worst.scores:.2g}, boxes {worst.boxes:.2g}, mask probabilities "
            f"{worst.masks:.2g}; nothing was written; take another --format, or allow more with "
            "--tolerance"
        )
    return worst


def telling_input(network: Network, make: MakeInput, *, tolerance: float) -> NetworkInput:
    """The first input, of seeds 0, 1, ..., to which rounding does not change the answer.

    Raises:
        InputError: there is none among several.
    """
    moved = float("inf")
    for seed in range(_TRIES):
        given = make(seed)
        noise = torch.randn(given.images.shape, generator=torch.Generator().manual_seed(seed))
        nudged = NetworkInput(
            images=given.images + _NUDGE * noise, padding=given.padding, texts=given.texts
        )
        moved = difference(network(given), network(nudged)).largest
        if moved <= tolerance:
            return given
    raise InputError(
        f"export: expected a student whose answers change by at most {tolerance:g} when pixels "
        f"change by {_NUDGE:g}, got {moved:g}: no export could be told from a wrong one; train "
        "further, or allow more with --tolerance"
    )


def noise_input(texts: Tensor, batch: int, side: int, seed: int) -> NetworkInput:
    """White noise on the whole canvas."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(batch, 3, side, side, generator=generator)
    padding = torch.zeros(batch, side, side, dtype=torch.bool)
    return NetworkInput(images=images, padding=padding, texts=texts)


def photo_input(texts: Tensor, batch: int, side: int, seed: int) -> NetworkInput:
    """Like photos: a smooth ground, discs and boxes in plain colours, and padding at an edge."""
    rng = np.random.default_rng(seed)
    small = torch.from_numpy(rng.normal(size=(batch, 3, 4, 4))).float()
    images = F.interpolate(small, size=(side, side), mode="bicubic", align_corners=False)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    padding = torch.zeros(batch, side, side, dtype=torch.bool)
    for number in range(batch):
        for shape in range(6):
            y, x = rng.uniform(0, side, 2)
            height, width = rng.uniform(side / 16, side / 4, 2)
            down, along = ((rows - y) / height).abs(), ((columns - x) / width).abs()
            inside = (down**2 + along**2 < 1) if shape % 2 else (torch.maximum(down, along) < 1)
            colour = torch.from_numpy(rng.normal(scale=1.5, size=3)).float()
            images[number] = torch.where(inside, colour[:, None, None], images[number])
        edge = int(side * rng.uniform(0.6, 0.95))
        padding[number, edge:] = True
    return NetworkInput(
        images=images.masked_fill(padding[:, None], 0), padding=padding, texts=texts
    )


def _shares(answer: NetworkAnswer) -> dict[str, Tensor]:
    """[B, Q, ...] of numbers in [0, 1]."""
    return {
        "scores": answer.class_logits.float().sigmoid(),
        "boxes": answer.boxes_cxcywh.float(),
        "masks": answer.mask_logits.float().sigmoid().flatten(2),
    }


def _pairs(one: list[Tensor], other: list[Tensor]) -> Tensor:
    """[Q] for each query of the one, that query of the other which is likest to it."""
    costs = torch.zeros(len(one[0]), len(other[0]))
    for a, b in zip(one, other, strict=True):
        step = -(-a.shape[1] // _COLUMNS)
        costs += torch.cdist(a[:, ::step], b[:, ::step], p=1) / len(a[0, ::step])
    _, rows = linear_sum_assignment(costs.nan_to_num(nan=1e9).numpy())
    return torch.from_numpy(rows)
