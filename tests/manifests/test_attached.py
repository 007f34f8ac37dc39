"""Calibrator and gold hang on a commit: they travel, stay, are checked and compared with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from manifests import layout
from manifests.commit import Commit
from manifests.contents import Contents, compare
from manifests.gc import GcOptions, collect_garbage
from manifests.refs import Refs
from manifests.store import Store
from manifests.transfer import TransferOptions, clone, pull, push
from tests.manifests.damage import damage_in, look
from tests.manifests.steps import Steps

_ROLES = ("calibrator", "gold")


@pytest.fixture
def steps(tmp_path: Path) -> Steps:
    """Two calibrations: the attached objects of the first are in the history alone."""
    steps = Steps(str(tmp_path / "store"))
    steps.ingest({"a.jpg": ["shoe", "hat"]})
    steps.label("sam")
    steps.calibrate("sam", calibrator=b"first")
    steps.calibrate("sam", calibrator=b"second")
    return steps


def _attached(steps: Steps) -> list[str]:
    """Object ids, of the older commit first."""
    found = [
        Commit.load(steps.store, Refs(steps.store).resolve(ref)).attached or {}
        for ref in ("main~1", "main")
    ]
    return [one[role] for one in found for role in _ROLES]


def _bytes(store: Store, object_ids: list[str]) -> list[bytes]:
    return [store.get_bytes(object_id) for object_id in object_ids]


def test_clone_push_and_pull_bring_them(steps: Steps, tmp_path: Path) -> None:
    wanted = [b"first", b"gold of first", b"second", b"gold of second"]
    assert _bytes(steps.store, _attached(steps)) == wanted
    copy = Store(str(tmp_path / "copy"))
    clone(steps.store, copy)
    assert _bytes(copy, _attached(steps)) == wanted
    steps.calibrate("sam", calibrator=b"third")
    push(steps.store, copy, TransferOptions())
    assert _bytes(copy, _attached(steps)[2:]) == [b"third", b"gold of third"]
    steps.calibrate("sam", calibrator=b"fourth")
    pull(copy, steps.store, TransferOptions())
    assert _bytes(copy, _attached(steps)[2:]) == [b"fourth", b"gold of fourth"]
    assert not look(copy).findings


def test_gc_keeps_them_as_long_as_their_commit(steps: Steps) -> None:
    now = GcOptions(grace_s=0, keep_log_s=0)
    collect_garbage(steps.store, now)
    assert len(_bytes(steps.store, _attached(steps))) == 4


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("full", [True, False])
def test_fsck_says_what_a_lost_one_means(steps: Steps, number: int, full: bool) -> None:
    object_id = _attached(steps)[number]
    steps.store.remove(layout.object_path(object_id))
    [finding] = damage_in(look(steps.store, full=full))
    role = _ROLES[number % 2]
    assert f"the {role} {object_id[:12]} is missing" in finding.sentence
    assert "say where their confidence comes from" in finding.sentence
    assert "run 'maskmill calibrate' again" in finding.remedy


def test_fsck_finds_a_damaged_one(steps: Steps) -> None:
    object_id = _attached(steps)[2]
    steps.store.overwrite(layout.object_path(object_id), b"sexond")
    [finding] = damage_in(look(steps.store, full=False))
    assert f"the calibrator {object_id[:12]}" in finding.sentence


def test_another_calibrator_or_quality_is_another_outcome(steps: Steps) -> None:
    quality = {"num_kept": 9, "certificate": {"upper_bound": 0.04}, "categories": {"shoe": 1}}
    expected = replace(Contents.of(steps.dataset()), quality=quality)
    assert compare(steps.store, expected, expected).is_same
    other = replace(
        expected,
        attached=dict(expected.attached) | {"calibrator": "f" * 64},
        quality={"num_kept": 8, "certificate": None, "categories": {"shoe": 2, "hat": 1}},
    )
    found = compare(steps.store, expected, other)
    assert not found.is_same
    assert found.attached == (f"calibrator {_attached(steps)[2][:12]} became {'f' * 12}",)
    assert found.quality == (
        "quality: categories differs in hat, shoe",
        "quality: certificate differs",
        "quality: num_kept 9 became 8",
    )
