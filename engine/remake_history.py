"""Merges, reverts and takedowns made again from what their commits record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from manifests.commit import Commit
from manifests.dataset import Dataset
from manifests.errors import InputError
from manifests.find_images import Wanted, find_images
from manifests.merge_drafts import draft_merge, draft_revert
from manifests.removed import Removals
from manifests.takedown import TakedownPlan, draft_takedown
from manifests.three_way import Settlement
from manifests.writer import Draft

Settings = Mapping[str, Any]  # Any: JSON


def remake_merge(start: Dataset, settings: Settings, name: str) -> Draft:
    """The merge of the recorded commit into `start`. Raises as `draft_merge`."""
    theirs = Dataset(start.store, _text(settings, "theirs", name))
    return draft_merge(start, theirs, _settlement(settings)).draft


def remake_revert(start: Dataset, settings: Settings, name: str) -> Draft:
    """The recorded commit taken back from `start`. Raises as `draft_revert`."""
    undone = Dataset(start.store, _text(settings, "commit", name))
    return draft_revert(start, undone, _settlement(settings)).draft


def remake_takedown(start: Dataset, settings: Settings, commit: Commit, name: str) -> Draft:
    """The recorded images taken down from `start`.

    The old images may be gone; the new shards' are in the store, and the commit says which.

    Raises:
        InputError: `start` does not have the images.
    """
    found = find_images(start, Wanted(image_ids=tuple(settings.get("image_ids", ()))))
    rows = Removals.load(start.store, commit).rows
    plan = TakedownPlan(
        images=found,
        reason=_text(settings, "reason", name),
        author=_text(settings, "author", name),
        time=_text(settings, "time", name),
        successors={row.shard: row.successor for row in rows if row.successor},
    )
    return draft_takedown(start, plan)[0]


def _settlement(settings: Settings) -> Settlement:
    return Settlement(**settings.get("settlement", {}))


def _text(settings: Settings, key: str, name: str) -> str:
    value = settings.get(key)
    if not isinstance(value, str):
        raise InputError(f"{name}: expected '{key}' in its configuration, got {value!r}")
    return value
