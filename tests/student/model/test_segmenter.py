"""The whole network: shapes of every ablation, images apart, weights that all learn, bad input."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

from manifests.errors import InputError
from student.config import BackboneConfig
from student.records import SegmenterOutput, mask_logits
from tests.student.model.tiny import (
    SIDE,
    TEXT_DIM,
    TRANSFORMER,
    all_predictions,
    inputs,
    segmenter,
    targets,
    tensors,
    total,
)

ABLATIONS: list[dict[str, int | float | bool]] = [
    {},
    {"learnable_queries": 0},
    {"conditional_queries": 0},
    {"query_fusion": False},
    {"encoder_layers": 0},
    {"decoder_layers": 1},
    {"conditional_queries": 500},
    {"dropout": 0.2},
]
NUM_TOKENS = 8 * 8 + 4 * 4 + 2 * 2


@pytest.mark.parametrize("changes", ABLATIONS, ids=str)
def test_shapes(changes: dict[str, int | float | bool]) -> None:
    output = segmenter(**changes)(*inputs(), [targets(2), targets(0)])
    values = TRANSFORMER | changes
    num_conditional = min(values["conditional_queries"], NUM_TOKENS)
    num = values["learnable_queries"] + num_conditional
    assert output.num_learnable == values["learnable_queries"]
    assert len(output.layers) == values["decoder_layers"] + 1
    for layer in output.layers:
        assert layer.class_logits.shape == (2, num, 3)
        assert layer.boxes_cxcywh.shape == (2, num, 4)
        assert layer.mask_embeddings.shape == (2, num, 32)
    assert output.pixel_embeddings.shape == (2, 32, SIDE // 4, SIDE // 4)
    assert mask_logits(output.last.mask_embeddings, output.pixel_embeddings).isfinite().all()
    assert (output.proposals is None) == (values["conditional_queries"] == 0)
    if output.proposals is not None:
        assert output.proposals.class_logits.shape == (2, num_conditional, 3)
    assert output.denoised is not None
    assert output.denoised.target_rows.tolist() == [[0, 1] * 4, [-1] * 8]
    for layer in output.denoised.layers:
        assert layer.class_logits.shape == (2, 8, 3)
    for said in all_predictions(output):
        assert ((said.boxes_cxcywh >= 0) & (said.boxes_cxcywh <= 1)).all()
    assert all(tensor.isfinite().all() for tensor in tensors(output))


@pytest.mark.parametrize("changes", ABLATIONS, ids=str)
@pytest.mark.parametrize("counts", [(2, 1), (0, 0), None], ids=str)
def test_every_weight_gets_a_gradient(
    changes: dict[str, int | float | bool], counts: tuple[int, ...] | None
) -> None:
    network = segmenter(**changes)
    given = None if counts is None else [targets(num) for num in counts]
    total(network(*inputs(), given)).backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None]
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


def test_distributed_workers_need_not_look_for_unused_weights(tmp_path: Path) -> None:
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1
    )
    try:
        network = DistributedDataParallel(segmenter())
        for counts in ((2, 1), (0, 0), (0, 3)):  # an unused weight raises in the next step
            total(network(*inputs(), [targets(num) for num in counts])).backward()
    finally:
        distributed.destroy_process_group()


def _assert_equal(one: SegmenterOutput, other: SegmenterOutput, index: slice) -> None:
    for ours, theirs in zip(tensors(one), tensors(other), strict=True):
        torch.testing.assert_close(ours, theirs[index], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext"])
def test_an_image_in_a_batch_is_that_image_alone(name: str) -> None:
    network = segmenter(BackboneConfig(name=name, weights="none")).eval()
    images, padding, texts = inputs(batch=3)
    with torch.no_grad():
        together = network(images, padding, texts)
        for index in (slice(0, 1), slice(1, 2), slice(2, 3)):
            alone = network(images[index], padding[index], texts)
            _assert_equal(alone, together, index)


def test_what_is_in_the_padding_does_not_matter() -> None:
    network = segmenter().eval()
    images, padding, texts = inputs(batch=3)
    noise = torch.randn(images.shape) * 100
    with torch.no_grad():
        one = network(images, padding, texts)
        other = network(torch.where(padding[:, None], noise, images), padding, texts)
    assert all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


def test_proposals_are_of_the_image_not_of_its_padding() -> None:
    network = segmenter(conditional_queries=5).eval()
    images, padding, texts = inputs(batch=1)
    padding[:, :, 32:] = True
    with torch.no_grad():
        for parameter in network.heads.boxes[-1].parameters():
            torch.nn.init.zeros_(parameter)
        boxes = network(images, padding, texts).proposals.boxes_cxcywh
    assert (boxes[..., 0] < 0.5).all()


def test_all_padding_is_finite() -> None:
    network = segmenter().eval()
    images, padding, texts = inputs(batch=1)
    with torch.no_grad():
        output = network(images, torch.ones_like(padding), texts)
    assert all(tensor.isfinite().all() for tensor in tensors(output))


def test_the_order_of_texts_is_the_order_of_scores() -> None:
    network = segmenter().eval()
    images, padding, texts = inputs(num_texts=4)
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        one, other = network(images, padding, texts), network(images, padding, texts[order])
    torch.testing.assert_close(one.last.class_logits[..., order], other.last.class_logits)
    torch.testing.assert_close(one.last.boxes_cxcywh, other.last.boxes_cxcywh)


def test_the_same_generator_gives_the_same_step() -> None:
    network = segmenter()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    first, same, other = (
        network(*inputs(), [targets(3), targets(1)], generator=torch.Generator().manual_seed(seed))
        for seed in (4, 4, 5)
    )
    assert all(torch.equal(a, b) for a, b in zip(tensors(first), tensors(same), strict=True))
    boxes = [output.denoised.layers[-1].boxes_cxcywh for output in (first, other)]
    assert not torch.equal(*boxes)
    torch.testing.assert_close(first.last.class_logits, other.last.class_logits)


@pytest.mark.parametrize("changes", [{}, {"learnable_queries": 0}, {"conditional_queries": 0}])
def test_denoising_changes_nothing_for_the_other_queries(
    changes: dict[str, int | float | bool],
) -> None:
    network = segmenter(**changes)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    noised = network(*inputs(), [targets(3), targets(1)])
    without = network(*inputs())
    assert noised.denoised is not None
    assert without.denoised is None
    for ours, theirs in zip(noised.layers, without.layers, strict=True):
        torch.testing.assert_close(ours.class_logits, theirs.class_logits, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.boxes_cxcywh, theirs.boxes_cxcywh, rtol=1e-4, atol=1e-5)


def test_there_is_denoising_in_training_with_targets_alone() -> None:
    network, some = segmenter(), [targets(1), targets(1)]
    assert network(*inputs(), some).denoised is not None
    assert network(*inputs(), [targets(0), targets(0)]).denoised is None
    assert network.eval()(*inputs(), some).denoised is None
    assert segmenter(denoising=0)(*inputs(), some).denoised is None


@pytest.mark.parametrize("frozen_stages", [-1, 2])
def test_what_is_frozen_gets_no_gradients_and_the_rest_does(frozen_stages: int) -> None:
    config = BackboneConfig(name="test_resnet", weights="none", frozen_stages=frozen_stages)
    network = segmenter(config).train()
    total(network(*inputs(), [targets(2), targets(1)])).backward()
    assert all((p.grad is not None) == p.requires_grad for p in network.parameters())
    learning = sum(p.requires_grad for p in network.backbone.parameters())
    assert (learning == 0) == (frozen_stages == -1)


def test_bfloat16_trains_and_says_float32() -> None:
    network = segmenter()
    with torch.autocast("cpu", torch.bfloat16):
        output = network(*inputs(), [targets(2), targets(1)])
    assert all(tensor.dtype == torch.float32 for tensor in tensors(output))
    total(output).backward()
    missing = [name for name, p in network.named_parameters() if p.grad is None]
    assert not missing
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


def test_scores_begin_at_the_prior() -> None:
    scores = segmenter().eval()(*inputs()).last.class_logits.sigmoid()
    assert 0.003 < scores.mean().item() < 0.03


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(2, 3, 60, 64)}, "multiples of 32, got 60 x 64"),
        ({"padding": torch.zeros(2, 32, 32, dtype=torch.bool)}, r"expected padding \(2, 64, 64\)"),
        ({"texts": torch.zeros(0, TEXT_DIM)}, r"expected texts \[at least 1, 12\], got \[0, 12\]"),
        ({"texts": torch.zeros(3, 5)}, r"expected texts \[at least 1, 12\], got \[3, 5\]"),
    ],
)
def test_says_what_does_not_fit(change: dict[str, Tensor], message: str) -> None:
    names = ("images", "padding", "texts")
    given = dict(zip(names, inputs(), strict=True)) | change
    with pytest.raises(InputError, match=message):
        segmenter()(*(given[name] for name in names))
    with pytest.raises(InputError, match="expected 2 targets, got 1"):
        segmenter()(*inputs(), [targets(1)])
