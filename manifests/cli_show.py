"""How `maskmill show` tells a commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from manifests.cli import print_ledgers
from manifests.cli_log import counts, indented
from manifests.cli_show_quality import print_quality
from manifests.commit import Commit
from manifests.commit_details import CommitDetails, InputLayer
from manifests.console import print_table, say
from manifests.dataset import Dataset
from manifests.lineage import needed
from manifests.models import TRAIN

_MOST_TAKEN_DOWN = 20
_TO_MAKE_IT_AGAIN = "to make it again with 'maskmill reproduce'"
Row = Mapping[str, Any]  # Any: one value of each column of a table


def show_body(
    dataset: Dataset, found: CommitDetails, rejected: Sequence[Row] | None
) -> dict[str, Any]:  # Any: JSON
    """The commit as it is, and what else there is to know about it."""
    body = {
        "commit_id": dataset.commit_id,
        **asdict(dataset.commit),
        "layers": dataset.manifest.layers(),
        "changes": {layer: asdict(change) for layer, change in found.changes.items()},
        "refs": found.refs,
        "parent_commits": found.parents,
        "needs": needed(dataset.commit),
        "input_cells": found.input_cells,
        "statistics": found.layers,
        "taken_down": found.taken_down,
        "num_taken_down": found.num_taken_down,
    }
    return body if rejected is None else body | {"rejected": rejected}


def print_commit(
    dataset: Dataset, found: CommitDetails, rejected: Sequence[Row] | None, *, by_category: bool
) -> None:
    """Who and when, all that is needed to make it again, what it holds, and its ledger."""
    commit = dataset.commit
    refs = f" ({', '.join(found.refs)})" if found.refs else ""
    say(f"commit {dataset.commit_id}{refs}")
    for parent in found.parents:
        by = f"{parent.operation} by {parent.author}: " if parent.operation else ""
        say(f"parent {parent.commit_id[:12]} {by}{parent.message}")
    say(f"author {commit.author}   time {commit.time}")
    made = commit.operation
    say(f"operation {made.name} v{made.version}, configuration {made.config_digest[:12]}")
    for line in commit.message.splitlines():
        say(f"\n    {line}")
    _print_recipe(commit, found)
    if found.layers:
        _print_layers(found)
    if commit.ledger.rows:
        say("")
        print_ledgers([("", commit.ledger)], by_category=by_category)
    print_quality(commit, by_category=by_category)
    if found.num_taken_down:
        _print_taken_down(dataset, found)
    if rejected is not None:
        columns = ("layer", "outcome", "reason", "file_name", "category", "detail")
        listed = [[row[column] for column in columns] for row in rejected]
        print_table(f"not kept: {len(rejected):,}", columns, listed)


def _print_recipe(commit: Commit, found: CommitDetails) -> None:
    is_model = commit.operation.name == TRAIN
    say(f"\n{'what it was trained with' if is_model else _TO_MAKE_IT_AGAIN}")
    for need in needed(commit):
        if need.kind in ("commit", "input", "teacher", "weights"):
            digest = f"  sha256 {need.sha256}" if need.sha256 not in (None, need.value) else ""
            say(f"    {need.kind} {need.name} {need.value}{digest}")
    if found.input_cells:
        say(indented("cells " + ", ".join(map(_input, found.input_cells))))
    for need in needed(commit):
        if need.kind == "setting":
            say(f"    {need.name} = {need.value}")
    packages = [f"{need.name} {need.value}" for need in needed(commit) if need.kind == "package"]
    say(indented("packages " + ", ".join(packages)))
    for need in needed(commit):
        if need.kind == "machine":
            say(indented(f"machine {need.value}"))


def _input(layer: InputLayer) -> str:
    objects = f"{layer.num_objects:,} object" + ("" if layer.num_objects == 1 else "s")
    size = "" if layer.num_bytes is None else f" ({_size(layer.num_bytes)})"
    return f"{layer.layer} {objects}{size}"


def _print_layers(found: CommitDetails) -> None:
    say("")
    rows = [
        (
            layer.layer, layer.num_cells, layer.num_rows, _size(layer.num_bytes),
            counts(found.changes[layer.layer]) if layer.layer in found.changes else "",
            "\n".join(f"{name} {count:,}" for name, count in layer.counts.items() if count),
        )
        for layer in found.layers
    ]  # fmt: skip
    there = {layer.layer for layer in found.layers}
    rows += [
        (layer, 0, 0, _size(0), counts(change), "")
        for layer, change in found.changes.items()
        if layer not in there
    ]
    names = ("layer", "cells", "rows", "size", "changed", "counts")
    print_table("layers, and cells changed", names, rows, right=names[1:4])


def _print_taken_down(dataset: Dataset, found: CommitDetails) -> None:
    if not found.taken_down:
        count = found.num_taken_down
        images = "image was" if count == 1 else "images were"
        say(
            f"\n{count:,} {images} taken down before; "
            f"'maskmill sql {dataset.commit_id[:12]} \"from removed\"' lists them"
        )
        return
    rows = [
        (row.file_name, row.image_id[:12], row.shard[:12],
         row.successor[:12] if row.successor else "(empty)", row.reason, row.author)
        for row in found.taken_down[:_MOST_TAKEN_DOWN]
    ]  # fmt: skip
    say("")
    names = ("file", "image", "was in shard", "now", "reason", "by")
    title = f"taken down: {len(found.taken_down):,}, in all {found.num_taken_down:,}"
    print_table(title, names, rows)


def _size(num_bytes: int) -> str:
    size, unit = float(num_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
