"""Heads: the prior, similarity to texts, and refinement of boxes."""

from __future__ import annotations

import pytest
import torch

from student.model.heads import Heads

DIM, TEXT_DIM = 16, 12


def _heads(seed: int = 0) -> Heads:
    torch.manual_seed(seed)
    return Heads(dim=DIM, text_dim=TEXT_DIM)


def test_scores_begin_at_the_prior() -> None:
    heads = _heads()
    queries, texts = torch.randn(4, 200, DIM), heads.project(torch.randn(50, TEXT_DIM))
    scores = heads.class_logits(queries, texts).sigmoid()
    assert scores.shape == (4, 200, 50)
    assert scores.median().item() == pytest.approx(0.01, rel=0.1)
    assert scores.max() < 0.2


def test_a_score_depends_on_its_own_text_alone() -> None:
    heads = _heads()
    queries, texts = torch.randn(1, 5, DIM), torch.randn(4, TEXT_DIM)
    together = heads.class_logits(queries, heads.project(texts))
    for index in range(4):
        alone = heads.class_logits(queries, heads.project(texts[index : index + 1]))
        torch.testing.assert_close(alone, together[..., index : index + 1])


def test_boxes_begin_where_they_are_and_stay_in_the_canvas() -> None:
    heads = _heads()
    boxes = torch.rand(2, 7, 4) * 0.98 + 0.01
    queries = torch.randn(2, 7, DIM)
    torch.testing.assert_close(heads.refined(queries, boxes), boxes)
    torch.nn.init.normal_(heads.boxes[-1].weight, std=5)
    moved = heads.refined(queries, boxes)
    assert not torch.allclose(moved, boxes)
    assert ((moved >= 0) & (moved <= 1)).all()


def test_all_is_float32_under_autocast() -> None:
    heads = _heads()
    queries, boxes = torch.randn(1, 3, DIM), torch.rand(1, 3, 4)
    texts = heads.project(torch.randn(2, TEXT_DIM))
    exact = heads.predict(queries, heads.refined(queries, boxes), texts)
    with torch.autocast("cpu", torch.bfloat16):
        texts = heads.project(torch.randn(2, TEXT_DIM, dtype=torch.bfloat16))
        said = heads.predict(queries.bfloat16(), heads.refined(queries.bfloat16(), boxes), texts)
    for name in ("class_logits", "boxes_cxcywh", "mask_embeddings"):
        assert getattr(said, name).dtype == getattr(exact, name).dtype == torch.float32
