"""What `fsck` finds: raw flaws of single objects, and findings that say what they mean for refs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["damage", "warning", "note"]
"""damage: something cannot be read or relied on; warning: worth a look; note: as it was meant."""

MISSING = "missing"
WRONG_SIZE = "wrong_size"
WRONG_BYTES = "wrong_bytes"
QUARANTINED_KINDS = (WRONG_SIZE, WRONG_BYTES)
"""Kinds of damage in which the bytes under a name are not those that it stands for."""
LOST_KINDS = (MISSING, *QUARANTINED_KINDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class CellName:
    """One shard of one layer."""

    shard: str
    layer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaw:
    """Something wrong with one object, whoever uses it.

    Attributes:
        kind: a word for programs: LOST_KINDS, `misaligned`, `wrong_area` ...
        how: continues the object's name: "has 3 rows, but its boxes have 4".
        object_id: the object.
        cell: the cell in which it is wrong; None: wherever the object is used.
    """

    kind: str
    how: str
    object_id: str
    cell: CellName | None = None
    severity: Severity = "damage"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A flaw, and what it means.

    Attributes:
        kind: as in Flaw; `ref_entry` and `marker` have no object.
        what: "shard 3f9a41c2d07e of masks/sam_vit_t is missing (object 81c0d27e55aa)".
        cells: the cells that the object is.
        refs: branches and tags that point to a commit which needs it: "main", "tag release-1".
        commits: ids of some commits that need it, newest first; `num_commits` counts all.
        consequence: what cannot be done.
        remedy: what to do.
        quarantine: path in the store to which the damaged bytes were moved, or None.
    """

    severity: Severity
    kind: str
    what: str
    consequence: str
    remedy: str
    object_id: str | None = None
    cells: tuple[CellName, ...] = ()
    refs: tuple[str, ...] = ()
    commits: tuple[str, ...] = ()
    num_commits: int = 0
    quarantine: str | None = None

    @property
    def sentence(self) -> str:
        """All of it for people."""
        moved = (
            f" (its bytes are kept in {self.quarantine.partition('/')[0]}/)"
            if self.quarantine
            else ""
        )
        return f"{self.what}{moved}: {self.consequence}; {self.remedy}"
