"""Branches and tags: append-only numbered logs, moved by create-if-absent of the next number.

Two writers race for number n + 1; the store lets one of them have it. Nothing is ever overwritten,
so a reader sees the old head or the new one.
"""

from __future__ import annotations

import contextlib
import difflib
import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import msgspec

from manifests import layout
from manifests.commit import Commit, now
from manifests.digest import canonical_json
from manifests.errors import (
    CommitConflictError,
    CommitStateUnknownError,
    ObjectDamagedError,
    RefError,
    StoreError,
)
from manifests.store import NameTakenError, Store, WriteStateUnknownError

_ANCESTOR = re.compile(r"(?P<base>.+?)~(?P<steps>[0-9]{1,9})")
_MOVES_AGO = re.compile(r"(?P<branch>[^@]+)@\{(?P<moves>[0-9]{1,8})\}")
_ENTRY_NUMBER = re.compile(rf"[0-9]{{{layout.REF_DIGITS}}}")
_FULL_ID = re.compile(r"[0-9a-f]{64}")
_COMMIT_OR_DELETED = re.compile(r"([0-9a-f]{64})?")
_SHORTEST_ID = 6
_LONGEST_TEXT = 300
# Entries looked for beyond the hint one by one; a hint further behind than that is not used.
_HINT_REACH = 64
_THREADS = 16
_DELETED = ""
"""The commit of an entry that ends a branch; its log goes on if the branch is made again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefEntry:
    """One entry of a ref's log; `number` counts from 1, `nonce` tells two writers apart."""

    number: int
    commit: str
    time: str
    reason: str
    nonce: str


