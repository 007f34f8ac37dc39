"""SAM as a teacher: upstream's numbers, one box as many, one image as many, bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from segment_anything import SamPredictor, build_sam_vit_b
from torch import Tensor

from manifests.errors import InputError, WeightsError
from teachers import sam_build
from teachers.protocol import MaskChunk, machine_of
from teachers.sam import SamTeacher
from teachers.sam_frame import Frame, boxes_in_square, pixels_in_square
from teachers.settings import SamSettings
from teachers.signals import measure_mask
from tests.teachers.conftest import CPU, IDENTITY, SmallSam, photo

Boxes = NDArray[np.float32]
Photo = NDArray[np.uint8]
_SIGNALS = (
    "predicted_iou", "stability", "mean_foreground", "jitter_iou", "output_iou", "box_iou",
    "outside_fraction",
)  # fmt: skip
_SIZES = [(480, 640), (640, 480), (97, 31), (1, 5), (1300, 900), (64, 64)]


def _boxes(height: int, width: int) -> Boxes:
    """The whole frame, a usual box, a tiny one in the corner, and a sliver."""
    fractions = np.array(
        [[0, 0, 1, 1], [0.2, 0.3, 0.7, 0.8], [0.99, 0.99, 1, 1], [0.1, 0.5, 0.9, 0.501]]
    )
    return (fractions * [width, height, width, height]).astype(np.float32)


def _upstream(
    predictor: SamPredictor, image: NDArray[np.uint8], boxes: Boxes
) -> tuple[list[NDArray[np.bool_]], list[NDArray[np.float32]]]:
    """Masks and predicted IoUs of upstream's predictor, one box at a time."""
    predictor.set_image(image)
    answers = [predictor.predict(box=box, multimask_output=True) for box in boxes]
    return [masks for masks, _, _ in answers], [iou for _, iou, _ in answers]


def _assert_same(chunk: MaskChunk, other: MaskChunk) -> None:
    np.testing.assert_array_equal(chunk.masks, other.masks)
    for name in _SIGNALS:
        np.testing.assert_allclose(getattr(chunk, name), getattr(other, name), atol=1e-5)


def _joined(chunks: Sequence[MaskChunk]) -> dict[int, list[MaskChunk]]:
    by_image: dict[int, list[MaskChunk]] = {}
    for chunk in chunks:
        by_image.setdefault(chunk.image_index, []).append(chunk)
    return by_image


@pytest.mark.parametrize("size_hw", _SIZES)
def test_masks_and_predicted_iou_are_upstreams(
    small_sam: SmallSam, size_hw: tuple[int, int]
) -> None:
    image, boxes = photo(*size_hw), _boxes(*size_hw)
    expected_masks, expected_iou = _upstream(small_sam.predictor(), image, boxes)
    for chunk in small_sam.teacher(cut_to_box=False).predict([image], [boxes]):
        assert chunk.predicted_iou is not None
        for row, index in enumerate(chunk.box_indices):
            # Upstream's candidates in our order: the same predicted IoUs, sorted by our choice.
            gap = np.abs(chunk.predicted_iou[row][:, None] - expected_iou[index][None])
            order = gap.argmin(axis=1)
            assert sorted(order) == [0, 1, 2]
            assert gap.min(axis=1).max() < 1e-5
            different = chunk.masks[row] != expected_masks[index][order]
            assert different.mean() < 1e-4


def test_planes_are_column_major(small_sam: SmallSam) -> None:
    (chunk,) = small_sam.teacher(box_batch=8).predict([photo(30, 40)], [_boxes(30, 40)])
    assert chunk.masks.shape == (4, 3, 30, 40)
    assert chunk.masks.dtype == np.uint8
    assert all(plane.flags.f_contiguous for plane in chunk.masks.reshape(-1, 30, 40))


