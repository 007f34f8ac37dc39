"""AdamW over groups of parameters: a slower backbone, and weight decay on matrices alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import nn

from manifests.errors import InputError
from student.config import TrainConfig
from student.training.schedule import learning_rate_factor

_MATRICES = (nn.Linear, nn.modules.conv._ConvNd, nn.MultiheadAttention)
_BACKBONE = "backbone."


def build_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """An optimiser of what is trainable.

    Weight decay is for the weights of linear, convolutional and attention layers; norms, biases and
    embeddings have none. What is under `network.backbone` learns by `backbone_factor`.

    Raises:
        InputError: nothing is trainable.
    """
    decayed = _decayed(network)
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            factor = config.backbone_factor if name.startswith(_BACKBONE) else 1.0
            decay = config.weight_decay if name in decayed else 0.0
            groups[factor, decay].append(parameter)
    if not groups:
        raise InputError("train: expected parameters to train, but all of the network is frozen")
    return torch.optim.AdamW(
        [
            {"params": found, "lr": config.learning_rate * factor, "factor": factor,
             "weight_decay": decay}
            for (factor, decay), found in groups.items()
        ],
        lr=config.learning_rate,
    )  # fmt: skip


def set_learning_rates(optimizer: torch.optim.Optimizer, step: int, config: TrainConfig) -> float:
    """Gives each group its learning rate of a step; returns that of the part without a factor."""
    rate = config.learning_rate * learning_rate_factor(step, config)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    return rate


def trainable(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Name and value of what is trained, in the network's own order."""
    return ((name, value) for name, value in network.named_parameters() if value.requires_grad)


def _decayed(network: nn.Module) -> set[str]:
    return {
        f"{path}.{name}" if path else name
        for path, module in network.named_modules()
        if isinstance(module, _MATRICES)
        for name, value in module.named_parameters(recurse=False)
        if value.ndim > 1
    }
