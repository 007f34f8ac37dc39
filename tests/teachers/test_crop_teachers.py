"""GrabCut, U-2-Netp and the filled box: one crop at a time, a reason for what cannot be drawn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from teachers import registry
from teachers.crop import Crop
from teachers.protocol import MaskChunk, Teacher, machine_of
from tests.teachers.conftest import photo


def _iou(mask: NDArray[np.uint8], truth: NDArray[np.bool_]) -> float:
    return float((mask.astype(bool) & truth).sum() / (mask.astype(bool) | truth).sum())


def _disc(height: int, width: int, radius: float) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A red disc on noisy green, and where it is."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width] + 0.5
    truth = np.hypot(x - width / 2, y - height / 2) < radius
    image = np.where(truth[..., None], [200, 40, 40], [40, 160, 60])
    return (image + random.integers(-20, 20, image.shape)).clip(0, 255).astype(np.uint8), truth


def _only(teacher: Teacher, image: NDArray[np.uint8], box: list[float]) -> MaskChunk:
    (chunk,) = teacher.predict([image], [np.array([box], dtype=np.float32)])
    return chunk


@pytest.fixture(scope="module")
def grabcut() -> Teacher:
    return registry.build("grabcut")


@pytest.fixture
def u2netp(weights_given: None) -> Teacher:
    return registry.build("u2netp", {"num_threads": 1})


def test_grabcut_finds_a_disc(grabcut: Teacher) -> None:
    image, truth = _disc(120, 160, 40)
    chunk = _only(grabcut, image, [40, 20, 120, 100])
    assert _iou(chunk.masks[0, 0], truth) > 0.95
    assert chunk.predicted_iou is chunk.stability is chunk.mean_foreground is None
    assert chunk.masks[0, 0].flags.f_contiguous


def test_grabcut_finds_a_disc_that_fills_the_image(grabcut: Teacher) -> None:
    image, truth = _disc(100, 100, 50)
    assert _iou(_only(grabcut, image, [0, 0, 100, 100]).masks[0, 0], truth) > 0.9


def test_grabcut_shrinks_large_crops(grabcut: Teacher) -> None:
    image, truth = _disc(1000, 1400, 400)
    assert _iou(_only(grabcut, image, [300, 100, 1100, 900]).masks[0, 0], truth) > 0.95


def test_grabcut_is_deterministic_whatever_came_before(grabcut: Teacher) -> None:
    # Noise has no right answer: where k-means starts decides.
    noise = np.random.default_rng(1).integers(0, 255, (8, 60, 80, 3), dtype=np.uint8)
    box = [20.0, 10.0, 60.0, 50.0]
    first = [_only(grabcut, image, box).masks for image in noise]
    _only(grabcut, photo(50, 50), [3, 3, 40, 44])
    again = [_only(grabcut, image, box).masks for image in noise[::-1]][::-1]
    np.testing.assert_array_equal(first, again)


def test_grabcut_refuses_tiny_boxes_and_draws_the_others(grabcut: Teacher) -> None:
    image, _ = _disc(60, 80, 17)
    boxes = np.array([[0, 0, 3, 30], [20, 10, 60, 50], [0, 0, 0.5, 0.5]], dtype=np.float32)
    (chunk,) = grabcut.predict([image], [boxes])
    assert chunk.box_indices.tolist() == [1]
    assert chunk.masks.shape == (1, 1, 60, 80)
    assert {index: error.reason for index, error in chunk.failures.items()} == {
        0: "box_too_small_for_grabcut",
        2: "box_too_small_for_grabcut",
    }


def test_grabcut_of_a_flat_image_does_not_crash(grabcut: Teacher) -> None:
    chunk = _only(grabcut, np.zeros((40, 40, 3), dtype=np.uint8), [5, 5, 30, 30])
    assert len(chunk.box_indices) + len(chunk.failures) == 1


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.tuples(*[st.floats(0, 1, width=32)] * 4),
    st.integers(0, 3),
)
def test_grabcut_draws_or_refuses_any_box(
    height: int, width: int, corners: tuple[float, float, float, float], seed: int
) -> None:
    teacher = registry.build("grabcut")
    x0, x1 = sorted((corners[0] * width, corners[1] * width))
    y0, y1 = sorted((corners[2] * height, corners[3] * height))
    if x1 - x0 < 0.01 or y1 - y0 < 0.01:
        return
    chunk = _only(teacher, photo(height, width, seed), [x0, y0, x1, y1])
    assert len(chunk.box_indices) + len(chunk.failures) == 1
    assert chunk.masks.max(initial=0) <= 1


@pytest.mark.shared_data
def test_u2netp_finds_a_disc_inside_the_box(u2netp: Teacher) -> None:
    image, truth = _disc(200, 260, 60)
    chunk = _only(u2netp, image, [70, 40, 190, 160])
    assert _iou(chunk.masks[0, 0], truth) > 0.85
    assert chunk.stability is not None
    assert chunk.mean_foreground is not None
    assert 0.5 < chunk.stability[0, 0] <= 1
    assert 0.3 < chunk.mean_foreground[0, 0] <= 1
    assert not chunk.masks[0, 0][:, :70].any()


@pytest.mark.shared_data
def test_u2netp_gives_the_authors_numbers(u2netp: Teacher, shared: object) -> None:
    golden = np.load(f"{shared}/weights/golden.npz")
    import onnxruntime

    session = onnxruntime.InferenceSession(
        f"{shared}/weights/u2netp.onnx", providers=["CPUExecutionProvider"]
    )
    pixels = golden["u2netp_in_0"].astype(np.float32)
    answer = session.run(None, {session.get_inputs()[0].name: pixels})[0]
    np.testing.assert_allclose(answer, golden["u2netp_out_0"], atol=1e-4)


@pytest.mark.shared_data
def test_u2netp_of_tiny_and_flat_boxes_does_not_crash(u2netp: Teacher) -> None:
    boxes = np.array([[0, 0, 0.4, 0.4], [0, 0, 40, 1], [0, 0, 40, 40]], dtype=np.float32)
    (chunk,) = u2netp.predict([np.zeros((40, 40, 3), dtype=np.uint8)], [boxes])
    assert len(chunk.box_indices) + len(chunk.failures) == 3
    assert chunk.masks.shape[0] == len(chunk.box_indices)
    assert {error.reason for error in chunk.failures.values()} <= {"u2netp_empty"}


@pytest.mark.parametrize("name", ["box", "grabcut"])
def test_every_box_is_answered_once_and_in_order(name: str) -> None:
    teacher = registry.build(name)
    images = [photo(40, 60, seed) for seed in range(3)]
    some = np.array([[5, 5, 30, 30], [0, 0, 60, 40], [10, 10, 40, 35]], dtype=np.float32)
    boxes = [some, some[:0], some[:2]]
    answered: list[tuple[int, int]] = []
    for chunk in teacher.predict(images, boxes):
        assert chunk.masks.shape[2:] == images[chunk.image_index].shape[:2]
        positions = sorted([*chunk.box_indices.tolist(), *chunk.failures])
        answered += [(chunk.image_index, position) for position in positions]
    assert answered == [(0, 0), (0, 1), (0, 2), (2, 0), (2, 1)]


@given(
    st.tuples(*[st.floats(0, 30, width=32)] * 2),
    st.tuples(*[st.floats(0.125, 30, width=32)] * 2),
    st.floats(0, 2),
)
def test_a_crop_holds_its_box(
    corner: tuple[float, float], sides: tuple[float, float], margin: float
) -> None:
    box = np.array([*corner, *(np.array(corner) + sides)], dtype=np.float32)
    crop = Crop.around(box, margin=margin, size_hw=(61, 61))
    assert crop.x0 <= box[0] <= box[2] <= crop.x1
    assert crop.y0 <= box[1] <= box[3] <= crop.y1
    v, u = crop.inside_box(box, grid_hw=crop.size_hw)
    centres = crop.x0 + np.arange(len(u)) + 0.5
    np.testing.assert_array_equal(np.abs(u) < 1, (centres > box[0]) & (centres < box[2]))
    assert len(v) == crop.size_hw[0]


def test_only_networks_depend_on_the_machine(grabcut: Teacher, u2netp: Teacher) -> None:
    assert machine_of(grabcut) == machine_of(registry.build("box")) == {}
    found = machine_of(u2netp)
    assert set(found) == {"device", "instructions"}
    assert found["device"] == "cpu"
