"""The class loss: sigmoid focal loss over queries and texts, where the truth is known.

Method: focal loss (Lin et al., arXiv 1708.02002, equation 5). A text whose objects nobody labelled
exhaustively in an image teaches nothing there but on its own targets: the federated loss of LVIS
(Gupta et al., arXiv 1908.03195, section 3), by text instead of by a fixed list of categories.

Legend: B images, Q queries, K texts.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def focal_losses(logits: Tensor, is_positive: Tensor, *, alpha: float, gamma: float) -> Tensor:
    """The focal loss of each logit, same shape.

    It stays in logarithms, so that no gamma and no logit gives a NaN.

    Args:
        logits: before the sigmoid.
        is_positive: bool; broadcasts.
        alpha: weight of positives; negatives have 1 - alpha.
        gamma: how strongly what is right already is played down.
    """
    towards_truth = logits.where(is_positive, -logits)
    share = alpha * is_positive + (1 - alpha) * ~is_positive
    return share * (gamma * F.logsigmoid(-towards_truth)).exp() * -F.logsigmoid(towards_truth)


def class_loss(
    logits: Tensor, is_positive: Tensor, is_counted: Tensor, *, alpha: float, gamma: float
) -> Tensor:
    """Sum of the focal losses of [B, Q, K] logits that count.

    Args:
        is_positive: [B, Q, K] bool: the text of the target that the query is matched with.
        is_counted: [B, Q, K] bool; where False, not even a NaN reaches the loss or a gradient.
    """
    counted = logits.where(is_counted, 0)
    losses = focal_losses(counted, is_positive, alpha=alpha, gamma=gamma)
    return losses.where(is_counted, 0).sum()
