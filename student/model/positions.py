"""Sine embeddings of coordinates, and boxes to and from the logits in which they are refined."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_TEMPERATURE = 20.0
_LEAST = 1e-4
"""Coordinates are kept so far from 0 and 1: further out, a box would hardly move any more."""


def sine_embedding(coordinates: Tensor, dim: int) -> Tensor:
    """[..., n] coordinates in [0, 1] to [..., n * dim]: sines and cosines, dim / 2 of each.

    As in the Transformer, on normalised coordinates (DETR, arXiv 2005.12872, appendix), with the
    lower temperature that DAB-DETR (arXiv 2201.12329, temperature tuning) found right for images.
    """
    steps = torch.arange(dim // 2, device=coordinates.device, dtype=torch.float32)
    frequencies = 2 * math.pi * _TEMPERATURE ** (-2 * steps / dim)  # [dim / 2]
    angles = coordinates.float()[..., None] * frequencies  # [..., n, dim / 2]
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)


def inverse_sigmoid(shares: Tensor) -> Tensor:
    """Logits of numbers in [0, 1], finite everywhere."""
    return torch.logit(shares.float(), eps=_LEAST)
