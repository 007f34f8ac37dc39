"""What only a GPU can show: the same masks, batches, and what happens when its memory is full."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from teachers import registry, weights
from teachers.protocol import MaskChunk

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(scope="module", autouse=True)
def _weights() -> None:
    shared = Path(os.environ.get("MASKMILL_SHARED", Path(__file__).parents[3] / "shared"))
    if (shared / "weights").is_dir():
        os.environ.setdefault("MASKMILL_WEIGHTS", str(shared / "weights"))
    if weights.find("mobile_sam") is None:
        pytest.skip("needs MobileSAM's weights")


def photos(count: int) -> tuple[list[Any], list[Any]]:
    rng = np.random.default_rng(5)
    images, boxes = [], []
    for _ in range(count):
        image = rng.integers(0, 90, (300, 420, 3), dtype=np.uint8)
        image[60:200, 100:300] += 120
        images.append(image)
        boxes.append(np.array([[95, 55, 305, 205], [10, 10, 80, 50]], dtype=np.float32))
    return images, boxes


def iou(a: np.ndarray, b: np.ndarray) -> float:
    both, either = np.logical_and(a, b).sum(), np.logical_or(a, b).sum()
    return float(both / either) if either else 1.0


def by_box(chunks: Iterator[MaskChunk]) -> dict[tuple[int, int], tuple[np.ndarray, float]]:
    found = {}
    for chunk in chunks:
        for n, box in enumerate(chunk.box_indices):
            assert chunk.predicted_iou is not None
            score = float(chunk.predicted_iou[n, 0])
            found[chunk.image_index, int(box)] = (chunk.masks[n, 0], score)
    return found


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_gpu_draws_what_the_cpu_draws(precision: str) -> None:
    images, boxes = photos(3)
    cpu = by_box(registry.build("sam_vit_t", {"device": "cpu"}).predict(images, boxes))
    config = {"device": "cuda", "precision": precision}
    gpu = by_box(registry.build("sam_vit_t", config).predict(images, boxes))
    assert cpu.keys() == gpu.keys()
    for key, (mask, score) in cpu.items():
        assert iou(mask, gpu[key][0]) > (0.99 if precision == "float32" else 0.9)
        assert abs(score - gpu[key][1]) < (0.005 if precision == "float32" else 0.1)


def test_a_full_gpu_is_a_memory_error_and_the_teacher_lives_on() -> None:
    teacher = registry.build("sam_vit_t", {"device": "cuda", "image_batch": 64})
    images, boxes = photos(64)
    list(teacher.predict(images[:1], boxes[:1]))
    total = torch.cuda.get_device_properties(0).total_memory
    try:
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(1.5e9 / total)
        with pytest.raises(MemoryError):
            list(teacher.predict(images, boxes))
        assert len(by_box(teacher.predict(images[:1], boxes[:1]))) == 2
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
