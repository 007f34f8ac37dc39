"""What became of the verdicts on the boxes of two shards, and why."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests import schemas
from manifests.diff_result import (
    DROPPED,
    JUDGED,
    KEPT,
    OTHER_MASK,
    OTHER_REASON,
    UNJUDGED,
)
from manifests.diff_rows import AlignedPair
from manifests.diff_side import Ints, Side
from manifests.diff_sums import VERDICT_EVENTS, filled
from manifests.kept import UNEXPLAINED

_COLUMNS = ["keep", "reason", "teacher", "candidate"]
_PREFIX = schemas.masks_layer("")


@dataclass(frozen=True, slots=True, kw_only=True)
class FlippedRows:
    """Boxes of both sides whose verdict is not what it was: [M] rows, and their VERDICT_EVENTS."""

    before: Ints
    after: Ints
    events: pa.Table


@dataclass(frozen=True, slots=True, kw_only=True)
class _States:
    """[N] what each row's verdict is; nulls where there is none."""

    state: pa.Array
    teacher: pa.Array
    candidate: pa.Array


def verdict_events(aligned: AlignedPair) -> tuple[pa.Table, FlippedRows]:
    """VERDICT_EVENTS of boxes that one side has, and those of boxes that both have.

    Raises:
        ObjectMissingError, ObjectDamagedError: `verdicts` that changed cannot be read.
    """
    rows = aligned.rows
    before, after = _states(aligned.before), _states(aligned.after)
    gone, new = _taken(before, rows.only_before), _taken(after, rows.only_after)
    one_sided = pa.concat_tables(
        [
            _events(aligned.categories_before(rows.only_before), gone, _none(gone)),
            _events(aligned.categories_after(rows.only_after), _none(new), new),
        ]
    )
    one_sided = one_sided.filter(pc.is_valid(one_sided["kind"]))
    old, now = _taken(before, rows.before), _taken(after, rows.after)
    flipped = np.flatnonzero(_differ(old, now))
    rows_after = rows.after[flipped]
    table = _events(
        aligned.categories_after(rows_after), _taken(old, flipped), _taken(now, flipped)
    )
    return one_sided, FlippedRows(before=rows.before[flipped], after=rows_after, events=table)


def _states(side: Side | None) -> _States:
    if side is None or side.cell(schemas.VERDICTS) is None:
        size = side.num_boxes if side else 0
        nobody = pa.nulls(size, pa.string())
        return _States(state=nobody, teacher=nobody, candidate=pa.nulls(size, pa.int16()))
    verdicts = side.read_aligned(schemas.VERDICTS, _COLUMNS).combine_chunks()
    keep, reason, teacher, candidate = (_column(verdicts, name) for name in _COLUMNS)
    # A verdict names a layer, with or without its `masks/`.
    short = pc.utf8_slice_codeunits(teacher, len(_PREFIX))
    return _States(
        state=pc.if_else(keep, KEPT, pc.coalesce(reason, UNEXPLAINED)),
        teacher=pc.if_else(pc.starts_with(teacher, _PREFIX), short, teacher),
        candidate=candidate,
    )


def _column(table: pa.Table, name: str) -> pa.Array:
    return table[name].combine_chunks()


def _taken(states: _States, rows: Ints) -> _States:
    if len(rows) == len(states.state) and np.array_equal(rows, np.arange(len(rows))):
        return states
    chosen = pa.array(rows)
    return _States(
        state=states.state.take(chosen),
        teacher=states.teacher.take(chosen),
        candidate=states.candidate.take(chosen),
    )


def _none(like: _States) -> _States:
    nobody = pa.nulls(len(like.state), pa.string())
    return _States(state=nobody, teacher=nobody, candidate=like.candidate)


def _differ(old: _States, now: _States) -> pa.Array:
    """[N] another state; or kept as before, but with another mask."""
    both_kept = pc.and_(_is(old.state, KEPT), _is(now.state, KEPT))
    is_other_mask = pc.or_(
        pc.fill_null(pc.not_equal(old.teacher, now.teacher), True),
        pc.fill_null(pc.not_equal(old.candidate, now.candidate), True),
    )
    is_other_state = pc.not_equal(pc.fill_null(old.state, ""), pc.fill_null(now.state, ""))
    return pc.or_(is_other_state, pc.and_(both_kept, is_other_mask))


def _is(states: pa.Array, state: str) -> pa.Array:
    return pc.fill_null(pc.equal(states, state), False)


def _events(categories: pa.Array, old: _States, now: _States) -> pa.Table:
    """A row each; `kind` is null where there is no verdict on either side."""
    was_kept, is_kept = _is(old.state, KEPT), _is(now.state, KEPT)
    had, has = pc.is_valid(old.state), pc.is_valid(now.state)
    kind = pc.case_when(
        pc.make_struct(
            pc.and_(had, pc.invert(has)), pc.and_(has, pc.invert(had)), pc.and_(was_kept, is_kept),
            was_kept, is_kept, had,
        ),
        UNJUDGED, JUDGED, OTHER_MASK, DROPPED, KEPT, OTHER_REASON,
    )  # fmt: skip
    return filled(
        VERDICT_EVENTS, len(categories), category=categories, kind=kind, before=old.state,
        after=now.state, teacher_before=old.teacher, teacher_after=now.teacher,
    )  # fmt: skip
