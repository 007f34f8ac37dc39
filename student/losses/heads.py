"""What each head of the network is taught: which queries have a target, and which have none.

Legend: B images, Q queries, D noised queries, M pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from student.losses.flat_targets import FlatTargets
from student.losses.matcher import Matching, Pairs
from student.records import DenoisedPredictions, Predictions


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """One head's predictions and what they are taught.

    Attributes:
        predictions: of Q queries.
        pairs: the queries that have a target.
        is_live: [B, Q] bool: whether the query is taught its class, if only that it has none.
        divisor: of all losses.
    """

    predictions: Predictions
    pairs: Pairs
    is_live: Tensor
    divisor: float


def matched_heads(
    predictions: Sequence[Predictions], matching: Matching, *, num_targets: float
) -> list[Head]:
    """The heads that were matched: every query of a finite image is taught its class."""
    heads = []
    for head, pairs in zip(predictions, matching.pairs, strict=True):
        device, num_queries = head.class_logits.device, head.class_logits.shape[1]
        is_live = matching.is_finite.to(device)[:, None].expand(-1, num_queries)
        heads.append(Head(predictions=head, pairs=pairs, is_live=is_live, divisor=num_targets))
    return heads


def denoised_heads(
    denoised: DenoisedPredictions | None,
    is_finite: Tensor,
    targets: FlatTargets,
    *,
    num_targets: float,
) -> list[Head]:
    """The heads over noised queries, which know their targets: no matching.

    A positive one has the target it was made of. A negative one has none: it is taught that it is
    nothing, where its texts are judged. Padding is taught nothing.

    Args:
        is_finite: [B] bool on the CPU, images that are taught anything.
    """
    if denoised is None:
        return []
    is_live = (denoised.target_rows.cpu() >= 0) & is_finite[:, None]  # [B, D]
    images, queries = torch.nonzero(is_live & denoised.is_positive.cpu(), as_tuple=True)
    rows = denoised.target_rows.cpu()[images, queries]
    pairs = Pairs(
        images=images, queries=queries, targets=torch.tensor(targets.starts)[images] + rows
    )
    num_taught = sum(n for n, ok in zip(targets.counts, is_finite.tolist(), strict=True) if ok)
    copies = max(len(images) / max(num_taught, 1), 1.0)
    device = denoised.target_rows.device
    return [
        Head(
            predictions=layer,
            pairs=pairs,
            is_live=is_live.to(device),
            divisor=num_targets * copies,
        )
        for layer in denoised.layers
    ]
