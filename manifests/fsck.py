"""Can this store be trusted? `fsck` looks at everything that refs reach and names what is wrong.

quick: every object is there with its size. full: and all of its bytes and rows are what they should
be. An object whose bytes do not hash to its name is moved to the quarantine, so that its step can
make it again; everything else is only named. See manifests.consequences for what is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from manifests import layout
from manifests.byte_progress import ByteListener, Silence
from manifests.consequences import MOVE_ASIDE
from manifests.errors import ObjectDamagedError
from manifests.findings import MISSING, QUARANTINED_KINDS, Finding
from manifests.fsck_explain import explain
from manifests.fsck_full import check_contents, stale_cells
from manifests.fsck_images import ImageCheck
from manifests.fsck_quick import check_sizes
from manifests.fsck_refs import RefLog, find_log, read_logs
from manifests.fsck_stock import take_stock
from manifests.quarantine import QuarantineNote, move_aside, read_notes
from manifests.refs import Refs
from manifests.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class FsckOptions:
    """How to look.

    Attributes:
        full: also read every byte; otherwise only sizes are asked for.
        ref: only what this branch, tag or commit reaches; None: all refs and their logs.
        quarantine: move objects aside whose bytes are not those that they stand for.
        check_image: decodes an image, which this package cannot do; None: images are only hashed.
    """

    full: bool = False
    ref: str | None = None
    quarantine: bool = True
    check_image: ImageCheck | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FsckReport:
    """What was looked at, and what was found, the worst first."""

    store: str
    full: bool
    refs: Mapping[str, str]
    num_commits: int
    num_cells: int
    num_objects: int
    num_bytes: int
    findings: tuple[Finding, ...]

    @property
    def is_sound(self) -> bool:
        """Whether nothing is damaged; warnings and notes do not count."""
        return not self.num_damaged

    @property
    def num_damaged(self) -> int:
        """Findings of damage."""
        return sum(finding.severity == "damage" for finding in self.findings)


def fsck(
    store: Store, options: FsckOptions = FsckOptions(), *, listener: ByteListener | None = None
) -> FsckReport:
    """Looks at a store.

    Raises:
        StoreError: there is no store, a newer maskmill wrote it, or it does not answer: that is no
            damage, and nothing is said about what was seen until then.
        RefError: there is no such ref.
    """
    listener = listener or Silence()
    marker = list(_check_marker(store))
    logs, heads = _refs(store, options.ref)
    roots = {*heads.values()} | {entry.commit for log in logs for entry in log.entries}
    stock = take_stock(store, roots - {""}, whole=options.full, listener=listener)
    flaws = [*stock.flaws, *check_sizes(store, stock, whole=options.full, listener=listener)]
    if options.full:
        unreadable = {flaw.object_id for flaw in flaws}
        flaws += check_contents(
            store, stock, heads, unreadable, check_image=options.check_image, listener=listener
        )
        flaws += stale_cells(stock, heads)
    findings = [*marker, *explain(flaws, stock, heads, logs)]
    settle = _quarantined if options.quarantine else _left
    findings = [settle(store, finding) for finding in findings]
    sizes = {cell.object_id: cell.num_bytes for cell in stock.cells}
    return FsckReport(
        store=store.url,
        full=options.full,
        refs=heads,
        num_commits=len(stock.commits),
        num_cells=len(stock.cells),
        num_objects=len(sizes) + len(stock.commits) + len(stock.of_manifest)
        + len(stock.hanging()),
        num_bytes=sum(sizes.values()),
        findings=tuple(_with_notes(store, findings)),
    )  # fmt: skip


def _check_marker(store: Store) -> Iterator[Finding]:
    """The file without which no command opens the store."""
    how = ""
    if store.read_optional(layout.MARKER) is None and read_logs(store):
        how = "is missing"
    else:
        try:
            store.check_is_store()
        except ObjectDamagedError:
            how = "is damaged"
    if how:
        yield Finding(
            severity="damage", kind="marker", what=f"{layout.MARKER} {how}",
            consequence="no command opens the store",
            remedy='restore it from a copy, or write {"format":1} into it',
        )  # fmt: skip


def _refs(store: Store, ref: str | None) -> tuple[list[RefLog], dict[str, str]]:
    """Logs to look at, and ref -> commit id."""
    logs = read_logs(store)
    if ref is not None:
        log = find_log(logs, ref)
        if log is None:
            label = f"commit {ref[:12]}" if layout.is_object_id(ref) else ref
            return [], {label: Refs(store).resolve(ref)}
        logs = [log]
    heads = {log.label: log.head or log.last_known for log in logs}
    return logs, {label: commit for label, commit in heads.items() if commit}


def _quarantined(store: Store, finding: Finding) -> Finding:
    if finding.kind not in QUARANTINED_KINDS or finding.object_id is None:
        return finding
    note = QuarantineNote(
        object_id=finding.object_id, why=finding.sentence, cells=finding.cells, refs=finding.refs,
        commits=finding.commits,
    )  # fmt: skip
    return replace(finding, quarantine=move_aside(store, note))


def _left(store: Store, finding: Finding) -> Finding:
    """Without being moved, a damaged object is not made again by its step."""
    if finding.kind not in QUARANTINED_KINDS:
        return finding
    return replace(finding, remedy=f"{MOVE_ASIDE}{finding.remedy}")


def _with_notes(store: Store, findings: Sequence[Finding]) -> Iterator[Finding]:
    """Findings whose bytes an earlier fsck has moved, and objects that have come back since."""
    notes = dict(read_notes(store))
    moved = {note.object_id: path for path, note in notes.items()}
    for finding in findings:
        path = moved.get(finding.object_id or "")
        yield replace(finding, quarantine=path) if path and finding.kind == MISSING else finding
    bad = {finding.object_id for finding in findings}
    for path, note in notes.items():
        if note.object_id not in bad and store.object_size(note.object_id) is not None:
            yield Finding(
                severity="note", kind="healed", object_id=note.object_id, cells=note.cells,
                what=f"object {note.object_id[:12]}, found damaged on {note.time}, is whole again",
                consequence=f"its damaged bytes are still in {path}",
                remedy="delete them if nobody wants to look at them",
            )  # fmt: skip