class Refs:
    """The refs of one store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def branches(self) -> dict[str, str]:
        """Branch name -> commit id, sorted by name."""
        return self._all(layout.HEADS)

    def tags(self) -> dict[str, str]:
        """Tag name -> commit id, sorted by name."""
        return self._all(layout.TAGS)

    def head(self, branch: str, *, after: int = 0) -> RefEntry | None:
        """The newest entry of a branch, or None if there is no such branch.

        `after` is an entry number that the log is known to have reached, which saves a request.
        """
        entry = self._newest(layout.HEADS, branch, hint=after)
        return entry if entry and entry.commit != _DELETED else None

    def history(self, branch: str) -> list[RefEntry]:
        """A branch's own log, oldest first: every commit it has ever pointed to.

        An entry whose `commit` is "" says that the branch was deleted then.
        """
        numbers = self._numbers(layout.HEADS, branch)
        with ThreadPoolExecutor(_THREADS) as threads:
            return list(threads.map(partial(self._read, layout.HEADS, branch), numbers))

    def logs(self) -> dict[str, list[RefEntry]]:
        """Every branch that there is or ever was -> its log."""
        return {name: self.history(name) for name in sorted(self._names(layout.HEADS, ""))}

    def advance(self, branch: str, *, expected: RefEntry | None, commit: str, reason: str) -> None:
        """Moves a branch from the entry its writer started from to a new commit.

        Raises:
            CommitConflictError: somebody else moved it first.
            CommitStateUnknownError: no answer; look with `maskmill log` whether it moved.
        """
        number = expected.number + 1 if expected else 1
        try:
            self._append(layout.HEADS, branch, number=number, commit=commit, reason=reason)
        except NameTakenError as error:
            raise CommitConflictError(
                branch=branch,
                expected=expected.commit if expected else None,
                found=_parse(error.found, branch, number).commit,
            ) from error
        # Only a hint: the branch has moved, whether this is written or not.
        with contextlib.suppress(StoreError):
            key = layout.newest_hint_path(layout.HEADS, branch)
            self.store.overwrite(key, str(number).encode())

    def create_branch(self, branch: str, commit: str) -> None:
        """Starts a branch. Raises RefError if it exists."""
        last = self._newest(layout.HEADS, branch)
        if last and last.commit != _DELETED:
            raise RefError(f"branch '{branch}' exists already; choose another name")
        self.advance(branch, expected=last, commit=commit, reason="branch")

    def delete_branch(self, branch: str) -> RefEntry:
        """Ends a branch with a last entry of its log; returns what its head was.

        Raises:
            RefError: there is no such branch.
            CommitConflictError: somebody moved it meanwhile.
        """
        entry = self.head(branch)
        if entry is None:
            raise RefError(self._unknown(branch))
        self.advance(branch, expected=entry, commit=_DELETED, reason="delete")
        return entry

    def create_tag(self, tag: str, commit: str) -> None:
        """Names a commit for ever. Raises RefError if the tag exists."""
        try:
            self._append(layout.TAGS, tag, number=1, commit=commit, reason="tag")
        except NameTakenError as error:
            found = _parse(error.found, tag, 1).commit
            raise RefError(
                f"tag '{tag}' exists already and names {found[:12]}; tags never move, "
                "choose another name"
            ) from error

    def resolve(self, text: str) -> str:
        """The commit id that a branch, a tag, an id or its beginning, or any of them `~n` means.

        `branch@{n}` is where a branch was n moves ago, by its own log.

        Raises:
            RefError: nothing has that name (the message names the nearest), or an id's beginning
                fits several objects.
        """
        if len(text) > _LONGEST_TEXT:
            raise RefError(f"a ref of {len(text)} characters is not possible; see 'maskmill log'")
        if match := _ANCESTOR.fullmatch(text):
            return self._ancestor(self.resolve(match["base"]), int(match["steps"]), text)
        if (match := _MOVES_AGO.fullmatch(text)) and _looks_like_name(match["branch"]):
            return self._moves_ago(match["branch"], int(match["moves"]), text)
        if _FULL_ID.fullmatch(text) and self.store.object_size(text) is not None:
            return text
        if _looks_like_name(text):
            for folder in (layout.HEADS, layout.TAGS):
                if (entry := self._newest(folder, text)) and entry.commit != _DELETED:
                    return entry.commit
        if found := self._by_prefix(text):
            return found
        raise RefError(self._unknown(text))

    def _by_prefix(self, text: str) -> str | None:
        if len(text) < _SHORTEST_ID:
            return None
        commits = [name for name in self.store.find_objects(text) if self._is_commit(name)]
        if len(commits) > 1:
            short = ", ".join(name[:12] for name in commits)
            raise RefError(f"'{text}' is the beginning of {short}; give more digits")
        return commits[0] if commits else None

    def _is_commit(self, object_id: str) -> bool:
        try:
            # The first byte tells images and tables apart without fetching hundreds of MiB.
            if self.store.read_range(object_id, start=0, num_bytes=1) != b"{":
                return False
            Commit.load(self.store, object_id)
        except ObjectDamagedError:
            return False
        return True

    def _ancestor(self, commit_id: str, steps: int, text: str) -> str:
        for _ in range(steps):
            parents = Commit.load(self.store, commit_id).parents
            if not parents:
                raise RefError(f"'{text}' goes back past the first commit")
            commit_id = parents[0]
        return commit_id

    def _moves_ago(self, branch: str, moves: int, text: str) -> str:
        last = self._newest(layout.HEADS, branch)
        if last is None:
            raise RefError(self._unknown(branch))
        if moves >= last.number:
            raise RefError(f"'{text}': the log of '{branch}' has only {last.number} entries")
        entry = self._read(layout.HEADS, branch, last.number - moves)
        if entry.commit == _DELETED:
            raise RefError(
                f"'{text}': branch '{branch}' was deleted then; go one move further back"
            )
        return entry.commit

    def _unknown(self, text: str) -> str:
        names = [*self.branches(), *self.tags()]
        near = difflib.get_close_matches(text, names, n=1, cutoff=0.0)
        hint = f"; the nearest is '{near[0]}'" if near else "; the store has no refs yet"
        return f"no branch, tag or commit '{text}' in {self.store.url}{hint}"

    def _append(self, folder: str, name: str, *, number: int, commit: str, reason: str) -> None:
        entry = {"commit": commit, "time": now(), "reason": reason, "nonce": uuid.uuid4().hex}
        key = layout.ref_entry_path(folder, name, number)
        try:
            self.store.create_if_absent(key, canonical_json({"number": number, **entry}))
        except WriteStateUnknownError as error:
            raise CommitStateUnknownError(
                f"{error}; run 'maskmill log' and repeat the command only if commit {commit[:12]} "
                "is not in it"
            ) from error

    def _all(self, folder: str) -> dict[str, str]:
        names = sorted(self._names(folder, ""))
        with ThreadPoolExecutor(_THREADS) as threads:
            entries = list(threads.map(partial(self._newest, folder), names))
        return {
            name: entry.commit
            for name, entry in zip(names, entries, strict=True)
            if entry and entry.commit != _DELETED
        }

    def _names(self, folder: str, prefix: str) -> list[str]:
        """Ref names may contain '/', so folders are walked until they hold numbers."""
        below = self.store.list_names(f"{folder}/{prefix}".rstrip("/"))
        found = [prefix.rstrip("/")] if any(_is_number(name) for name in below) else []
        for name in below:
            if not _is_number(name):
                found += self._names(folder, f"{prefix}{name}/")
        return found

    def _numbers(self, folder: str, name: str) -> list[int]:
        path = f"{folder}/{layout.check_ref_name(name)}"
        return [int(entry) for entry in self.store.list_names(path) if _is_number(entry)]

    def _newest(self, folder: str, name: str, *, hint: int = 0) -> RefEntry | None:
        """The last entry, from the hint on; the log is listed only where that does not lead to it.

        Entries follow each other without a gap, since a writer makes n + 1 only after seeing n.
        """
        found = None
        hint = hint or self._hint(folder, name)
        for number in range(hint, hint + _HINT_REACH) if hint else ():
            data = self.store.read_optional(layout.ref_entry_path(folder, name, number))
            if data is None:
                break
            found = _parse(data, name, number)
        else:
            found = None
        if found:
            return found
        numbers = self._numbers(folder, name)
        last = numbers[-1] if numbers else 0
        if last < hint <= last + _HINT_REACH:  # not a hint that is damaged itself
            raise ObjectDamagedError(
                f"entry {hint} of ref '{name}' is missing although it was written, so nobody knows "
                "where it points to; restore it from a copy, or, if it is right as it is, remove "
                f"{layout.newest_hint_path(folder, name)}"
            )
        return self._read(folder, name, last) if last else None

    def _hint(self, folder: str, name: str) -> int:
        """A number that the log had reached once; 0: nobody knows."""
        data = self.store.read_optional(layout.newest_hint_path(folder, name)) or b""
        return int(data) if data.isdigit() and len(data) <= layout.REF_DIGITS else 0

    def _read(self, folder: str, name: str, number: int) -> RefEntry:
        key = layout.ref_entry_path(folder, name, number)
        return _parse(self.store.read_optional(key) or b"", name, number)


def _parse(data: bytes, name: str, number: int) -> RefEntry:
    what = f"entry {number} of ref '{name}' is damaged"
    do = f"restore it from a copy, or run 'maskmill fsck', which names the last commit of '{name}'"
    try:
        entry = msgspec.json.decode(data, type=RefEntry)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ObjectDamagedError(f"{what} ({error}); {do}") from error
    if entry.number != number:
        raise ObjectDamagedError(f"{what} (it holds entry {entry.number}); {do}")
    if not _COMMIT_OR_DELETED.fullmatch(entry.commit):
        raise ObjectDamagedError(f"{what} (it names {entry.commit[:80]!r}, no commit); {do}")
    return entry


def _is_number(name: str) -> bool:
    return _ENTRY_NUMBER.fullmatch(name) is not None


def _looks_like_name(text: str) -> bool:
    try:
        layout.check_ref_name(text)
    except RefError:
        return False
    return True
