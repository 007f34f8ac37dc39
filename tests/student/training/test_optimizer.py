"""Which parameters learn how fast, and which decay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from manifests.errors import InputError
from student.config import TrainConfig
from student.training.optimizer import build_optimizer, set_learning_rates
from tests.student.training.tiny import network

CONFIG = TrainConfig(
    learning_rate=0.5, weight_decay=0.25, backbone_factor=0.1, warmup_steps=0, schedule="constant"
)


def _groups(net: nn.Module, config: TrainConfig = CONFIG) -> dict[str, tuple[float, float]]:
    """Parameter -> (learning rate, weight decay)."""
    optimizer = build_optimizer(net, config)
    set_learning_rates(optimizer, 0, config)
    names = {id(value): name for name, value in net.named_parameters()}
    return {
        names[id(value)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for value in group["params"]
    }


def test_only_matrices_decay_and_the_backbone_is_slower() -> None:
    assert _groups(network()) == {
        "backbone.0.weight": (pytest.approx(0.05), 0.25),
        "backbone.0.bias": (pytest.approx(0.05), 0),
        "head.weight": (0.5, 0.25),
        "head.bias": (0.5, 0),
        "norm.weight": (0.5, 0),
        "norm.bias": (0.5, 0),
        "labels.weight": (0.5, 0),
        "targets_only": (0.5, 0),
    }


def test_attention_decays_but_tables_of_positions_do_not() -> None:
    net = nn.Module()
    net.attention = nn.MultiheadAttention(4, 1)
    net.positions = nn.Parameter(torch.zeros(3, 4))
    decays = {name: decay for name, (_, decay) in _groups(net).items()}
    assert decays == {
        "attention.in_proj_weight": 0.25, "attention.in_proj_bias": 0,
        "attention.out_proj.weight": 0.25, "attention.out_proj.bias": 0, "positions": 0,
    }  # fmt: skip


def test_frozen_parameters_are_left_out() -> None:
    net = network()
    net.backbone.requires_grad_(False)
    assert not any(name.startswith("backbone") for name in _groups(net))
    net.requires_grad_(False)
    with pytest.raises(InputError, match="all of the network is frozen"):
        build_optimizer(net, CONFIG)
