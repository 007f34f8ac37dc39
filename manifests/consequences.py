"""What each object of a store is for: what cannot be done without it, and what brings it back.

Every command that meets a missing or damaged object says the sentence that is made here, and so
does `fsck`, which knows in addition which refs need the object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from manifests import schemas
from manifests.errors import ObjectDamagedError, ObjectMissingError
from manifests.models import STATE, WEIGHTS

RESTORE = "restore it from a copy"
MOVE_ASIDE = "run 'maskmill fsck --full', which moves it aside, then "
"""Left in its place, a damaged object would be taken for work that is done."""
_AFTER_THE_FACT = f"; {RESTORE}"
_MASKS = schemas.masks_layer("")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What it means that an object cannot be read; the parts of a sentence.

    Attributes:
        what: the object in a person's words: "shard 3f9a41c2d07e of masks/sam_vit_t".
        object_id: its name in the store.
        cannot: continues "<commits or refs> cannot": "be exported or filtered".
        remedy: an imperative: "run 'maskmill label sam_vit_t' to draw it again".
    """

    what: str
    object_id: str
    cannot: str
    remedy: str

    def sentence(self, how: str, who: str) -> str:
        """`how` is "is missing (object ...)" or "is damaged (...)", `who` is who needs it."""
        return f"{self.what} {how}: {who} cannot {self.cannot}; {self.remedy}"


def cell_lost(*, shard: str, layer: str, object_id: str) -> Loss:
    """One shard of one layer."""
    return Loss(
        what=f"shard {shard[:12]} of {layer}",
        object_id=object_id,
        cannot=_cannot(layer),
        remedy=remedy_of(layer),
    )


def commit_lost(commit_id: str) -> Loss:
    """A commit's own JSON."""
    return Loss(
        what=f"commit {commit_id[:12]}",
        object_id=commit_id,
        cannot="be opened, and the history behind it cannot be read",
        remedy=f"{RESTORE}, or run 'maskmill fsck', which names the newest commit that is whole",
    )


def manifest_lost(object_id: str) -> Loss:
    """The table that says which object holds which cell."""
    return Loss(
        what=f"manifest {object_id[:12]}",
        object_id=object_id,
        cannot="be opened: nobody knows which objects are its cells",
        remedy=f"{RESTORE}, or run 'maskmill fsck', which names the newest commit that is whole",
    )


def rejects_lost(object_id: str) -> Loss:
    """The table of what an ingest did not keep."""
    return Loss(
        what=f"the table of rejects {object_id[:12]}",
        object_id=object_id,
        cannot="say which images and boxes an ingest did not keep",
        remedy=f"{RESTORE}, or repeat that ingest on a branch that starts before it",
    )


def removed_lost(object_id: str) -> Loss:
    """The table of images that were taken down."""
    return Loss(
        what=f"the table of removed images {object_id[:12]}",
        object_id=object_id,
        cannot="say which images were taken down, nor keep them from coming back",
        remedy=RESTORE,
    )


def attached_lost(role: str, object_id: str) -> Loss:
    """The calibrator of a `calibrate` step or the table of gold rows that it came from; the weights
    of a student's checkpoint, or what its training goes on from."""
    cannot, again = _ATTACHED.get(role, _CALIBRATED)
    return Loss(
        what=f"the {role} {object_id[:12]}",
        object_id=object_id,
        cannot=cannot,
        remedy=f"{RESTORE}, or {again}",
    )


def remedy_of(layer: str, *, branch: str = "") -> str:
    """What makes a cell of a layer anew, on a branch if one is named."""
    there = f" --branch {branch}" if branch else ""
    if layer == schemas.VERDICTS:
        return f"run 'maskmill filter{there}' with the same policy to judge it again"
    if layer == schemas.CONFIDENCE:
        return f"run 'maskmill calibrate{there}' to compute it again"
    if layer == schemas.AGREEMENT:
        return f"run 'maskmill agree{there}' to compute it again"
    if layer.startswith(_MASKS) and layer != schemas.MASKS_HUMAN:
        return f"run 'maskmill label {layer.removeprefix(_MASKS)}{there}' to draw it again"
    if layer in _INGESTED:
        return f"{RESTORE}, or repeat its ingest on a branch that starts before it"
    return f"{RESTORE}, or run the step that makes {layer} again"


def how_lost(error: ObjectMissingError | ObjectDamagedError, object_id: str) -> str:
    """`is missing (object ...)`, or `is damaged (...)` with what was found."""
    if isinstance(error, ObjectMissingError):
        return f"is missing (object {object_id[:12]})"
    found = str(error).removesuffix(_AFTER_THE_FACT).replace(" is damaged: ", ": ", 1)
    return f"is damaged ({found})"


@contextmanager
def telling(
    loss: Loss, *, who: str, why_gone: Callable[[], str | None] = lambda: None
) -> Iterator[None]:
    """Errors about an object say what it was, what cannot be done without it, and what to do.

    Args:
        loss: the object that is read in the block.
        who: who needs it: "commit 3f9a41c2d07e".
        why_gone: asked when the object is missing; a sentence if it was meant to go.

    Raises:
        ObjectMissingError, ObjectDamagedError: as the block did, with that sentence.
    """
    try:
        yield
    except ObjectMissingError as error:
        meant = why_gone()
        text = f"{meant}; {who} cannot {loss.cannot} any more" if meant else ""
        raise ObjectMissingError(
            text or loss.sentence(how_lost(error, loss.object_id), who)
        ) from error
    except ObjectDamagedError as error:
        first = replace(loss, remedy=f"{MOVE_ASIDE}{loss.remedy}")
        raise ObjectDamagedError(first.sentence(how_lost(error, loss.object_id), who)) from error


def listed(names: Sequence[str], *, limit: int = 4) -> str:
    """`a`, `a and b`, `a, b and c`, `a, b, c and 7 more`."""
    if len(names) > limit:
        return f"{', '.join(names[: limit - 1])} and {len(names) - limit + 1} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


_CALIBRATED = (
    "say where their confidence comes from, nor be certified", "run 'maskmill calibrate' again",
)  # fmt: skip
_OLDER = "use an older checkpoint, such as models/NAME@{1}, or run 'maskmill train' again"
_ATTACHED = {
    WEIGHTS: ("be used as students, nor trained on", _OLDER),
    STATE: ("be trained on", _OLDER),
}
_INGESTED = (schemas.IMAGES, schemas.IMAGE_INDEX, schemas.BOXES, schemas.MASKS_HUMAN)
_CANNOT = {
    schemas.IMAGES: "be labelled, shown in a report or exported with its images",
    schemas.IMAGE_INDEX: "be labelled, exported or ingested into",
    schemas.BOXES: "be labelled, filtered or exported",
    schemas.MASKS_HUMAN: "be filtered, or exported with the human masks",
    schemas.VERDICTS: "be exported or reported",
}


def _cannot(layer: str) -> str:
    is_drawn = layer.startswith(_MASKS)
    return _CANNOT.get(layer, "be filtered or exported" if is_drawn else "be read whole")
