"""After random edits of everything, a diff counts what a person would count in plain Python."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manifests import diff as diff_module
from manifests import paired_rle, rle, schemas
from manifests.dataset import Dataset, init
from manifests.diff import DiffOptions, diff
from manifests.diff_result import MaskChanges, VerdictChanges
from manifests.store import Store
from tests.manifests.conftest import DatasetBuilder, mask_row
from tests.manifests.edits import (
    HUMAN,
    SAM,
    SIZE,
    Rows,
    edited,
    mask_of,
    taken_down,
)

small = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@settings(max_examples=20, **small)  # type: ignore[arg-type]  # two settings of two types
@given(st.integers(0, 2**32), st.booleans(), st.booleans())
def test_counts_what_counting_by_annotation_counts(
    seed: int, by_category: bool, tiny_batches: bool
) -> None:
    """Random edits of everything, against sums over rows joined by annotation id in Python."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        if tiny_batches:
            patch.setattr(paired_rle, "_BATCH_CHARS", 8)
            patch.setattr(diff_module, "threads_for", lambda _: 1)
        store = Store(folder)
        init(store)
        before, after = _random_pair(rng, store)
        found = diff(before, after, options=DiffOptions(by_category=by_category))
        expected = _counted(before, after)
    assert found.images.added == expected["images", "added"]
    assert found.images.removed == expected["images", "removed"]
    for kind in ("added", "removed", "recategorised"):
        assert getattr(found.boxes, kind) == expected["boxes", kind], kind
    masks = {one.teacher: one for one in found.masks}
    for teacher in ("mobile_sam", "human"):
        changes = masks.get(teacher, MaskChanges(teacher=teacher))
        for kind in ("added", "removed", "changed"):
            assert getattr(changes, kind) == expected[teacher, kind], (teacher, kind)
        mean = expected[teacher, "iou"] / max(expected[teacher, "changed"], 1)
        assert (changes.mean_iou or 0) == pytest.approx(mean)
    for kind in asdict(VerdictChanges()):
        if kind != "category":
            assert getattr(found.verdicts, kind) == expected["verdicts", kind], kind
    if by_category:
        assert sum(one.added for one in found.boxes_by_category) == found.boxes.added
        assert sum(one.count for one in found.flips_by_category) == sum(
            one.count for one in found.flips
        )


def _random_pair(rng: np.random.Generator, store: Store) -> tuple[Dataset, Dataset]:
    """Two shards of three images; then some images taken down, boxes, masks, verdicts edited."""
    builder = DatasetBuilder(store)
    for _ in range(2):
        for _ in range(3):
            builder.image("x.png", image_format="png")
            for _ in range(rng.integers(0, 4)):
                x, y = rng.integers(0, 8, 2).tolist()
                human = {HUMAN: mask_of(x, y, x + 3, y + 3)} if rng.random() < 0.3 else None
                builder.box(
                    str(rng.choice(["shoe", "hat"])), (x, y, x + 5, y + 4), layers=human,
                    keep=bool(rng.random() < 0.6), reason="some_reason",
                )  # fmt: skip
        builder.shard(verdicts=bool(rng.random() < 0.8))
    before = after = builder.commit()
    for number, shard in enumerate(before.manifest.shards()):
        name = shard
        if rng.random() < 0.4:
            name = str(number) * 64
            after = taken_down(after, shard, int(rng.integers(0, 3)), new_id=name)
        for layer in after.manifest.layers():
            if after.manifest.get(name, layer) and layer not in ("images", "image_index"):
                after = edited(after, name, layer, lambda rows, kind=layer: _jolt(rows, kind, rng))  # type: ignore[misc]  # a default is not in the type
    return before, after


def _jolt(rows: Rows, layer: str, rng: np.random.Generator) -> None:
    for row in rows:
        if rng.random() < 0.6:
            continue
        if layer == schemas.BOXES:
            row["category"] = str(rng.choice(["shoe", "hat", "cup"]))
        elif layer == schemas.VERDICTS:
            row["keep"] = bool(rng.random() < 0.5)
            row["reason"] = None if row["keep"] else str(rng.choice(["some_reason", "other"]))
            row["candidate"] = int(rng.integers(0, 2))
        else:
            x, y, z = rng.integers(1, 8, 3).tolist()
            row.update(mask_row(None, SIZE) if z < 3 else mask_of(x, y, x + z, y + z))


def _by_annotation(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Annotation id -> its row of every layer."""
    found: dict[str, dict[str, Any]] = {}
    for shard in dataset.manifest.shards():
        layers = {
            layer: dataset.table(shard, layer).to_pylist()
            for layer in (schemas.BOXES, SAM, HUMAN, schemas.VERDICTS)
            if dataset.manifest.get(shard, layer)
        }
        for number, box in enumerate(layers.get(schemas.BOXES, [])):
            found[box["annotation_id"]] = {name: rows[number] for name, rows in layers.items()}
    return found


def _counted(before: Dataset, after: Dataset) -> Counter[tuple[str, str]]:
    counts: Counter[tuple[str, str]] = Counter()
    images = [
        {
            image
            for shard in dataset.manifest.shards()
            for image in dataset.table(shard, "image_index")["image_id"].to_pylist()
        }
        for dataset in (before, after)
    ]
    counts["images", "removed"] = len(images[0] - images[1])
    counts["images", "added"] = len(images[1] - images[0])
    old, new = _by_annotation(before), _by_annotation(after)
    for annotation in {*old, *new}:
        was, now = old.get(annotation, {}), new.get(annotation, {})
        if not was or not now:
            counts["boxes", "added" if now else "removed"] += 1
        elif was["boxes"]["category"] != now["boxes"]["category"]:
            counts["boxes", "recategorised"] += 1
        for layer in (SAM, HUMAN):
            _count_mask(counts, layer.removeprefix("masks/"), was.get(layer), now.get(layer))
        _count_verdict(counts, was.get("verdicts"), now.get("verdicts"))
    return counts


def _count_mask(counts: Counter[tuple[str, str]], teacher: str, was: Any, now: Any) -> None:
    had, has = ((row or {}).get("status") == schemas.OK for row in (was, now))
    if had and has and was["counts"] != now["counts"]:
        counts[teacher, "changed"] += 1
        iou = rle.paired_iou(was["counts"], now["counts"], size_hw=SIZE)
        counts[teacher, "iou"] += iou  # type: ignore[assignment]  # a Counter counts in floats, too
    elif had != has:
        counts[teacher, "added" if has else "removed"] += 1


def _count_verdict(counts: Counter[tuple[str, str]], was: Any, now: Any) -> None:
    if was and now:
        state = [row["keep"] or row["reason"] for row in (was, now)]
        if state[0] is True and state[1] is True:
            kind = "other_mask" if was["candidate"] != now["candidate"] else None
        elif state[0] == state[1]:
            kind = None
        else:
            kind = "dropped" if was["keep"] else "kept" if now["keep"] else "other_reason"
    else:
        kind = "judged" if now else "unjudged" if was else None
    if kind:
        counts["verdicts", kind] += 1
