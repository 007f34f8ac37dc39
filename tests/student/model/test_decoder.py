"""The decoder: which queries learn of which, and how boxes are handed on."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from student.model.decoder import Decoder
from student.model.heads import Heads
from student.model.pyramid import Pyramid
from student.model.queries import LearnableQueries, Queries
from student.records import Predictions
from tests.student.model.tiny import TEXT_DIM, transformer

DIM = 32
SHAPES = ((4, 4), (2, 2), (1, 1))
LEARNABLE, CONDITIONAL, NOISED = 4, 6, 5
NUM = LEARNABLE + CONDITIONAL + NOISED


class _Scene:
    """A decoder with everything it is given, the noised queries hidden from the others."""

    def __init__(self, **changes: int | float | bool) -> None:
        torch.manual_seed(0)
        self.decoder = Decoder(transformer(**changes))
        self.heads = Heads(dim=DIM, text_dim=TEXT_DIM)
        for parameter in self.heads.boxes[-1].parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        self.texts = self.heads.project(torch.randn(3, TEXT_DIM)).detach()
        self.pyramid = Pyramid(
            tokens=torch.randn(2, 21, DIM),
            padding=torch.zeros(2, 21, dtype=torch.bool),
            shapes_hw=SHAPES,
        )
        hidden = torch.zeros(2, NUM, NUM, dtype=torch.bool)
        hidden[:, : LEARNABLE + CONDITIONAL, LEARNABLE + CONDITIONAL :] = True
        self.queries = Queries(
            content=torch.randn(2, NUM, DIM),
            boxes_cxcywh=torch.rand(2, NUM, 4) * 0.8 + 0.1,
            num_learnable=LEARNABLE,
            num_conditional=CONDITIONAL,
            hidden=hidden,
        )

    def said(self, queries: Queries) -> list[Predictions]:
        return self.decoder(queries, self.pyramid, self.heads, self.texts)

    def changed_by(self, index: int) -> Tensor:
        """[Q] bool: the queries whose last scores change with the content of that one."""
        content = self.queries.content.clone()
        content[:, index] += torch.randn(DIM)
        before, after = (
            self.said(self.queries)[-1],
            self.said(replace(self.queries, content=content))[-1],
        )
        distance = (before.class_logits - after.class_logits).abs().amax(dim=(0, 2))
        return distance > 1e-6


def _kinds(changed: Tensor) -> tuple[bool, bool, bool]:
    parts = changed.split([LEARNABLE, CONDITIONAL, NOISED])
    return tuple(bool(part.all()) for part in parts)  # type: ignore[return-value]


def test_all_see_learnable_and_conditional_queries_and_none_the_noised() -> None:
    scene = _Scene()
    assert _kinds(scene.changed_by(0)) == (True, True, True)
    assert _kinds(scene.changed_by(LEARNABLE)) == (True, True, True)
    changed = scene.changed_by(NUM - 1)
    assert not changed[: LEARNABLE + CONDITIONAL].any()
    assert changed[LEARNABLE + CONDITIONAL :].all()  # here they see each other


def test_fusion_alone_takes_each_kind_to_the_other_from_the_same_input() -> None:
    scene = _Scene()
    fusion = scene.decoder.layers[0].fusion
    assert fusion is not None
    content, positions = scene.queries.content, torch.randn(2, NUM, DIM)
    fused = fusion(content, positions, scene.queries)
    for index, wanted in (
        (0, (False, True, True)),
        (LEARNABLE, (True, False, False)),
        (NUM - 1, (False, False, False)),
    ):
        other = content.clone()
        other[:, index] += 1
        changed = (fusion(other, positions, scene.queries) - fused).abs().amax(dim=(0, 2)) > 1e-6
        assert changed[index]
        changed[index] = wanted[int(index >= LEARNABLE) + int(index >= LEARNABLE + CONDITIONAL)]
        assert _kinds(changed) == wanted
    end = LEARNABLE + CONDITIONAL
    learnable, conditional = slice(0, LEARNABLE), slice(LEARNABLE, end)
    others = slice(LEARNABLE, NUM)
    for who, attention, whom in (
        (learnable, fusion.to_conditional, conditional),
        (others, fusion.to_learnable, learnable),
    ):
        alone = attention(content[:, who], positions[:, who], content[:, whom], positions[:, whom])
        torch.testing.assert_close(fused[:, who], alone)


@pytest.mark.parametrize(
    "changes", [{"learnable_queries": 0}, {"conditional_queries": 0}, {"query_fusion": False}]
)
def test_there_is_no_fusion_without_two_kinds_or_where_it_is_switched_off(
    changes: dict[str, int | float | bool],
) -> None:
    assert all(layer.fusion is None for layer in _Scene(**changes).decoder.layers)


def test_the_first_prediction_is_of_the_queries_as_they_came() -> None:
    scene = _Scene(decoder_layers=3)
    said = scene.said(scene.queries)
    assert len(said) == 4
    assert torch.equal(said[0].boxes_cxcywh, scene.queries.boxes_cxcywh)
    expected = scene.heads.predict(scene.queries.content, scene.queries.boxes_cxcywh, scene.texts)
    assert torch.equal(said[0].class_logits, expected.class_logits)


def test_a_layer_does_not_teach_the_boxes_of_the_layer_before() -> None:
    scene = _Scene(decoder_layers=3)
    boxes = scene.queries.boxes_cxcywh.clone().requires_grad_()
    said = scene.said(replace(scene.queries, boxes_cxcywh=boxes))
    for before, after in itertools.pairwise(said[1:]):
        back = torch.autograd.grad(
            after.boxes_cxcywh.sum(), before.boxes_cxcywh, retain_graph=True, allow_unused=True
        )
        assert back == (None,)
    # The first boxes are learnt ones, and learn by the first layer.
    (gradient,) = torch.autograd.grad(said[1].boxes_cxcywh.sum(), boxes)
    assert gradient.any()


def test_learnable_boxes_lie_in_the_canvas_and_learn() -> None:
    torch.manual_seed(0)
    learnable = LearnableQueries(num=50, dim=DIM)
    content, boxes = learnable(3)
    assert content.shape == (3, 50, DIM)
    assert ((boxes > 0) & (boxes < 1)).all()
    assert boxes[0, :, :2].std() > 0.2
    (content.sum() + boxes.sum()).backward()
    assert all(p.grad is not None and p.grad.all() for p in learnable.parameters())
