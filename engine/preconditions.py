"""What is missing, or is not as it was, before a commit is made again; a sentence each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata

from engine.again import Again
from engine.image_root import ImageRoot
from engine.remake import OPERATIONS, ingest_config, label_config
from engine.sources.digest import digests_of
from engine.sources.protocol import SourceConfig
from engine.sources.registry import open_source
from manifests import schemas
from manifests.commit import ExternalInput
from manifests.dataset import Dataset
from manifests.errors import InputError, MaskmillError, ObjectMissingError, WeightsError
from manifests.manifest import Cell
from manifests.models import TRAIN
from manifests.taken_down import known_takedowns


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is not as it was when the commit was made.

    Attributes:
        text: one sentence.
        error: what it is raised as if the commit cannot be made again like this; None: it is tried
            all the same.
    """

    text: str
    error: MaskmillError | None = None


def findings(again: Again) -> Iterator[Finding]:
    """Everything that is worth knowing before the work is begun, which may take hours."""
    name = again.commit.operation.name
    if name == TRAIN:
        yield _fatal(
            InputError(
                f"{again.name} is a checkpoint of a student: 'reproduce' makes commits of data "
                f"again, not trainings; 'maskmill show {again.commit_id[:12]}' lists the data and "
                "settings to train another with"
            )
        )
        return
    if name not in OPERATIONS:
        yield _fatal(
            InputError(
                f"{again.name} was made by '{name}', which this version cannot make again; it can "
                f"do so for {', '.join(OPERATIONS)}"
            )
        )
        return
    yield from _code(again)
    checks = {"ingest": _ingest, "label": _label}
    if name in checks:
        try:
            yield from checks[name](again)
        except MaskmillError as error:
            yield _fatal(error)


def _code(again: Again) -> Iterator[Finding]:
    made, here = again.commit.operation, OPERATIONS[again.commit.operation.name].version
    if made.version != here:
        yield Finding(
            text=f"{again.name} was made by version {made.version} of '{made.name}', this is "
            f"version {here}: its outcome may be another"
        )
    changed = [
        f"{package} {version} (here {_version_of(package) or 'none'})"
        for package, version in made.code.items()
        if _version_of(package) != version
    ]
    if changed:
        yield Finding(text=f"{again.name} was made with other code: {', '.join(changed)}")


def _version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _ingest(again: Again) -> Iterator[Finding]:
    """Raises what keeps the source from being read."""
    source = ingest_config(again).source
    yield from _taken_down(again)
    ImageRoot(source.images).check()
    yield from _changed_inputs(again, source)


def _changed_inputs(again: Again, source: SourceConfig) -> Iterator[Finding]:
    recorded, found = again.commit.operation.inputs, digests_of(open_source(source))
    if not recorded:
        yield Finding(
            text=f"{again.name} does not say what digest its annotations had: whether they are "
            "still the same cannot be told beforehand"
        )
        return
    for role in dict.fromkeys([*recorded, *found]):
        before, now = recorded.get(role), found.get(role)
        if before is None or now is None or before.sha256 != now.sha256:
            yield Finding(
                text=f"{role} of source '{source.name}' changed since: expected {_words(before)}, "
                f"found {_words(now)}"
            )


def _words(item: ExternalInput | None) -> str:
    if item is None:
        return "none"
    files = "1 file" if item.num_files == 1 else f"{item.num_files:,} files"
    return f"{files} with SHA-256 {item.sha256[:12]} at {item.url}"


def _taken_down(again: Again) -> Iterator[Finding]:
    """An ingest would store images again that were taken down later."""
    base = set(again.base.manifest.shards()) if again.base else set()
    made = Dataset(again.store, again.commit_id).manifest.shards()
    shards = [shard for shard in made if shard not in base]
    for known in known_takedowns(again.store):
        for why in filter(None, map(known.explain, shards)):
            yield _fatal(
                ObjectMissingError(f"{again.name} would bring back what was taken down: {why}")
            )
            return


def _label(again: Again) -> Iterator[Finding]:
    """Raises where the teacher is not to be had as it was."""
    from teachers import registry, weights

    config, recorded = label_config(again), again.commit.operation.teacher or {}
    identity = asdict(registry.identity(config.teacher, config.teacher_config))
    if identity["weights_sha256"] != recorded.get("weights_sha256"):
        raise WeightsError(
            f"{again.name} was drawn with weights of SHA-256 {recorded.get('weights_sha256')}, but "
            f"'{config.teacher}' has {identity['weights_sha256']} here; use the version of "
            "maskmill that made it"
        )
    for name in ("version", "config"):
        if identity[name] != recorded.get(name):
            yield Finding(
                text=f"teacher '{config.teacher}' changed since: its {name} was "
                f"{recorded.get(name)}, here it is {identity[name]}"
            )
    yield from _missing_images(again, schemas.masks_layer(identity["name"]))
    if needed := registry.spec(config.teacher).weights:
        weights.fetch(needed)


def _missing_images(again: Again, layer: str) -> Iterator[Finding]:
    """Images of the shards to label that are gone, with the reason if they were taken down."""
    commit = Dataset(again.store, again.commit_id).manifest
    takedowns = list(filter(None, known_takedowns(again.store)))
    drawn = [cell.shard for cell in commit.of_layer(layer)
             if takedowns and again.start.manifest.get(cell.shard, layer) != cell]  # fmt: skip
    for shard in drawn:
        why = next(filter(None, (known.explain(shard) for known in takedowns)), None)
        cell = again.start.manifest.get(shard, schemas.IMAGES)
        if why and cell and not _is_there(again, cell):
            yield _fatal(ObjectMissingError(f"{again.name} cannot be drawn again: {why}"))


def _is_there(again: Again, cell: Cell) -> bool:
    return again.store.object_size(cell.object_id) == cell.num_bytes


def _fatal(error: MaskmillError) -> Finding:
    return Finding(text=str(error), error=error)
