"""Histories drawn with letters: a column for every line of development, as git draws them.

    *    a merge: its first parent goes on in its column, the others beside it
    |\\
    | *
    |/   two lines that run together: both come from the commit below
    *
"""

from __future__ import annotations

from collections.abc import Sequence

_Edge = tuple[int, int]
"""(column where it is, column where it goes)"""


class LogGraph:
    """Give it commits, children before parents; it remembers the open lines between them."""

    def __init__(self) -> None:
        self._lanes: list[str] = []

    def place(self, commit_id: str, parents: Sequence[str]) -> tuple[str, list[str]]:
        """The line with the commit's star, and the lines that lead from it to what comes next."""
        if commit_id not in self._lanes:
            self._lanes.append(commit_id)
        column = self._lanes.index(commit_id)
        star = " ".join("*" if n == column else "|" for n in range(len(self._lanes)))
        return star, self._lead_on(column, list(dict.fromkeys(parents)))

    def _lead_on(self, column: int, parents: list[str]) -> list[str]:
        """Draws to the right first, to make room, and then to the left, to close gaps."""
        before = self._lanes
        # A first parent that is awaited further right goes on here, and that line comes over.
        here = [
            parent
            for number, parent in enumerate(parents)
            if parent not in before or (number == 0 and before.index(parent) > column)
        ]
        # Without any the column stays open for as long as its lines need to leave it.
        wide = [*before[:column], *(here or [""]), *before[column + 1 :]]
        shift = len(wide) - len(before)
        place = {lane: n + shift * (n > column) for n, lane in enumerate(before) if n != column}
        place |= {lane: column + n for n, lane in enumerate(here)}
        to_right = [(n, n + shift * (n > column)) for n in range(len(before)) if n != column]
        to_right += [(column, max(column, place[parent])) for parent in parents]
        self._lanes = list(dict.fromkeys(lane for lane in wide if lane))
        end = {lane: number for number, lane in enumerate(self._lanes)}
        to_left = [(number, end[lane]) for number, lane in enumerate(wide) if lane]
        to_left += [(column, end[parent]) for parent in parents if place[parent] < column]
        return [*_drawn(to_right), *_drawn(to_left)]


def _drawn(edges: Sequence[_Edge]) -> list[str]:
    """One line a step of a column, until every edge is where it goes."""
    lines = []
    moving = dict.fromkeys(edges)
    while any(at != to for at, to in moving):
        marks: dict[int, str] = {}
        for at, to in moving:
            if at == to:
                marks[2 * at] = "|"
            else:
                marks[2 * at + (1 if to > at else -1)] = "\\" if to > at else "/"
        lines.append("".join(marks.get(n, " ") for n in range(max(marks) + 1)))
        moving = dict.fromkeys((at + (to > at) - (to < at), to) for at, to in moving)
    return lines
