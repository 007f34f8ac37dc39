"""The one tree of errors; every message says what, expected, got, and what to do.

MaskmillError                     exit 1
├── InputError                    exit 3   a source, policy or job file is wrong
│   └── SourceSyntaxError                  ... with file, line and column
├── StoreError                    exit 4   the store is unreachable, full, or not suitable
│   ├── ObjectDamagedError                 an object's bytes do not match its digest
│   └── ObjectMissingError                 an object that should be there is not
├── RefError                      exit 5   a ref that does not exist, exists, or has a bad name
├── CommitError                   exit 6   a commit was refused
│   ├── CommitConflictError                somebody else moved the branch first
│   ├── MergeConflictError                 both sides changed the same cells
│   ├── CommitStateUnknownError            a timeout: it may or may not have happened
│   └── LedgerImbalanceError               inputs != kept + dropped + failed
├── WeightsError                  exit 7   weights not found, or with the wrong digest
├── JobError                      exit 8   a distributed job could not finish
│   └── JobInterruptedError       exit 130 Ctrl-C, SIGTERM; run the same command again to go on
└── OutcomeDiffersError           exit 9   a commit was made again and came out different
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class MaskmillError(Exception):
    """Root of everything maskmill raises on purpose; `exit_code` is the command line's."""

    exit_code: ClassVar[int] = 1


class InputError(MaskmillError):
    """A source, policy, configuration or argument is wrong."""

    exit_code = 3


class SourceSyntaxError(InputError):
    """A source file is not well-formed; carries `path`, `line` and `column` (both from 1)."""

    def __init__(self, *, path: str, line: int, column: int, detail: str) -> None:
        super().__init__(
            f"{path} is broken at line {line}, column {column}: {detail}; fix the file"
        )
        self.path, self.line, self.column = path, line, column


class StoreError(MaskmillError):
    """The store cannot be reached, is full, or lacks conditional writes."""

    exit_code = 4


class ObjectDamagedError(StoreError):
    """An object's bytes do not hash to its name."""


class ObjectMissingError(StoreError):
    """An object that a manifest or commit names is not in the store."""


class RefError(MaskmillError):
    """A ref does not exist, exists already, or has an impossible name."""

    exit_code = 5


class CommitError(MaskmillError):
    """A commit was refused."""

    exit_code = 6


class NothingToCommitError(CommitError):
    """The operation changed nothing; `commit_id` is the head that already holds its outcome."""

    def __init__(self, *, operation: str, branch: str, commit_id: str) -> None:
        super().__init__(
            f"nothing to commit: '{branch}' has the outcome of this {operation} already, in "
            f"commit {commit_id[:12]}"
        )
        self.commit_id = commit_id


class CommitConflictError(CommitError):
    """The branch moved meanwhile; carries `branch`, `expected` and `found` commit ids."""

    def __init__(self, *, branch: str, expected: str | None, found: str) -> None:
        was = expected[:12] if expected else "no commit"
        super().__init__(
            f"branch '{branch}' moved: expected {was}, found {found[:12] or 'it deleted'}; "
            f"run 'maskmill log --ref {branch}' and repeat the command"
        )
        self.branch, self.expected, self.found = branch, expected, found


class MergeConflictError(CommitError):
    """Both sides changed the same cells differently; `conflicts` are listed cell by cell."""

    def __init__(self, message: str, *, conflicts: Sequence[object]) -> None:
        super().__init__(message)
        self.conflicts = conflicts


class CommitStateUnknownError(CommitError):
    """The store did not answer in time: the ref may or may not have moved."""


class LedgerImbalanceError(CommitError):
    """A ledger row whose inputs are not kept + dropped + failed."""


class WeightsError(MaskmillError):
    """Weights were not found at any source, or do not have the pinned digest."""

    exit_code = 7


class JobError(MaskmillError):
    """A distributed job could not finish."""

    exit_code = 8


class JobInterruptedError(JobError):
    """The job was stopped by a signal; what was finished is in the store."""

    exit_code = 130


class OutcomeDiffersError(MaskmillError):
    """A commit was made again, and its contents came out different."""

    exit_code = 9
