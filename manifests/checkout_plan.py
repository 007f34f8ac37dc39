"""What is to become of each file of a checkout: kept, written, removed, or in the way.

A file is the checkout's own if it is as it was written. One that somebody changed is left alone
where the new checkout wants the same content there, as git does; otherwise it is in the way, and so
is a file that somebody put where one is to be written.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

from manifests.checkout_state import FileRows, KnownFile, KnownFiles
from manifests.consequences import listed
from manifests.digest import content_id
from manifests.errors import InputError
from manifests.store import explained


class _Found(Enum):
    """What is at a name: nothing, our file, one that is not ours any more, or a folder."""

    NOTHING = auto()
    OURS = auto()
    CHANGED = auto()
    FOLDER = auto()


@dataclass(slots=True)
class CheckoutPlan:
    """Files by what becomes of them; see the module.

    Attributes:
        before: FILES as they are known now, each name once.
        after: FILES as they will be.
        removed: names of files to remove.
        changed: names of files that somebody changed and that are left so.
        in_the_way: names of files that would be lost.
        blocked: names of folders and links where a file or a folder is to be; force does not help.
    """

    before: FileRows = field(default_factory=FileRows)
    after: FileRows = field(default_factory=FileRows)
    removed: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    in_the_way: list[str] = field(default_factory=list)
    blocked: list[str] = field(default_factory=list)
    num_kept: int = 0
    num_written: int = 0
    num_bytes: int = 0


class Planner:
    """Decides on one wanted file after the other, then on those that are not wanted any more."""

    def __init__(self, root: Path, known: KnownFiles, *, mtime_ns: int, force: bool) -> None:
        """`mtime_ns` is the time of change that files which are written now will get."""
        self.plan = CheckoutPlan()
        self._root, self._known, self._mtime_ns, self._force = root, known, mtime_ns, force
        self._is_known_folder = {
            folder for name in known.names() for folder in _folders_of(name)
        }  # those may be gone by the time a file is written in their place
        self._checked: set[str] = set()

    def want(self, name: str, content: str, size: int) -> bool:
        """Whether this file has to be written."""
        if not self.has_to_be_made(name, content, size):
            return False
        new = KnownFile(content=content, size=size, mtime_ns=self._mtime_ns)
        self.plan.after.add(name, new)
        self.plan.num_written += 1
        self.plan.num_bytes += size
        return True

    def has_to_be_made(self, name: str, content: str, size: int | None = None) -> bool:
        """Whether a file is not there with that content; `size` None: whatever its size.

        One that is there is put into the plan; one that has to be made is for the caller to add.
        """
        found, file, known = self._look(name)
        fits = [one for one in known if one.content == content and size in (None, one.size)]
        if found is _Found.OURS and file and fits and file.content == content:
            self.plan.after.add(name, file)
            self.plan.num_kept += 1
            return False
        if found is _Found.CHANGED and not self._force:
            if fits:
                self.plan.changed.append(name)
                self.plan.after.add(name, fits[0])
                return False
            self.plan.in_the_way.append(name)
        if found is _Found.FOLDER and name not in self._is_known_folder:
            self.plan.blocked.append(name)
        self._check_folders(name)
        return True

    def finish(self) -> CheckoutPlan:
        """The plan, with everything that is known and was not wanted removed.

        Raises:
            InputError: files are in the way.
        """
        for name in self._known.names():
            found, _, _ = self._look(name)
            if found is _Found.CHANGED and not self._force:
                self.plan.in_the_way.append(name)
            elif found in (_Found.OURS, _Found.CHANGED):
                self.plan.removed.append(name)
        self._refuse()
        return self.plan

    def _refuse(self) -> None:
        if names := self.plan.in_the_way:
            raise InputError(
                f"files in {self._root} that are not as they were checked out would be overwritten "
                f"or removed: {listed(names)}; move them away, or say --force to lose them"
            )
        if names := self.plan.blocked:
            raise InputError(
                f"in {self._root} there is something else where files or folders are to be made: "
                f"{listed(names)}; move it away"
            )

    def _look(self, name: str) -> tuple[_Found, KnownFile | None, tuple[KnownFile, ...]]:
        known = self._known.take(name)
        status = _status(self._root / name)
        file = _ours(self._root / name, status, known) if status else None
        if known:  # what was written where somebody changed a file is still worth knowing
            self.plan.before.add(name, file or known[0])
        if status is None:
            return _Found.NOTHING, None, known
        if stat.S_ISDIR(status.st_mode):
            return _Found.FOLDER, None, known
        return (_Found.OURS if file else _Found.CHANGED), file, known

    def _check_folders(self, name: str) -> None:
        """A folder must be one: a link would lead out of the checkout, whoever made it."""
        for folder in _folders_of(name):
            if folder in self._checked:
                continue
            self._checked.add(folder)
            status = _status(self._root / folder)
            if status and not stat.S_ISDIR(status.st_mode):
                # One of our own files goes before files are written.
                found, _, _ = self._look(folder)
                wanted = self.plan.removed if found is _Found.OURS else self.plan.blocked
                wanted.append(folder)


def _ours(path: Path, status: os.stat_result, known: tuple[KnownFile, ...]) -> KnownFile | None:
    """Which of the known files this is: as it was written, or with the same bytes at least."""
    if not stat.S_ISREG(status.st_mode):
        return None
    same_size = [file for file in known if file.size == status.st_size]
    for file in same_size:
        if file.mtime_ns == status.st_mtime_ns:
            return file
    if not same_size:
        return None
    with explained(str(path), "file"):
        digest = content_id(path.read_bytes())
    for file in same_size:
        if file.content == digest:
            touched = status.st_mtime_ns
            return KnownFile(content=file.content, size=file.size, mtime_ns=touched)
    return None


def _status(path: Path) -> os.stat_result | None:
    with explained(str(path), "file"):
        try:
            return os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None


def _folders_of(name: str) -> Iterator[str]:
    """`a` and `a/b` for `a/b/c`."""
    end = name.find("/")
    while end >= 0:
        yield name[:end]
        end = name.find("/", end + 1)