def test_signals_are_those_of_the_full_size_logits(small_sam: SmallSam) -> None:
    image, boxes = photo(120, 160), _boxes(120, 160)[:2]
    predictor = small_sam.predictor()
    predictor.set_image(image)
    (chunk,) = small_sam.teacher().predict([image], [boxes])
    assert chunk.predicted_iou is not None
    assert chunk.stability is not None
    assert chunk.mean_foreground is not None
    for row, box in enumerate(boxes):
        logits, iou, _ = predictor.predict(box=box, multimask_output=True, return_logits=True)
        logits = logits[np.abs(chunk.predicted_iou[row][:, None] - iou[None]).argmin(axis=1)]
        low = (logits > -1).sum(axis=(1, 2))
        stability = (logits > 1).sum(axis=(1, 2)) / np.maximum(low, 1)
        inside = logits > 0
        foreground = np.where(inside, 1 / (1 + np.exp(-logits)), 0).sum(axis=(1, 2))
        mean = foreground / np.maximum(inside.sum(axis=(1, 2)), 1)
        np.testing.assert_allclose(chunk.stability[row], stability, atol=1e-3)
        np.testing.assert_allclose(chunk.mean_foreground[row], mean, atol=1e-3)


def _chunks_of(small_sam: SmallSam, image: Photo, boxes: Boxes, **settings: float) -> MaskChunk:
    (chunk,) = small_sam.teacher(box_batch=16, **settings).predict([image], [boxes])
    return chunk


@pytest.mark.parametrize("size_hw", [(60, 80), (97, 31), (300, 200)])
def test_no_pixel_lies_outside_its_box(small_sam: SmallSam, size_hw: tuple[int, int]) -> None:
    image, boxes = photo(*size_hw), _boxes(*size_hw)
    chunk = _chunks_of(small_sam, image, boxes)
    for masks, box in zip(chunk.masks, boxes, strict=True):
        (x0, y0), (x1, y1) = np.floor(box[:2]).astype(int), np.ceil(box[2:]).astype(int)
        outside = masks.copy()
        outside[:, y0:y1, x0:x1] = 0
        assert not outside.any()


def test_the_cut_takes_away_what_it_says_and_nothing_else(small_sam: SmallSam) -> None:
    image, boxes = photo(120, 160), _boxes(120, 160)
    cut = _chunks_of(small_sam, image, boxes)
    whole = _chunks_of(small_sam, image, boxes, cut_to_box=False)
    assert whole.box_iou is whole.outside_fraction is None
    assert cut.box_iou is not None
    assert cut.outside_fraction is not None
    assert cut.predicted_iou is not None
    assert whole.predicted_iou is not None
    assert cut.outside_fraction.max() > 0
    for row, box in enumerate(boxes):
        gap = np.abs(cut.predicted_iou[row][:, None] - whole.predicted_iou[row][None])
        same = gap.argmin(axis=1)  # the cut may empty a mask, which then comes last
        (x0, y0), (x1, y1) = np.floor(box[:2]).astype(int), np.ceil(box[2:]).astype(int)
        for candidate, before in enumerate(whole.masks[row][same]):
            inside = np.zeros_like(before)
            inside[y0:y1, x0:x1] = before[y0:y1, x0:x1]
            np.testing.assert_array_equal(cut.masks[row, candidate], inside)
            lost = (before.sum() - inside.sum()) / max(1, before.sum())
            assert cut.outside_fraction[row, candidate] == pytest.approx(lost, abs=1e-6)
            expected = measure_mask(before, box).box_iou
            assert cut.box_iou[row, candidate] == pytest.approx(expected, abs=1e-5)


class _InTheCorner(sam_build.SamDecoder):
    """The output with the best predicted IoU draws the image's corner, the others the whole."""

    def __init__(self) -> None: ...

    def image_tokens(self, embedding: Tensor) -> Tensor:
        return embedding

    def decode(self, image_tokens: Tensor, box_square: Tensor) -> tuple[Tensor, Tensor]:
        logits = torch.full((len(box_square), 4, 256, 256), 5.0)
        logits[:, 2] = -5
        logits[:, 2, :30, :30] = 5
        return logits, torch.tensor([[0.1, 0.6, 0.9, 0.7]]).repeat(len(box_square), 1)


