"""A student in a file: it says the same there, or there is no file."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from manifests.errors import InputError
from student import export_formats
from student.checkpoint import Student
from student.config import (
    BackboneConfig,
    DataConfig,
    DenoisingConfig,
    ModelConfig,
    StudentConfig,
    TextConfig,
    TransformerConfig,
)
from student.export_check import (
    Difference,
    Network,
    NetworkAnswer,
    NetworkInput,
    compare,
    difference,
    noise_input,
    photo_input,
    telling_input,
)
from student.export_formats import FORMATS, ExportedNetwork, ExportFormat, as_network
from student.export_model import ExportOptions, export_student
from student.model.segmenter import build_segmenter
from student.text.hashed import HashedTextEncoder
from student.text.table import TextTable

_SIDE, _QUERIES, _DIM = 64, 10, 128  # canvas, queries, channels of a text


@pytest.fixture(scope="module")
def student() -> Student:
    """A student of random weights, as small as one can be that has everything."""
    config = StudentConfig(
        name="bags",
        model=ModelConfig(
            backbone=BackboneConfig(name="resnet10t", weights="none"),
            transformer=TransformerConfig(
                dim=16, heads=2, points=2, feedforward=32, encoder_layers=1, decoder_layers=1,
                learnable_queries=4, conditional_queries=6,
            ),
            text=TextConfig(encoder="hashed"),
        ),
        denoising=DenoisingConfig(queries=2),
        data=DataConfig(image_side=_SIDE),
    )  # fmt: skip
    torch.manual_seed(0)
    segmenter = build_segmenter(config.model, config.denoising, text_dim=_DIM, pretrained=False)
    with torch.no_grad():  # so that boxes and scores differ, as those of a trained one do
        for parameter in segmenter.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    return Student(
        segmenter=segmenter.eval(), config=config, categories=("bag", "shoe", "hat"),
        texts=TextTable(HashedTextEncoder()), commit_id="c" * 64, data=(),
    )  # fmt: skip


@pytest.fixture
def network(student: Student) -> Network:
    return as_network(ExportedNetwork(student.segmenter))


@dataclass
class _InMemory:
    """A format whose files hold nothing: the network stays here, its boxes `shift` to the right."""

    shift: float = 0.0
    network: ExportedNetwork | None = None

    def write(self, network: ExportedNetwork, example: NetworkInput, path: Path) -> bool:
        self.network = network
        path.write_bytes(bytes(100))
        return True

    def open(self, path: Path) -> Network:
        assert self.network is not None
        student = as_network(self.network)

        def run(given: NetworkInput) -> NetworkAnswer:
            answer = student(given)
            moved = answer.boxes_cxcywh + torch.tensor([self.shift, 0, 0, 0])
            return replace(answer, boxes_cxcywh=moved)

        return run


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> _InMemory:
    """The format `memory`, beside which there is no other."""
    kept = _InMemory()
    made = ExportFormat(write=kept.write, open=kept.open, needed_to_run="this process")
    monkeypatch.setattr("student.export_model.FORMATS", {"memory": made})
    return kept


def _photo(student: Student, *, batch: int = 1, seed: int = 5) -> NetworkInput:
    return photo_input(student.texts.vectors(student.categories), batch, _SIDE, seed)


@pytest.mark.parametrize(
    "format",
    [
        "torchscript",
        pytest.param("torch_export", marks=pytest.mark.slow),
        pytest.param("onnx", marks=pytest.mark.slow),
    ],
)
def test_the_file_says_what_the_student_says(
    student: Student, network: Network, tmp_path: Path, format: str
) -> None:
    path = tmp_path / "deep" / "bags.bin"
    result = export_student(student, path, options=ExportOptions(format=format))
    assert result.difference.largest < 1e-4
    assert result.num_bytes == path.stat().st_size > 10_000
    given = _photo(student)
    found = difference(network(given), FORMATS[format].open(path)(given))
    assert found.largest < 1e-4
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "bags.bin", "bags.bin.json", "bags.bin.texts.safetensors",
    ]  # fmt: skip


@pytest.mark.slow
def test_onnx_takes_several_images_and_one_text(student: Student, tmp_path: Path) -> None:
    import onnxruntime

    path = tmp_path / "bags.onnx"
    options = ExportOptions(batch=2, texts=("bag",), image_side=96)
    result = export_student(student, path, options=options)
    assert (result.batch, result.image_side) == (2, 96)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = {
        "images": np.zeros((2, 3, 96, 96), np.float32),
        "padding": np.zeros((2, 96, 96), bool),
        "texts": load_file(f"{path}.texts.safetensors")["texts"].numpy(),
    }
    logits, boxes, masks = session.run(["class_logits", "boxes_cxcywh", "mask_logits"], given)
    assert logits.shape == (2, _QUERIES, 1)
    assert boxes.shape == (2, _QUERIES, 4)
    assert masks.shape == (2, _QUERIES, 24, 24)


def test_the_description_and_the_texts_lie_beside_it(
    student: Student, tmp_path: Path, memory: _InMemory
) -> None:
    path = tmp_path / "bags.ts"
    options = ExportOptions(format="memory", texts=("hand_bag",), phrases=("the red bag",))
    export_student(student, path, options=options)
    said = json.loads((tmp_path / "bags.ts.json").read_text())
    assert said["texts"] == ["hand_bag", "the red bag"]
    assert said["commit_id"] == student.commit_id
    assert said["pixels"]["order"] == "RGB"
    assert said["text_encoder"]["encoder"] == "hashed"
    assert said["difference"].keys() == {"scores", "boxes", "masks"}
    assert str(tmp_path) not in json.dumps(said)
    vectors = load_file(tmp_path / "bags.ts.texts.safetensors")["texts"]
    wanted = [student.texts.vectors(["hand_bag"]), student.texts.phrase_vectors(["the red bag"])]
    assert torch.equal(vectors, torch.cat(wanted))


def test_exporting_leaves_the_student_as_it_was(student: Student, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in student.segmenter.state_dict().items()}
    random_state = torch.get_rng_state()
    export_student(student, tmp_path / "a.ts", options=ExportOptions(format="torchscript"))
    assert torch.equal(torch.get_rng_state(), random_state)
    for name, value in student.segmenter.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_file_that_disagrees_is_not_written(
    student: Student, tmp_path: Path, memory: _InMemory
) -> None:
    memory.shift = 0.01
    options = ExportOptions(format="memory")
    with pytest.raises(
        InputError, match=r"differs from the student by at most 0\.001, got .*boxes 0\.01"
    ):
        export_student(student, tmp_path / "bags.ts", options=options)
    assert list(tmp_path.iterdir()) == []
    allowed = export_student(
        student, tmp_path / "bags.ts", options=replace(options, tolerance=0.02)
    )
    assert allowed.difference.boxes == pytest.approx(0.01, abs=1e-4)


def test_what_is_there_is_not_overwritten(
    student: Student, tmp_path: Path, memory: _InMemory
) -> None:
    path = tmp_path / "bags.ts"
    path.write_text("mine")
    options = ExportOptions(format="memory")
    with pytest.raises(InputError, match=r"bags\.ts is there already; .*--overwrite"):
        export_student(student, path, options=options)
    assert path.read_text() == "mine"
    export_student(student, path, options=replace(options, overwrite=True))
    assert path.stat().st_size == 100
    with pytest.raises(InputError, match="is a folder"):
        export_student(student, tmp_path, options=replace(options, overwrite=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (lambda: ExportOptions(format="onxx"), "format 'onxx' is unknown; did you mean 'onnx'"),
        (lambda: ExportOptions(image_side=100), "expected a multiple of 32"),
        (lambda: ExportOptions(batch=0), "batch: expected at least 1"),
        (lambda: ExportOptions(tolerance=0), "tolerance: expected more than 0"),
        (lambda: ExportOptions(tolerance=float("nan")), "tolerance: expected more than 0"),
    ],
)
def test_bad_options_are_refused(options: Callable[[], ExportOptions], message: str) -> None:
    with pytest.raises(InputError, match=message):
        options()


def test_a_student_without_categories_needs_texts(
    student: Student, tmp_path: Path, memory: _InMemory
) -> None:
    nothing = replace(student, categories=())
    with pytest.raises(InputError, match="expected texts, got a student without categories"):
        export_student(nothing, tmp_path / "a", options=ExportOptions(format="memory"))
    assert list(tmp_path.iterdir()) == []


# The comparison -----------------------------------------------------------------------------------


def _answer(seed: int = 0, queries: int = 7) -> NetworkAnswer:
    generator = torch.Generator().manual_seed(seed)
    return NetworkAnswer(
        class_logits=torch.randn(2, queries, 3, generator=generator),
        boxes_cxcywh=torch.rand(2, queries, 4, generator=generator),
        mask_logits=torch.randn(2, queries, 8, 8, generator=generator),
    )


def _shuffled(answer: NetworkAnswer, order: Tensor) -> NetworkAnswer:
    return NetworkAnswer(
        class_logits=answer.class_logits[:, order], boxes_cxcywh=answer.boxes_cxcywh[:, order],
        mask_logits=answer.mask_logits[:, order],
    )  # fmt: skip


def test_the_order_of_queries_does_not_count() -> None:
    answer = _answer()
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    assert difference(answer, _shuffled(answer, order)).largest == 0


@pytest.mark.parametrize("part", ["scores", "boxes", "masks"])
def test_each_part_counts_alone(part: str) -> None:
    answer = _answer()
    moved = {
        "scores": replace(answer, class_logits=answer.class_logits + 0.4),
        "boxes": replace(answer, boxes_cxcywh=answer.boxes_cxcywh + 0.1),
        "masks": replace(answer, mask_logits=answer.mask_logits + 0.4),
    }[part]
    found = difference(answer, moved)
    assert 0.05 < getattr(found, part) <= 0.1 + 1e-6
    assert sum(getattr(found, other) for other in ("scores", "boxes", "masks")) == getattr(
        found, part
    )


def test_nan_is_a_difference() -> None:
    answer = _answer()
    broken = answer.mask_logits.clone()
    broken[1, 3, 0, 0] = torch.nan
    assert difference(answer, replace(answer, mask_logits=broken)).largest == float("inf")
    with pytest.raises(InputError, match="nothing was written"):
        compare(
            lambda _: answer, lambda _: replace(answer, mask_logits=broken),
            [lambda seed: noise_input(torch.ones(3, 4), 2, 32, seed)], tolerance=0.5,
        )  # fmt: skip


def test_inputs_on_which_rounding_decides_are_passed_over() -> None:
    calls = itertools.count()

    def shaky(given: NetworkInput) -> NetworkAnswer:
        """Never answers the first two inputs, which have texts 0 and 1, in the same way twice."""
        return _answer(next(calls) if given.texts[0, 0] < 2 else 0)

    def make(seed: int) -> NetworkInput:
        return noise_input(torch.full((1, 4), float(seed)), 1, 32, seed)

    assert telling_input(shaky, make, tolerance=1e-3).texts[0, 0] == 2
    with pytest.raises(InputError, match="no export could be told from a wrong one"):
        telling_input(shaky, lambda seed: make(seed % 2), tolerance=1e-3)


@pytest.mark.parametrize("make", [noise_input, photo_input])
def test_made_up_inputs_follow_their_seed(make: Callable[..., NetworkInput]) -> None:
    texts = torch.ones(2, 4)
    one, same, other = make(texts, 2, 64, 3), make(texts, 2, 64, 3), make(texts, 2, 64, 4)
    assert one.images.shape == (2, 3, 64, 64)
    assert torch.equal(one.images, same.images)
    assert not torch.equal(one.images, other.images)
    assert not one.images[one.padding[:, None].expand_as(one.images)].any()
    assert one.padding.any() == (make is photo_input)
    assert not one.padding[:, 0].any()


def test_the_largest_difference_is_of_all_three() -> None:
    assert Difference(scores=0.1, boxes=0.3, masks=0.2).largest == 0.3
    assert export_formats.FORMATS.keys() == {"onnx", "torchscript", "torch_export"}
