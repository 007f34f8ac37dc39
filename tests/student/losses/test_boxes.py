"""Boxes: both notations and GIoU, against torchvision and by hand."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import box_convert, generalized_box_iou

from student.losses.boxes import cxcywh_to_xyxy, paired_giou, pairwise_giou, xyxy_to_cxcywh
from tests.student.losses.synthetic import seeded


def random_boxes(*shape: int, seed: int) -> torch.Tensor:
    return torch.rand(*shape, 4, generator=seeded(seed)) * 0.5 + 0.01


def test_notations_are_torchvisions_and_each_others_inverse() -> None:
    boxes = random_boxes(3, 5, seed=0)
    corners = cxcywh_to_xyxy(boxes)
    torch.testing.assert_close(corners, box_convert(boxes, "cxcywh", "xyxy"))
    torch.testing.assert_close(xyxy_to_cxcywh(corners), boxes)


def test_pairwise_giou_is_torchvisions() -> None:
    a, b = cxcywh_to_xyxy(random_boxes(2, 7, seed=1)), cxcywh_to_xyxy(random_boxes(2, 4, seed=2))
    torch.testing.assert_close(pairwise_giou(a, b), generalized_box_iou(a, b))


def test_paired_giou_is_the_diagonal_of_pairwise() -> None:
    a, b = cxcywh_to_xyxy(random_boxes(6, seed=3)), cxcywh_to_xyxy(random_boxes(6, seed=4))
    torch.testing.assert_close(paired_giou(a, b), pairwise_giou(a, b).diagonal())


def test_giou_by_hand() -> None:
    unit = torch.tensor([0.0, 0.0, 0.5, 0.5])
    beside = torch.tensor([0.5, 0.0, 1.0, 0.5])
    corner = torch.tensor([0.5, 0.5, 1.0, 1.0])
    assert paired_giou(unit, unit) == 1
    assert paired_giou(unit, beside) == 0
    assert paired_giou(unit, corner) == -0.5


def test_one_pixel_of_a_large_canvas_is_not_drowned_by_the_guard() -> None:
    pixel = torch.tensor([0.25, 0.25, 0.25 + 1 / 4096, 0.25 + 1 / 4096])
    torch.testing.assert_close(paired_giou(pixel, pixel), torch.tensor(1.0))


@pytest.mark.parametrize("other", [[0.3, 0.3, 0.0, 0.0], [0.6, 0.3, 0.0, 0.0]])
def test_boxes_without_area_give_finite_numbers_and_gradients(other: list[float]) -> None:
    boxes = torch.tensor([0.3, 0.3, 0.0, 0.0], requires_grad=True)
    giou = paired_giou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(torch.tensor(other)))
    giou.backward()
    assert boxes.grad is not None
    assert giou.isfinite()
    assert boxes.grad.isfinite().all()
