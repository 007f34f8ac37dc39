"""How `maskmill status` says what a ref has and what is missing."""

from __future__ import annotations

from manifests.cli_log import indented
from manifests.console import print_table, say
from manifests.status import Status
from manifests.status_records import CategoryStatus, LayerStatus

_MOST_CATEGORIES = 20
_COUNTED = ("ok", "skipped", "failed", "absent", "pending", "compared", "scored", "kept")


def print_status(found: Status, *, ref: str) -> None:
    """Sizes, a table of layers, gold, and what to do."""
    notes = [
        f"{count:,} {name}"
        for count, name in (
            (found.num_quarantined, "quarantined"),
            (found.num_removed, "taken down"),
        )
        if count
    ]
    images = _count(found.num_images, "image") + (f" ({', '.join(notes)})" if notes else "")
    boxes, shards = _count(found.num_boxes, "box", "es"), _count(found.num_shards, "shard")
    say(f"{ref} at {found.commit_id[:12]}: {images}, {boxes}, {shards}")
    if found.layers:
        _print_layers(found)
    if found.categories:
        _print_gold(found.categories)
    if not found.todo:
        say("\nnothing is missing")
        return
    say("\nto do")
    for todo in found.todo:
        say(indented(f"{todo.layer}: {todo.what}"))
        if todo.command:
            say(f"        {todo.command}")


def _print_layers(found: Status) -> None:
    rows = [_cells(layer, found.num_shards) for layer in found.layers]
    names = ("layer", "shards", "rows", *_COUNTED, "dropped", "stale", "lacking")
    used = [n for n in range(len(names)) if n < 3 or any(row[n] for row in rows)]
    print_table(
        "", [names[n] for n in used], [[row[n] for n in used] for row in rows], right=names[1:]
    )


def _cells(layer: LayerStatus, num_shards: int) -> list[object]:
    counts = layer.counts
    dropped = layer.num_rows - counts["kept"] if "kept" in counts else None
    return [
        layer.layer, f"{layer.num_cells:,}/{num_shards:,}", layer.num_rows,
        *(counts.get(name) for name in _COUNTED), dropped or None,
        layer.num_stale_rows or None, layer.num_lacking_rows or None,
    ]  # fmt: skip


def _print_gold(categories: tuple[CategoryStatus, ...]) -> None:
    without = [row for row in categories if not row.num_gold]
    say(
        f"\ngold: {len(categories) - len(without):,} of {len(categories):,} categories have human "
        "masks"
    )
    if without and len(without) < len(categories):
        shown = [f"{row.category} ({row.num_boxes:,})" for row in without[:_MOST_CATEGORIES]]
        more = len(without) - len(shown)
        say(indented("without: " + ", ".join(shown) + (f" and {more:,} more" if more else "")))
    some = [f"{row.category} {row.num_gold:,}" for row in categories if row.num_gold]
    if some:
        fewest = some[:_MOST_CATEGORIES]
        others = " ..., see --json" if len(some) > len(fewest) else ""
        say(indented("fewest: " + ", ".join(fewest) + others))


def _count(count: int, noun: str, plural: str = "s") -> str:
    return f"{count:,} {noun}{'' if count == 1 else plural}"
