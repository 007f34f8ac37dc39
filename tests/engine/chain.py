"""A dataset made by every kind of step, for the tests that make its commits again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.again import ReproduceConfig
from engine.driver import JobProgress
from engine.filter import FilterConfig, filter_masks
from engine.ingest import ingest
from engine.label import LabelConfig, label
from engine.policy import Policy
from engine.pool import PoolConfig
from engine.reproduce import Reproduction
from manifests.commit import Commit
from manifests.store import Store
from tests.engine.conftest import PhotoSet

INLINE = PoolConfig(executor="inline")
HERE = ReproduceConfig(pool=INLINE)
POLICY = Policy(name="test", teachers=("grabcut", "box"), rules={"min_box_iou": 0.5})
ROOT = Path(__file__).resolve().parents[2]


class Ears:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.last: JobProgress | None = None

    def step(self, name: str) -> None: ...

    def progress(self, progress: JobProgress) -> None:
        self.last = progress

    def done(self, text: str) -> None: ...

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def fill(photos: PhotoSet) -> PhotoSet:
    """Good photos, and one of each kind that is not kept."""
    photos.add("a.jpg", [10, 5, 20, 30], [0, 0, 80, 60])
    photos.add("b.jpg", [1, 2, 30, 40])
    photos.add("twin.jpg", [3, 3, 40, 40], content=(photos.images / "b.jpg").read_bytes())
    photos.add("broken.jpg", [1, 2, 30, 40], content=b"no photo at all")
    photos.add("missing.jpg", [1, 2, 30, 40], content=b"")
    photos.add("loop.jpg", content=b"")
    (photos.images / "loop.jpg").symlink_to("loop.jpg")  # cannot be read, not even by root
    photos.add("c.jpg", [5, 5, 30, 30])
    photos.annotate(1, [10, 5, 20, 30])
    photos.document["annotations"][0]["segmentation"] = [[10, 5, 30, 5, 30, 35, 10, 35]]
    return photos


def chain_on(store: Store, photos: PhotoSet) -> str:
    """Ingest, two teachers and a filter; the id of the last commit."""
    ingest(store, replace(photos.config(), shard_images=2))
    for teacher in ("box", "grabcut"):
        label(store, LabelConfig(teacher=teacher, pool=INLINE))
    return filter_masks(store, FilterConfig(policy=POLICY))


def files(store: Store) -> list[str]:
    """Everything that is not an object."""
    found = store.fs.find(store.root)
    return sorted(path for path in found if "/objects/" not in path)


def saved(store: Store, commit_id: str, **fields: Any) -> str:
    """A commit like another, but for some fields; `operation` is a mapping of its fields."""
    commit = Commit.load(store, commit_id)
    made = replace(commit.operation, **fields.pop("operation", {}))
    return replace(commit, operation=made, **fields).save(store)


def fates(made: Reproduction) -> list[tuple[str, str]]:
    """(fate, layer) of every cell that is not the same."""
    return [(cell.fate, cell.layer) for cell in made.comparison.cells]


def other_photo() -> bytes:
    from tests.engine.conftest import jpeg, make_photo

    return jpeg(make_photo(4711))