def test_masks_that_the_cut_emptied_come_last(small_sam: SmallSam) -> None:
    parts = sam_build.SamParts(encoder=small_sam.parts.encoder, decoder=_InTheCorner())
    teacher = SamTeacher(
        identity=IDENTITY, settings=SamSettings(box_batch=8), parts=parts, device=CPU
    )
    boxes = np.array([[40, 40, 60, 60], [0, 0, 7, 7]], np.float32)
    (chunk,) = teacher.predict([photo(80, 80)], [boxes])
    assert chunk.masks.any(axis=(2, 3)).tolist() == [[True, True, False], [True, True, True]]
    assert chunk.predicted_iou is not None
    assert chunk.predicted_iou[0].tolist() == pytest.approx([0.7, 0.6, 0.9])
    assert chunk.predicted_iou[1, 0] == pytest.approx(0.9)


def test_agreement_with_itself_is_a_share(small_sam: SmallSam) -> None:
    chunk = _chunks_of(small_sam, photo(120, 160), _boxes(120, 160))
    for values in (chunk.jitter_iou, chunk.output_iou):
        assert values is not None
        assert values.shape == chunk.masks.shape[:2]
        assert values.min() >= 0
        assert values.max() <= 1


def test_jitter_changes_no_mask_and_can_be_left_out(small_sam: SmallSam) -> None:
    image, boxes = photo(120, 160), _boxes(120, 160)
    usual, without = (_chunks_of(small_sam, image, boxes, jitter=share) for share in (0.08, 0.0))
    np.testing.assert_array_equal(usual.masks, without.masks)
    assert without.jitter_iou is None
    assert without.output_iou is not None
    tiny = _chunks_of(small_sam, image, boxes, jitter=1e-6).jitter_iou
    assert tiny is not None
    assert usual.jitter_iou is not None
    has_mask = usual.masks.any(axis=(2, 3))
    assert tiny[has_mask].min() > 0.99
    assert usual.jitter_iou.mean() < tiny.mean()


@pytest.mark.parametrize("jitter", [-0.1, 0.3])
def test_jitter_has_bounds(jitter: float) -> None:
    with pytest.raises(InputError, match=r"jitter: expected from 0 to 0\.25, got"):
        SamSettings(jitter=jitter)


def test_boxes_together_are_as_boxes_alone(small_sam: SmallSam) -> None:
    image, boxes = photo(200, 300), _boxes(200, 300)
    (together,) = small_sam.teacher(box_batch=16).predict([image], [boxes])
    for index in range(len(boxes)):
        (alone,) = small_sam.teacher().predict([image], [boxes[index : index + 1]])
        # Another batch size rounds otherwise: a pixel on the edge may fall to the other side.
        assert (alone.masks[0] != together.masks[index]).mean() < 1e-4
        assert alone.predicted_iou is not None
        assert together.predicted_iou is not None
        np.testing.assert_allclose(alone.predicted_iou[0], together.predicted_iou[index], atol=1e-5)


def test_images_together_are_as_images_alone(small_sam: SmallSam) -> None:
    sizes = [(60, 80), (80, 60), (33, 90)]
    images = [photo(*size, seed=index) for index, size in enumerate(sizes)]
    boxes = [_boxes(*size) for size in sizes]
    together = _joined([*small_sam.teacher(image_batch=3).predict(images, boxes)])
    assert list(together) == [0, 1, 2]
    for index in range(3):
        alone = [*small_sam.teacher().predict(images[index : index + 1], boxes[index : index + 1])]
        for chunk, other in zip(alone, together[index], strict=True):
            _assert_same(chunk, other)


def test_an_image_leaves_nothing_behind(small_sam: SmallSam) -> None:
    teacher = small_sam.teacher()
    first, second = photo(60, 80, seed=1), photo(60, 80, seed=2)
    fresh = [*teacher.predict([second], [_boxes(60, 80)])]
    unfinished = teacher.predict([first], [_boxes(60, 80)])
    next(unfinished)
    for chunk, other in zip(fresh, teacher.predict([second], [_boxes(60, 80)]), strict=True):
        _assert_same(chunk, other)


def test_images_without_boxes_give_nothing(small_sam: SmallSam) -> None:
    none = np.zeros((0, 4), dtype=np.float32)
    images = [photo(20, 30), photo(40, 30), photo(20, 30)]
    chunks = [*small_sam.teacher().predict(images, [none, _boxes(40, 30), none])]
    assert {chunk.image_index for chunk in chunks} == {1}
    assert not [*small_sam.teacher().predict(images, [none] * 3)]
    assert not [*small_sam.teacher().predict([], [])]


