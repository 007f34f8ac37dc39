"""From flaws of objects to findings: what each means for which refs, and what to do about it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from manifests import layout
from manifests.consequences import (
    RESTORE,
    Loss,
    attached_lost,
    cell_lost,
    commit_lost,
    listed,
    manifest_lost,
    rejects_lost,
    remedy_of,
    removed_lost,
)
from manifests.findings import LOST_KINDS, MISSING, Finding, Flaw, Severity
from manifests.fsck_refs import BadEntry, RefLog
from manifests.fsck_stock import CommitFacts, Stock
from manifests.fsck_uses import UseFinder, Uses
from manifests.schemas import (
    AGREEMENT,
    CONFIDENCE,
    IMAGES,
    MASKS_HUMAN,
    VERDICTS,
    masks_layer,
)

_MAX_COMMITS = 10
_SEVERITIES: Sequence[Severity] = ("damage", "warning", "note")
_HANGING = {"rejects": rejects_lost, "removed": removed_lost}
_UNREADABLE_KINDS = ("no_commit", "no_manifest", "impossible_id")
_MADE_BY = {
    "filter": VERDICTS, "label": masks_layer(""), "agree": AGREEMENT, "calibrate": CONFIDENCE,
}  # fmt: skip


def explain(
    flaws: Iterable[Flaw], stock: Stock, heads: Mapping[str, str], logs: Collection[RefLog]
) -> list[Finding]:
    """One finding for each flaw, and for each bad entry of a log; the worst first.

    Args:
        heads: ref -> commit id.
    """
    explainer = _Explainer(stock, heads, logs)
    found = [*explainer.entries(), *explainer.findings(list(dict.fromkeys(flaws)))]
    return sorted(found, key=lambda finding: _SEVERITIES.index(finding.severity))


class _Explainer:
    """Knows the stock and who uses what."""

    def __init__(self, stock: Stock, heads: Mapping[str, str], logs: Collection[RefLog]) -> None:
        self._stock, self._heads, self._logs = stock, heads, logs
        self._finder = UseFinder(stock, heads, logs)

    def findings(self, flaws: Sequence[Flaw]) -> Iterator[Finding]:
        """For flaws of objects."""
        others = {flaw.object_id: self._finder.of_other(flaw.object_id) for flaw in flaws}
        cells = self._finder.of_cells([id_ for id_, uses in others.items() if uses is None])
        for flaw in flaws:
            uses = others[flaw.object_id] or cells.get(flaw.object_id)
            if uses is None:
                continue  # the object of a cell that no commit lists: nobody is harmed
            yield self._finding(flaw, uses)

    def entries(self) -> Iterator[Finding]:
        """For entries of logs that are missing or damaged."""
        for log in self._logs:
            for entry in log.bad:
                yield self._entry(log, entry)

    # -- objects ---------------------------------------------------------------------------------

    def _finding(self, flaw: Flaw, uses: Uses) -> Finding:
        loss = self._loss(flaw, uses)
        finding = Finding(
            severity=flaw.severity,
            kind=flaw.kind,
            what=f"{loss.what} {flaw.how}",
            consequence=f"{self._who(uses)} cannot {loss.cannot}",
            remedy=loss.remedy,
            object_id=flaw.object_id,
            cells=(flaw.cell,) if flaw.cell else uses.cells,
            refs=uses.heads,
            commits=tuple(commit.commit_id for commit in uses.commits[:_MAX_COMMITS]),
            num_commits=len(uses.commits),
        )
        if flaw.kind == MISSING and not uses.is_needed:
            return replace(finding, severity="note", remedy=(
                "'maskmill gc' deletes what no ref has pointed to for some time, so nothing is to "
                "be done unless it was needed"
            ))  # fmt: skip
        if flaw.kind == MISSING and self._is_taken_down(uses):
            return self._taken_down(finding, uses)
        return finding

    def _loss(self, flaw: Flaw, uses: Uses) -> Loss:
        """The words for a flaw: of an object that is lost, of its content, or of its place."""
        loss = self._whole_loss(flaw, uses)
        if flaw.kind in (*LOST_KINDS, *_UNREADABLE_KINDS):
            return loss
        if flaw.kind == "stale" and flaw.cell:
            remedy = remedy_of(flaw.cell.layer, branch=self._branch(uses) or "")
        elif flaw.severity == "warning":
            remedy = "use the maskmill version that wrote it"
        else:
            remedy = self._take_back(flaw, uses)
        return replace(loss, cannot="be trusted in this", remedy=remedy)

    def _whole_loss(self, flaw: Flaw, uses: Uses) -> Loss:
        object_id = flaw.object_id
        if uses.role == "commit":
            return self._commit_loss(object_id, uses)
        if uses.role == "manifest":
            return replace(manifest_lost(object_id), remedy=self._go_back(uses))
        if uses.role != "cell":
            return _HANGING.get(uses.role, partial(attached_lost, uses.role))(object_id)
        cells = (flaw.cell,) if flaw.cell else uses.cells
        loss = cell_lost(shard=cells[0].shard, layer=cells[0].layer, object_id=object_id)
        others = len(cells) - 1
        more = f" (and {others:,} more cell{'s' if others > 1 else ''})" if others else ""
        remedy = self._make_again(object_id, cells[0].layer, uses)
        return replace(loss, what=f"{loss.what}{more}", remedy=remedy)

    def _commit_loss(self, commit_id: str, uses: Uses) -> Loss:
        loss = commit_lost(commit_id)
        if uses.heads:
            return replace(loss, cannot="be opened", remedy=self._go_back(uses))
        child = uses.commits[-1].commit_id if uses.commits else commit_id
        return replace(
            loss, cannot=f"show their history further back than {child[:12]}", remedy=RESTORE
        )

    def _who(self, uses: Uses) -> str:
        if uses.heads:
            return listed(uses.heads)
        if not uses.histories:
            return listed(uses.logs) or "nothing"
        if uses.role == "commit":
            return listed(uses.histories)
        newest, *others = uses.commits
        more = f" and {len(others)} more" if others else ""
        return f"commit {newest.commit_id[:12]}{more} in the history of {listed(uses.histories)}"

    def _make_again(self, object_id: str, layer: str, uses: Uses) -> str:
        """What brings a cell's object back under its own name."""
        first = self._introduced(object_id, uses)
        if first is None:
            return remedy_of(layer)
        made = _MADE_BY.get(first.operation)
        is_of_layer = made is not None and layer.startswith(made) and layer != MASKS_HUMAN
        branch = self._branch(uses)
        if is_of_layer and branch is not None:
            return remedy_of(layer, branch=branch)
        start = f"'maskmill branch repair {first.parents[0][:12]}'" if first.parents else ""
        if is_of_layer and start:
            return f"run {start}, then {remedy_of(layer, branch='repair').removeprefix('run ')}"
        if first.operation == "ingest" and start:
            return (
                f"{RESTORE}, or run {start} and repeat the ingest of commit "
                f"{first.commit_id[:12]} with '--branch repair'"
            )
        return f"{RESTORE}, or repeat the {first.operation} of commit {first.commit_id[:12]}"

    def _take_back(self, flaw: Flaw, uses: Uses) -> str:
        """For content that was written wrong: repeating the step would find it done."""
        made = self._stock.commits.get(flaw.object_id) or self._introduced(flaw.object_id, uses)
        if made is None:
            return "report it, and do not rely on it"
        return (
            f"the {made.operation} of commit {made.commit_id[:12]} wrote it so: report it, and "
            f"take that back with 'maskmill revert {made.commit_id[:12]}'"
        )

    def _introduced(self, object_id: str, uses: Uses) -> CommitFacts | None:
        """The oldest commit that has the object while none of its parents has."""
        users = {commit.commit_id for commit in uses.commits}
        fresh = [commit for commit in uses.commits if users.isdisjoint(commit.parents)]
        return min(fresh, key=lambda commit: (commit.time, commit.commit_id), default=None)

    def _branch(self, uses: Uses) -> str | None:
        """The first branch that needs it, as `--branch` wants it: "" for main; None: no branch."""
        branches = {log.label for log in self._logs if log.folder == layout.HEADS}
        mine = [ref for ref in uses.heads if ref in branches]
        return None if not mine else "" if "main" in mine else mine[0]

    # -- going back ------------------------------------------------------------------------------

    def _go_back(self, uses: Uses) -> str:
        """The newest commit that a ref which cannot be opened may be put to."""
        for ref in uses.heads:
            newest = self._newest_whole(ref)
            if newest is None:
                continue
            log = next((log for log in self._logs if log.label == ref), None)
            if log and log.folder == layout.HEADS:
                there = "" if ref == "main" else f" --branch {ref}"
                return (
                    f"{RESTORE}, or put {ref} back to the newest commit that can be read with "
                    f"'maskmill reset {newest[:12]}{there}'"
                )
            return f"{RESTORE}, or use {newest[:12]}, the newest commit behind it that can be read"
        return RESTORE

    def _newest_whole(self, ref: str) -> str | None:
        """By the log of a branch, or else by what is behind its head."""
        for log in self._logs:
            if log.label == ref:
                for entry in reversed(log.entries):
                    if self._is_whole(entry.commit):
                        return entry.commit
        behind = [
            commit
            for commit in self._stock.commits.values()
            if ref in self._finder.refs_with(commit.commit_id) and self._is_whole(commit.commit_id)
        ]
        newest = max(behind, key=lambda commit: commit.time, default=None)
        return newest.commit_id if newest else None

    def _is_whole(self, commit_id: str) -> bool:
        commit = self._stock.commits.get(commit_id)
        return commit is not None and commit.manifest in self._stock.of_manifest

    # -- takedowns and logs ----------------------------------------------------------------------

    def _is_taken_down(self, uses: Uses) -> bool:
        return bool(uses.cells) and all(
            cell.layer == IMAGES and self._stock.removals.explain(cell.shard) for cell in uses.cells
        )

    def _taken_down(self, finding: Finding, uses: Uses) -> Finding:
        why = self._stock.removals.explain(uses.cells[0].shard) or finding.what
        remedy = "nothing is to be done"
        return replace(finding, severity="note", kind="taken_down", what=why, remedy=remedy)

    def _entry(self, log: RefLog, entry: BadEntry) -> Finding:
        path = layout.ref_entry_path(log.folder, log.name, entry.number)
        newest = self._newest_whole(log.label)
        if entry.number < log.newest and not _reaches_end(log, entry):
            consequence = f"{log.label} cannot show where it was then; its head is not touched"
            remedy = f"restore {path} from a copy"
        else:
            consequence = f"{log.label} cannot be opened"
            remedy = f"restore {path} from a copy"
            if newest:
                remedy += (
                    f", or go on from {newest[:12]}, the newest commit that its log still names, "
                    f"with 'maskmill {_new_name(log)} NAME {newest[:12]}'"
                )
        return Finding(
            severity="damage", kind="ref_entry", refs=(log.label,), remedy=remedy,
            what=f"entry {entry.number} of {log.label} {entry.how}", consequence=consequence,
        )  # fmt: skip


def _new_name(log: RefLog) -> str:
    return "branch" if log.folder == layout.HEADS else "tag"


def _reaches_end(log: RefLog, bad: BadEntry) -> bool:
    """Whether nothing that can be read comes after a bad entry."""
    return not any(entry.number > bad.number for entry in log.entries)
