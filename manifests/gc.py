"""Deleting what nothing needs: objects that no ref reaches, and images that were taken down.

Beside writers it is safe by the order of things, not by clocks (manifests.pins); the grace period
only saves the work of jobs that have stored objects and not committed them yet. Times are the
store's own. Objects are listed folder by folder, 256 of them, and never all at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import msgspec

from manifests import layout
from manifests.commit import Commit
from manifests.errors import InputError, MaskmillError, ObjectDamagedError, ObjectMissingError
from manifests.file_ages import ListedFile, list_files, store_clock
from manifests.in_parallel import in_parallel
from manifests.pins import Sweep, pins
from manifests.reachable import Reachable, Roots, find_roots
from manifests.results import ResultRecord
from manifests.store import Store

log = logging.getLogger(__name__)

DAY_S = 86_400.0
_THREADS, _LISTERS = 16, 4
_BATCH = 64
_NUM_FOLDERS = 256
# A store whose clock is this far behind its own files has a clock that jumped.
_SKEW_S = 300.0

OnProgress = Callable[[int, int], None]
"""(folders done, folders)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GcOptions:
    """What to delete.

    Attributes:
        grace_s: unreachable objects younger than this stay. Longer than the longest job.
        keep_log_s: commits that a branch pointed to within this time count as reachable.
        part: (i, n), counted from 1: only the i-th of n shares of the folders.
        dry_run: only say what would be deleted.
    """

    grace_s: float = 14 * DAY_S
    keep_log_s: float = 90 * DAY_S
    part: tuple[int, int] = (1, 1)
    dry_run: bool = False

    def __post_init__(self) -> None:
        if min(self.grace_s, self.keep_log_s) < 0:
            raise InputError("gc: expected a grace period and a log of 0 days or more")
        share, shares = self.part
        if not 1 <= share <= shares <= _NUM_FOLDERS:
            raise InputError(
                f"gc: part {share}/{shares}: expected i/n with 1 <= i <= n <= {_NUM_FOLDERS}"
            )


@dataclass(slots=True, kw_only=True)
class GcResult:
    """Counts and bytes of what was looked at; `deleted` objects would be in a dry run."""

    dry_run: bool
    num_commits: int = 0
    num_objects: int = 0
    num_bytes: int = 0
    num_deleted: int = 0
    deleted_bytes: int = 0
    num_taken_down: int = 0
    num_young: int = 0
    num_from_the_future: int = 0
    num_saved: int = 0
    num_results_deleted: int = 0
    num_leftovers_deleted: int = 0
    deleted: list[str] = field(default_factory=list)


def collect_garbage(
    store: Store, options: GcOptions = GcOptions(), *, on_progress: OnProgress | None = None
) -> GcResult:
    """Finds and deletes garbage; writers may go on meanwhile.

    Raises:
        ObjectMissingError, ObjectDamagedError: a ref, commit or manifest cannot be read, so nobody
            knows what must stay; nothing is deleted.
        StoreError: another `gc` is at work, or the store cannot be reached.
    """
    store.check_is_store()
    run = _Run(store, options, now=store_clock(store))
    run.reachable.add(run.roots())
    folders = run.folders("objects")
    for number, files in enumerate(run.listed("objects", folders)):
        run.sort(files)
        if on_progress:
            on_progress(number + 1, len(folders))
    run.result.num_commits = len(run.reachable.commits)
    if not options.dry_run:
        run.sweep()
    run.tidy()
    return run.result


