"""Proposals are the tokens that score best, none from padding, and teach the encoder alone."""

from __future__ import annotations

import torch

from student.model.heads import Heads
from student.model.proposals import ProposalHead, grid_boxes
from student.model.pyramid import Pyramid

DIM, TEXT_DIM = 16, 12
SHAPES = ((8, 8), (4, 4))
NUM_TOKENS = 80


def _parts(num: int) -> tuple[ProposalHead, Heads, Pyramid, torch.Tensor]:
    torch.manual_seed(0)
    heads = Heads(dim=DIM, text_dim=TEXT_DIM)
    tokens = torch.randn(2, NUM_TOKENS, DIM, requires_grad=True)
    padding = torch.zeros(2, NUM_TOKENS, dtype=torch.bool)
    padding[1, 20:] = True
    pyramid = Pyramid(tokens=tokens, padding=padding, shapes_hw=SHAPES)
    return ProposalHead(num=num, dim=DIM), heads, pyramid, heads.project(torch.randn(3, TEXT_DIM))


def test_the_best_by_their_highest_score_in_order() -> None:
    head, heads, pyramid, texts = _parts(num=6)
    content = head.norm(head.linear(pyramid.tokens))
    best = heads.class_logits(content, texts).amax(dim=2)
    for image, num_valid in enumerate((NUM_TOKENS, 20)):
        proposals = head(pyramid, heads, texts)
        wanted = best[image, :num_valid].topk(6)
        said = proposals.predictions.class_logits[image].amax(dim=1)
        torch.testing.assert_close(said, wanted.values)
        torch.testing.assert_close(proposals.content[image], content[image, wanted.indices])


def test_a_box_begins_around_its_token() -> None:
    head, heads, pyramid, texts = _parts(num=NUM_TOKENS)
    boxes = grid_boxes(pyramid)
    assert boxes[0].tolist() == [0.0625, 0.0625, 0.05000000074505806, 0.05000000074505806]
    torch.testing.assert_close(boxes[-1], torch.tensor([0.875, 0.875, 0.1, 0.1]))
    proposals = head(pyramid, heads, texts)
    distances = torch.cdist(proposals.boxes_cxcywh[0], boxes).amin(dim=1)
    assert distances.max() < 1e-3


def test_fewer_tokens_than_queries_give_all_of_them() -> None:
    head, heads, pyramid, texts = _parts(num=500)
    proposals = head(pyramid, heads, texts)
    assert proposals.content.shape == (2, NUM_TOKENS, DIM)
    assert all(value.isfinite().all() for value in (proposals.content, proposals.boxes_cxcywh))


def test_the_decoder_gets_no_gradients_and_the_encoder_gets_those_of_the_predictions() -> None:
    head, heads, pyramid, texts = _parts(num=6)
    proposals = head(pyramid, heads, texts)
    assert not proposals.content.requires_grad
    assert not proposals.boxes_cxcywh.requires_grad
    said = proposals.predictions
    torch.testing.assert_close(said.boxes_cxcywh.detach(), proposals.boxes_cxcywh)
    (gradient,) = torch.autograd.grad(said.class_logits.sum(), pyramid.tokens, retain_graph=True)
    assert (gradient.abs().sum(dim=2) > 0).sum(dim=1).tolist() == [6, 6]
    (said.boxes_cxcywh.sum() + said.class_logits.sum() + said.mask_embeddings.sum()).backward()
    for part in (head, heads):
        assert not [
            name for name, p in part.named_parameters() if p.grad is None and name[:5] != "texts"
        ]


def test_autocast_chooses_the_same_and_leaves_the_gradients() -> None:
    head, heads, pyramid, texts = _parts(num=6)
    exact = head(pyramid, heads, texts).predictions
    with torch.autocast("cpu", torch.bfloat16):
        said = head(pyramid, heads, texts).predictions
    assert torch.equal(said.class_logits, exact.class_logits)
    said.class_logits.sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in head.parameters())
