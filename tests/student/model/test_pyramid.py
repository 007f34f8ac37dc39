"""Tokens are the places of their maps."""

from __future__ import annotations

import torch

from student.model.pyramid import build_pyramid, token_centers, token_levels

STRIDES = (8, 16)


def test_levels_come_back_as_maps() -> None:
    maps = [torch.randn(2, 3, 4, 8), torch.randn(2, 3, 2, 4)]
    pyramid = build_pyramid(maps, torch.zeros(2, 32, 64, dtype=torch.bool), STRIDES)
    assert pyramid.tokens.shape == (2, 40, 3)
    for index, level in enumerate(maps):
        assert torch.equal(pyramid.level(index), level)


def test_a_token_is_padding_where_its_first_pixel_is() -> None:
    padding = torch.zeros(1, 32, 64, dtype=torch.bool)
    padding[:, :, 33:] = True  # the column of tokens from 32 on has one column of the image
    maps = [torch.zeros(1, 3, 4, 8), torch.zeros(1, 3, 2, 4)]
    pyramid = build_pyramid(maps, padding, STRIDES)
    fine, coarse = pyramid.padding[0, :32].view(4, 8), pyramid.padding[0, 32:].view(2, 4)
    assert fine[0].tolist() == [False] * 5 + [True] * 3
    assert coarse[0].tolist() == [False] * 3 + [True]


def test_centers_are_x_then_y_of_the_middles() -> None:
    centers = token_centers(((1, 2), (2, 1)), torch.device("cpu"))
    assert centers.tolist() == [[0.25, 0.5], [0.75, 0.5], [0.5, 0.25], [0.5, 0.75]]
    assert token_levels(((1, 2), (2, 1)), torch.device("cpu")).tolist() == [0, 0, 1, 1]
