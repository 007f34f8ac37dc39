"""Why the images of a shard are gone, if they were taken down: asked when they are missing."""

from __future__ import annotations

from collections.abc import Iterator

from manifests.commit import Commit
from manifests.errors import ObjectDamagedError, ObjectMissingError
from manifests.refs import Refs
from manifests.removed import Removals
from manifests.store import Store


def why_gone(store: Store, shard: str) -> str | None:
    """The sentence of the takedown, or None if no branch or tag that can be read knows of one."""
    sentences = (known.explain(shard) for known in known_takedowns(store))
    return next((sentence for sentence in sentences if sentence), None)


def known_takedowns(store: Store) -> Iterator[Removals]:
    """What each branch and tag that can be read knows of.

    An old commit does not say what was taken down after it, so all heads are asked.
    """
    refs = Refs(store)
    for heads in (refs.branches, refs.tags):
        try:
            commits = sorted(set(heads().values()))
        except ObjectDamagedError:
            continue
        for commit_id in commits:
            try:
                yield Removals.load(store, Commit.load(store, commit_id))
            except (ObjectMissingError, ObjectDamagedError):
                continue  # that is said by whoever needs this head