def test_chunks_keep_to_the_byte_budget(small_sam: SmallSam) -> None:
    image = photo(300, 400)
    boxes = np.tile(_boxes(300, 400)[1:2], (12, 1))
    budget = 3 * 300 * 400 * 5
    chunks = [*small_sam.teacher(box_batch=64, mask_bytes=budget).predict([image], [boxes])]
    assert max(chunk.masks.nbytes for chunk in chunks) <= budget
    assert [len(chunk.box_indices) for chunk in chunks] == [5, 5, 2]
    assert np.concatenate([chunk.box_indices for chunk in chunks]).tolist() == list(range(12))
    one_at_a_time = [*small_sam.teacher(mask_bytes=1).predict([image], [boxes[:3]])]
    assert [len(chunk.box_indices) for chunk in one_at_a_time] == [1, 1, 1]


@pytest.mark.slow
def test_two_thousand_boxes_on_a_large_image_stay_bounded(small_sam: SmallSam) -> None:
    image = photo(3000, 4000)
    boxes = np.tile(_boxes(3000, 4000)[2:3], (2000, 1))
    seen = 0
    for chunk in small_sam.teacher(box_batch=64).predict([image], [boxes]):
        assert chunk.masks.nbytes <= 256 * 2**20
        seen += len(chunk.box_indices)
        if seen >= 30:
            return
    raise AssertionError("too few chunks")


class _Cramped:
    """A decoder on a device that holds the masks of two boxes only."""

    def __init__(self, inner: sam_build.SamDecoder, *, most: int) -> None:
        self._inner, self._most = inner, most
        self.calls: list[int] = []

    def image_tokens(self, embedding: Tensor) -> Tensor:
        return self._inner.image_tokens(embedding)

    def decode(self, image_tokens: Tensor, box_square: Tensor) -> tuple[Tensor, Tensor]:
        self.calls.append(len(box_square))
        if len(box_square) > self._most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return self._inner.decode(image_tokens, box_square)


def _cramped(small_sam: SmallSam, *, most: int) -> tuple[SamTeacher, _Cramped]:
    decoder = _Cramped(small_sam.parts.decoder, most=most)
    parts = sam_build.SamParts(
        encoder=small_sam.parts.encoder,
        decoder=decoder,  # type: ignore[arg-type]  # the same two methods
    )
    settings = SamSettings(box_batch=8)
    return SamTeacher(identity=IDENTITY, settings=settings, parts=parts, device=CPU), decoder


def test_a_full_gpu_gets_smaller_chunks(small_sam: SmallSam) -> None:
    teacher, decoder = _cramped(small_sam, most=2)
    boxes = np.tile(_boxes(60, 80), (2, 1))
    chunks = [*teacher.predict([photo(60, 80)], [boxes])]
    # Each chunk that fits is decoded once more, for the boxes moved.
    assert decoder.calls == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2]
    assert np.concatenate([chunk.box_indices for chunk in chunks]).tolist() == list(range(8))


def test_a_gpu_too_small_for_one_box_is_a_memory_error(small_sam: SmallSam) -> None:
    teacher, _ = _cramped(small_sam, most=0)
    with pytest.raises(MemoryError, match="the GPU is full"):
        list(teacher.predict([photo(60, 80)], [_boxes(60, 80)]))


@pytest.mark.parametrize(
    ("image", "boxes", "message"),
    [
        (photo(9, 9).astype(np.float32), _boxes(9, 9), "uint8"),
        (photo(9, 9), _boxes(9, 9).astype(np.float64), "float32"),
        (photo(9, 9), _boxes(9, 10), "box 0 of image 0: expected"),
        (photo(9, 9), np.full((1, 4), np.nan, dtype=np.float32), "got .nan"),
        (photo(9, 9), np.array([[5, 5, 5, 6]], dtype=np.float32), "x0 < x1"),
    ],
)
def test_wrong_arguments_are_refused(
    small_sam: SmallSam, image: NDArray[np.uint8], boxes: Boxes, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        list(small_sam.teacher().predict([image], [boxes]))


def test_one_box_array_an_image(small_sam: SmallSam) -> None:
    with pytest.raises(ValueError, match="one box array an image"):
        list(small_sam.teacher().predict([photo(9, 9)], []))


def test_a_file_that_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(WeightsError, match="not a PyTorch state dict"):
        sam_build.load_parts("sam_vit_t", path, CPU)
    torch.save([1, 2], path)
    with pytest.raises(WeightsError, match="expected a state dict, got list"):
        sam_build.load_parts("sam_vit_t", path, CPU)
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="not MobileSAM's image encoder"):
        sam_build.load_parts("sam_vit_t", path, CPU)


