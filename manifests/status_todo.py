"""What is missing of a ref, and the command that completes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from manifests import schemas
from manifests.commit import Commit
from manifests.dataset import Dataset
from manifests.history import newest
from manifests.last_made import LastMade
from manifests.models import is_model
from manifests.status_records import LayerStatus, Todo

_MASKS = schemas.masks_layer("")


def things_to_do(
    dataset: Dataset, layers: Sequence[LayerStatus], made: LastMade, branch: str
) -> Iterator[Todo]:
    """What is missing, in the order in which to do it.

    Args:
        dataset: the commit.
        layers: what it has.
        made: the newest steps behind it.
        branch: the branch that the commands are to name, if it is not `main`; a student's takes
            no data, so nothing is to be done there.
    """
    if is_model(branch):
        return
    there = f" --branch {branch}" if branch and branch != "main" else ""
    names = {layer.layer: layer for layer in layers}
    if not dataset.manifest.shards():
        yield Todo(layer=schemas.IMAGES, what="no images yet", command=f"maskmill ingest{there}")
        return
    for layer in layers:
        if _is_drawn(layer.layer):
            yield from _todo_masks(dataset, layer, there)
        elif layer.layer == schemas.MASKS_HUMAN and layer.num_stale:
            what = f"{_boxes(layer.num_stale_rows)} stale: their boxes changed since"
            yield Todo(layer=layer.layer, what=what, command="")
    if not any(map(_is_drawn, names)):
        what = "no teacher has drawn masks yet"
        yield Todo(layer="masks", what=what, command=f"maskmill label TEACHER{there}")
    if agreement := names.get(schemas.AGREEMENT):
        yield from _todo_computed(agreement, f"maskmill agree{_compared(dataset, made)}{there}")
    if confidence := names.get(schemas.CONFIDENCE):
        command = f"maskmill calibrate{_calibrator(made)}{there}"
        yield from _todo_computed(confidence, command)
    if any(name.startswith(_MASKS) for name in names):
        yield from _todo_verdicts(names.get(schemas.VERDICTS), made, there)


def _todo_masks(dataset: Dataset, layer: LayerStatus, there: str) -> Iterator[Todo]:
    counts = layer.counts
    parts = [
        f"{_boxes(layer.num_lacking_rows)} in {_shards(layer.num_lacking)} without masks"
        if layer.num_lacking else "",
        f"{_boxes(layer.num_stale_rows)} in {_shards(layer.num_stale)} stale"
        if layer.num_stale else "",
        f"{_boxes(counts[schemas.PENDING])} pending" if counts.get(schemas.PENDING) else "",
    ]  # fmt: skip
    what = ", ".join(part for part in parts if part)
    teacher = layer.layer.removeprefix(_MASKS)
    if what:
        command = f"maskmill label {teacher}{_settings(dataset, teacher)}{there}"
        yield Todo(layer=layer.layer, what=what, command=command)
    if failed := counts.get(schemas.FAILED):
        command = f"maskmill label {teacher}{_settings(dataset, teacher)} --retry-failed{there}"
        yield Todo(layer=layer.layer, what=f"{_boxes(failed)} failed", command=command)


def _settings(dataset: Dataset, teacher: str) -> str:
    """The options of the last `label` of a teacher, so that the rest is drawn like the others."""

    def is_label(commit: Commit) -> bool:
        made = commit.operation
        return made.name == "label" and (made.teacher or {}).get("name") == teacher

    last = newest(dataset.store, dataset.commit_id, is_label)
    given = last.commit.operation.config.get("teacher_config", {}) if last else {}
    return "".join(f" -o {name}={value}" for name, value in sorted(given.items()))


def _todo_computed(layer: LayerStatus, command: str) -> Iterator[Todo]:
    parts = [
        f"{_boxes(layer.num_lacking_rows)} in {_shards(layer.num_lacking)} without it"
        if layer.num_lacking else "",
        f"{_boxes(layer.num_stale_rows)} in {_shards(layer.num_stale)} older than what it is of"
        if layer.num_stale else "",
    ]  # fmt: skip
    if what := ", ".join(part for part in parts if part):
        yield Todo(layer=layer.layer, what=what, command=command)


def _compared(dataset: Dataset, made: LastMade) -> str:
    """The options of the last `agree`; none if it compared all that have drawn."""
    teachers = made.teachers(schemas.AGREEMENT)
    drawn = {name.removeprefix(_MASKS) for name in dataset.manifest.layers() if _is_drawn(name)}
    return "" if drawn <= set(teachers) else "".join(f" --teacher {name}" for name in teachers)


def _calibrator(made: LastMade) -> str:
    """The options of the last `calibrate`, so that the rest comes from the same calibrator."""
    config = made.config(schemas.CONFIDENCE)
    if config.get("calibrator"):
        return f" --from {made.entries[schemas.CONFIDENCE].commit_id[:12]}"
    return " --prior" if config.get("prior") else ""


def _todo_verdicts(found: LayerStatus | None, made: LastMade, there: str) -> Iterator[Todo]:
    command = f"maskmill filter{there}"
    if found is None:
        yield Todo(layer=schemas.VERDICTS, what="nothing has been judged yet", command=command)
        return
    policy = made.config(schemas.VERDICTS).get("name")
    before = f" (policy '{policy}' before)" if policy else ""
    parts = [
        f"{_boxes(found.num_lacking_rows)} in {_shards(found.num_lacking)} not judged"
        if found.num_lacking else "",
        f"{_boxes(found.num_stale_rows)} in {_shards(found.num_stale)} judged before their masks"
        if found.num_stale else "",
    ]  # fmt: skip
    if what := ", ".join(part for part in parts if part):
        yield Todo(layer=schemas.VERDICTS, what=what + before, command=command)


def _boxes(count: int) -> str:
    return f"{count:,} box" + ("" if count == 1 else "es")


def _shards(count: int) -> str:
    return f"{count:,} shard" + ("" if count == 1 else "s")


def _is_drawn(layer: str) -> bool:
    return layer.startswith(_MASKS) and layer != schemas.MASKS_HUMAN
