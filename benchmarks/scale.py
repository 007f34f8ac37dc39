"""What a manifest costs at 600k, 6M and 60M images: bytes, seconds, memory; and a branch's log.

    python benchmarks/scale.py [--shards 600 6000 60000] [--commits 100 1000 10000]
    python benchmarks/scale.py --shards 6000 --categories 1

A shard holds 1,000 images. No cell is written: a manifest only names them. Each size runs in a
process of its own; memory is what it grew by.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from manifests import schemas
from manifests.commit import Commit, now
from manifests.console import print_table
from manifests.dataset import init, operation
from manifests.manifest import Cell, Manifest
from manifests.refs import Refs
from manifests.store import Store
from manifests.three_way import cell_changes

_MASKS = schemas.masks_layer("sam_vit_t")
_LAYERS = (schemas.IMAGES, schemas.IMAGE_INDEX, schemas.BOXES, _MASKS, schemas.VERDICTS)
_OPERATION = operation("test", version=1, config={})


def cells(num_shards: int, categories: int, *, changed: bool = False) -> Iterator[Cell]:
    """The cells of a dataset; `changed` verdicts are others."""
    for number in range(num_shards):
        rng = random.Random(number)
        shard = _digest(f"{number} images")
        ids = {layer: _digest(f"{number} {layer}") for layer in _LAYERS}
        ids[schemas.IMAGES] = shard
        if changed:
            ids[schemas.VERDICTS] = _digest(f"{number} other verdicts")
        counts = {f"category:class {n}": rng.randrange(1, 900) for n in range(categories)}
        statistics = {
            schemas.IMAGES: {},
            schemas.IMAGE_INDEX: {"quarantined": 3},
            schemas.BOXES: counts,
            _MASKS: {"ok": 16_000, "skipped": 700},
            schemas.VERDICTS: {"kept": 12_000, "low_stability": 3_000, "low_box_iou": 1_700},
        }
        inputs = {
            schemas.IMAGES: (),
            schemas.IMAGE_INDEX: (shard,),
            schemas.BOXES: (ids[schemas.IMAGE_INDEX],),
            _MASKS: (shard, ids[schemas.IMAGE_INDEX], ids[schemas.BOXES]),
            schemas.VERDICTS: (ids[schemas.BOXES], ids[_MASKS]),
        }
        for layer in _LAYERS:
            yield Cell(
                shard=shard, layer=layer, object_id=ids[layer], num_rows=16_700,
                num_bytes=2_450_000, inputs=inputs[layer], statistics=statistics[layer],
            )  # fmt: skip


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def measure_manifest(num_shards: int, categories: int) -> dict[str, float]:
    """Saves two manifests in one process, loads and compares them in another."""
    with tempfile.TemporaryDirectory() as folder:
        saved = _in_a_process(save_both, folder, num_shards, categories)
        return {"images": 1000 * num_shards, **_in_a_process(load_both, folder, *saved)}


def save_both(folder: str, num_shards: int, categories: int) -> tuple[str, str, float]:
    """Ids of a manifest and of one with other verdicts, and the seconds that saving one takes."""
    store = Store(folder)
    one, two = (
        Manifest(cells(num_shards, categories, changed=changed)) for changed in (False, True)
    )
    began = time.perf_counter()
    first = one.save(store)
    return first, two.save(store), (time.perf_counter() - began) / 2


def load_both(folder: str, first: str, second: str, save_s: float) -> dict[str, float]:
    """Loads and compares them, starting from nothing."""
    store = Store(folder)
    before, began = _peak_mib(), time.perf_counter()
    one = Manifest.load(store, first)
    load_s, grown = time.perf_counter() - began, _peak_mib() - before
    two = Manifest.load(store, second)
    began = time.perf_counter()
    changes = cell_changes(one, two)
    return {
        "cells": len(one),
        "MB": (store.object_size(first) or 0) / 1e6,
        "save s": save_s,
        "load s": load_s,
        "load MiB": grown,
        "compare two s": time.perf_counter() - began,
        "changed": sum(change.replaced for change in changes.values()),
    }


def measure_log(num_commits: int) -> dict[str, float]:
    """Seconds to find the head of a branch with so many entries, by its hint and by listing."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        init(store)
        refs = Refs(store)
        head = refs.head("main")
        commit = Commit(
            parents=(), manifest="0" * 64, author="a", message="m", time=now(),
            operation=_OPERATION,
        ).save(store)  # fmt: skip
        began = time.perf_counter()
        for _ in range(num_commits):
            refs.advance("main", expected=head, commit=commit, reason="test")
            head = refs.head("main")
        moves = time.perf_counter() - began
        by_hint = _seconds(lambda: refs.head("main"))
        store.remove("refs/heads/main/.newest")
        by_listing = _seconds(lambda: refs.head("main"))
        read_all = _seconds(lambda: refs.history("main"))
    return {
        "entries": num_commits,
        "move ms": 1000 * moves / num_commits,
        "head by hint ms": 1000 * by_hint,
        "head by listing ms": 1000 * by_listing,
        "read all s": read_all,
    }


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _in_a_process(work: Callable[..., Any], *arguments: object) -> Any:  # Any: what it returns
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, nargs="+", default=[600, 6_000, 60_000])
    parser.add_argument("--commits", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--categories", type=int, default=80)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    loads = [measure_manifest(shards, given.categories) for shards in given.shards]
    logs = [_in_a_process(measure_log, commits) for commits in given.commits]
    if given.json:
        print(json.dumps({"manifests": loads, "logs": logs}))
        return
    for title, rows in (("a manifest", loads), ("a branch's log, on a disk", logs)):
        names = list(rows[0])
        shown = [[round(row[name], 3) for name in names] for row in rows]
        print_table(title, names, shown, right=names)


if __name__ == "__main__":
    main()