@pytest.mark.shared_data
def test_mobile_sam_gives_upstreams_logits(shared: Path, mobile_sam: SamTeacher) -> None:
    golden = np.load(shared / "weights" / "golden.npz")
    path = shared / "weights" / "mobile_sam.pt"
    parts = sam_build.load_parts("sam_vit_t", path, CPU)
    for i, file_name in enumerate(golden["files"]):
        with Image.open(shared / "data" / "ccp_dev" / "images" / str(file_name)) as photo_file:
            image = np.asarray(photo_file.convert("RGB"))
        frame = Frame.of((image.shape[0], image.shape[1]))
        pixels = torch.from_numpy(pixels_in_square(image, frame)).permute(2, 0, 1)[None]
        with torch.inference_mode():
            embedding = parts.encoder(pixels)[0]
            boxes = boxes_in_square(golden[f"boxes_xyxy_{i}"], frame)
            logits, iou = parts.decoder.decode(parts.decoder.image_tokens(embedding), boxes)
        logits = logits.transpose(2, 3)
        if i == 0:  # the file holds one embedding, in float16: 3 digits
            np.testing.assert_allclose(embedding, golden["embedding_0"], atol=1e-3)
        expected = np.concatenate(
            [golden[f"lowres_logits_{i}"][:, None], golden[f"lowres_logits_multi_{i}"]], axis=1
        )
        np.testing.assert_allclose(logits, expected, rtol=2e-3, atol=5e-3)
        expected_iou = np.concatenate(
            [golden[f"iou_pred_{i}"][:, None], golden[f"iou_pred_multi_{i}"]], axis=1
        )
        np.testing.assert_allclose(iou, expected_iou, atol=1e-5)


@pytest.mark.shared_data
def test_mobile_sam_finds_the_disc(mobile_sam: SamTeacher) -> None:
    image = photo(240, 320, seed=3)
    y, x = np.mgrid[0:240, 0:320]
    truth = np.hypot(x - 159.5, y - 119.5) < 60
    box = np.array([[99.5, 59.5, 220.5, 180.5]], dtype=np.float32)
    (chunk,) = mobile_sam.predict([image], [box])
    own_choice = chunk.masks[0, 0].astype(bool)
    assert (own_choice & truth).sum() / (own_choice | truth).sum() > 0.95


@pytest.mark.slow
def test_vit_b_is_upstreams(tmp_path: Path) -> None:
    torch.manual_seed(3)
    sam = build_sam_vit_b()
    torch.save(sam.state_dict(), tmp_path / "vit_b.pth")
    parts = sam_build.load_parts("sam_vit_b", tmp_path / "vit_b.pth", CPU)
    teacher = SamTeacher(identity=IDENTITY, settings=SamSettings(), parts=parts, device=CPU)
    image, boxes = photo(60, 80), _boxes(60, 80)
    expected_masks, expected_iou = _upstream(SamPredictor(sam), image, boxes)
    for chunk in teacher.predict([image], [boxes]):
        assert chunk.predicted_iou is not None
        for row, index in enumerate(chunk.box_indices):
            order = [
                int(np.abs(expected_iou[index] - v).argmin()) for v in chunk.predicted_iou[row]
            ]
            assert (chunk.masks[row] != expected_masks[index][order]).mean() < 1e-3


def test_it_says_what_of_the_machine_shows_in_the_last_digits(small_sam: SmallSam) -> None:
    """Under the names of the settings that govern it, so that another machine can be told."""
    found = machine_of(small_sam.teacher(box_batch=3))
    assert found["device"] == "cpu"
    assert found["num_threads"] == torch.get_num_threads()
    assert (found["image_batch"], found["box_batch"]) == (1, 3)
    assert found["instructions"]
    assert set(found) - {"instructions"} <= {entry.name for entry in fields(SamSettings)}