class _Run:
    """One `gc`: first it looks, while nobody waits; then it deletes, while writers do."""

    def __init__(self, store: Store, options: GcOptions, *, now: float) -> None:
        self._store, self._options, self._now = store, options, now
        self.reachable = Reachable(store)
        self.result = GcResult(dry_run=options.dry_run)
        self._garbage: dict[str, ListedFile] = {}

    def roots(self) -> Roots:
        """Refs, their recent logs, and commits that are being published."""
        found = find_roots(self._store, now=self._now, keep_log_s=self._options.keep_log_s)
        pinned = {id_ for id_ in pins(self._store) if self._is_whole(id_)}
        return replace(found, heads=found.heads | pinned)

    def _is_whole(self, commit_id: str) -> bool:
        """Whether a pinned commit can be kept.

        If not, its writer died, or is just storing it: then it has yet to look for a sweep, will
        find ours, and look for its objects afterwards.
        """
        if not layout.is_object_id(commit_id) or self._store.object_size(commit_id) is None:
            return False
        try:
            commit = Commit.load(self._store, commit_id)
        except (ObjectMissingError, ObjectDamagedError):
            return False
        needed = [commit.manifest, *([commit.removed] if commit.removed else [])]
        return all(self._store.object_size(id_) is not None for id_ in needed)

    def folders(self, kind: str) -> list[str]:
        """The folders of this part that there are, of `objects` or `results`."""
        share, shares = self._options.part
        there = set(self._store.list_names(kind))
        names = [f"{n:02x}" for n in range(_NUM_FOLDERS) if n % shares == share - 1]
        return [name for name in names if name in there]

    def listed(self, kind: str, folders: list[str]) -> Iterator[list[ListedFile]]:
        """Each folder's files, listed a few folders ahead."""

        def look(folder: str) -> list[ListedFile]:
            return list_files(self._store, f"{kind}/{folder}")

        return in_parallel(look, folders, num_threads=_LISTERS)

    def sort(self, files: list[ListedFile]) -> None:
        """Sorts a folder's objects into those that stay and garbage."""
        for file in files:
            if not layout.is_object_id(file.name):
                continue
            self.result.num_objects += 1
            self.result.num_bytes += file.num_bytes
            if file.name in self.reachable:
                continue
            if self.reachable.is_taken_down(file.name) or not self._is_young(file):
                self._garbage[file.name] = file
        if self._options.dry_run:
            self._count_deleted(list(self._garbage))
            self._garbage.clear()

    def _is_young(self, file: ListedFile) -> bool:
        age_s = self._now - file.modified
        if age_s < -_SKEW_S:
            self.result.num_from_the_future += 1
        elif age_s < self._options.grace_s:
            self.result.num_young += 1
        return age_s < self._options.grace_s

    def sweep(self) -> None:
        """Deletes the garbage that is still garbage once no writer can publish it unseen."""
        if not self._garbage:
            return
        sweep = Sweep(self._store)
        with sweep.held(), ThreadPoolExecutor(_THREADS) as threads:
            self.reachable.add(self.roots())
            saved = [name for name in self._garbage if name in self.reachable]
            self.result.num_saved += len(saved)
            names = sorted(set(self._garbage) - set(saved))
            for start in range(0, len(names), _BATCH):
                sweep.refresh()
                batch = names[start : start + _BATCH]
                list(threads.map(self._delete, batch))
                self._count_deleted(batch)

    def _delete(self, object_id: str) -> None:
        self._store.remove(layout.object_path(object_id))

    def _count_deleted(self, names: list[str]) -> None:
        for name in names:
            self.result.num_deleted += 1
            self.result.deleted_bytes += self._garbage[name].num_bytes
            self.result.num_taken_down += self.reachable.is_taken_down(name)
            self.result.deleted.append(name)

    def tidy(self) -> None:
        """Result records whose objects went, and what dead processes left behind."""
        gone = {bytes.fromhex(name) for name in self.result.deleted}
        folders = self.folders("results")
        for folder, files in zip(folders, self.listed("results", folders), strict=True):
            old = [
                f"results/{folder}/{file.name}"
                for file in files
                if self._now - file.modified >= self._options.grace_s or self.result.num_taken_down
            ]
            with ThreadPoolExecutor(_THREADS) as threads:
                stale = list(threads.map(lambda key: self._is_stale(key, gone), old))
            for key, is_stale in zip(old, stale, strict=True):
                if is_stale:
                    self.result.num_results_deleted += 1
                    self._remove(key)
        if self._options.part[0] == 1:
            for key in self._leftovers():
                self.result.num_leftovers_deleted += 1
                self._remove(key)

    def _is_stale(self, key: str, gone: set[bytes]) -> bool:
        data = self._store.read_optional(key)
        if data is None:
            return False
        try:
            record = msgspec.json.decode(data, type=ResultRecord)
        except msgspec.MsgspecError:
            return True
        ids = [cell.object_id for cell in record.cells]
        return any(layout.is_object_id(id_) and bytes.fromhex(id_) in gone for id_ in ids)

    def _leftovers(self) -> Iterator[str]:
        """Old pins and probes, and records that a killed command kept for itself."""
        folders = [layout.PINS, layout.PROBES]
        for name in self._store.list_names(layout.SCRATCH):
            scratch = f"{layout.SCRATCH}/{name}"
            folders += [f"{scratch}/{below}" for below in self._store.list_names(scratch)]
        for folder in folders:
            for file in list_files(self._store, folder):
                if self._now - file.modified >= max(self._options.grace_s, DAY_S):
                    yield f"{folder}/{file.name}"

    def _remove(self, key: str) -> None:
        if self._options.dry_run:
            return
        try:
            self._store.remove(key)
        except MaskmillError as error:  # it is only tidying: the next gc finds it again
            log.warning("%s could not be removed: %s", key, error)
