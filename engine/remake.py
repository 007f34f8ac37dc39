"""Each operation as a function from the commit it started from to what it makes of it, once more.

One entry of OPERATIONS for each operation. Nothing here knows a branch: what is made is a Draft,
which is compared and thrown away.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from engine.again import Again, Remaker
from engine.confidence.agree import VERSION as AGREE_VERSION
from engine.confidence.agree import AgreeConfig, draft_agree
from engine.confidence.calibrate import VERSION as CALIBRATE_VERSION
from engine.confidence.calibrate import CalibrateConfig, draft_calibrate
from engine.confidence.gold_shard import GoldRules
from engine.confidence.import_gold import VERSION as GOLD_VERSION
from engine.confidence.import_gold import GoldImportConfig, draft_gold
from engine.confidence.roles import DEFAULT_CERTIFY_SHARE
from engine.filter import VERSION as FILTER_VERSION
from engine.filter import FilterConfig, draft_filter
from engine.ingest import draft_ingest
from engine.ingest_config import ImagePolicy, IngestConfig
from engine.label import VERSION as LABEL_VERSION
from engine.label import LabelConfig, draft_label
from engine.pack import VERSION as INGEST_VERSION
from engine.policy import Policy
from engine.remake_history import remake_merge, remake_revert, remake_takedown
from engine.sources.protocol import PATH_OPTIONS, SourceConfig
from manifests.dataset import operation
from manifests.errors import InputError
from manifests.ledger import Ledger
from manifests.manifest import Manifest
from manifests.merge_drafts import MERGE_VERSION, REVERT_VERSION
from manifests.removed import Removals
from manifests.settings import from_mapping
from manifests.takedown import VERSION as TAKEDOWN_VERSION
from manifests.writer import Draft
from teachers.settings import Settings

INIT_VERSION = 1
_ADDRESSES = ("annotations", "images", "image_set", *PATH_OPTIONS)


def ingest_config(again: Again) -> IngestConfig:
    """The recorded settings, with the source where it is now.

    Raises:
        InputError: this version does not know a setting.
    """
    recorded = again.settings
    source = dict(recorded.get("source", {}))
    source["options"] = dict(source.get("options", {}))
    for table in (source, source["options"]):
        table.update({name: _moved(table[name], again) for name in _ADDRESSES if name in table})
    sizes = {name: recorded[name] for name in ("shard_images", "shard_bytes") if name in recorded}
    return IngestConfig(
        source=from_mapping(SourceConfig, source, where=again.name),
        policy=from_mapping(ImagePolicy, recorded.get("policy", {}), where=again.name),
        pool=again.config.pool,
        driver=again.config.driver,
        **sizes,
    )


def label_config(again: Again) -> LabelConfig:
    """The recorded settings, and what the machine of the first time decided by itself.

    Threads and batches change the order in which floats are added up, and so the last digits.

    Raises:
        InputError: there is no such teacher any more.
    """
    from teachers import registry

    recorded, made = again.settings, again.commit.operation
    teacher = str(recorded.get("teacher", ""))
    settings = {
        **(made.teacher or {}).get("config", {}),
        **recorded.get("teacher_config", {}),
        **_as_then(made.machines, registry.spec(teacher).settings),
    }
    batch = {"image_batch": recorded["image_batch"]} if "image_batch" in recorded else {}
    return LabelConfig(
        teacher=teacher,
        teacher_config=settings,
        retry_failed=bool(recorded.get("retry_failed", False)),
        pool=again.config.pool,
        driver=again.config.driver,
        **batch,
    )


def _as_then(
    machines: tuple[Mapping[str, str | int], ...], kind: type[Settings]
) -> dict[str, str | int]:
    """Settings that bring back what one kind of machine chose; of several, nobody knows which."""
    if len(machines) != 1:
        return {}
    known = {entry.name for entry in dataclasses.fields(kind)}
    [machine] = machines
    # A GPU is taken where there is one; `cpu` must be said, or it would be taken there as well.
    skipped = {"device"} if machine.get("device") != "cpu" else set()
    return {name: value for name, value in machine.items() if name in known - skipped}


def _moved(value: Any, again: Again) -> Any:  # Any: JSON
    for old, new in again.config.moves.items():
        if isinstance(value, str) and (value == old or value.startswith(f"{old.rstrip('/')}/")):
            return new.rstrip("/") + value[len(old.rstrip("/")) :]
    return value


def _init(again: Again) -> Draft:
    return Draft(
        manifest=Manifest(), categories=(), removals=Removals(), ledger=Ledger(), message="",
        operation=operation("init", version=INIT_VERSION, config={}),
    )  # fmt: skip


def _ingest(again: Again) -> Draft:
    return draft_ingest(again.start, ingest_config(again), on_progress=again.on_progress)


def _label(again: Again) -> Draft:
    return draft_label(again.start, label_config(again), on_progress=again.on_progress)


def _filter(again: Again) -> Draft:
    policy = Policy.from_mapping(again.settings, name=again.name)
    return draft_filter(again.start, FilterConfig(policy=policy))


def _gold(again: Again) -> Draft:
    """The file of answers must be what it was: another one is another import."""
    config = GoldImportConfig(
        answers=_moved(str(again.settings.get("answers", "")), again),
        rules=from_mapping(GoldRules, again.settings.get("rules", {}), where=again.name),
    )
    draft = draft_gold(again.start, config).draft
    for role, then in again.commit.operation.inputs.items():
        if draft.operation.inputs[role].sha256 != then.sha256:
            raise InputError(
                f"{config.answers} has changed since {again.name} was made from it: expected "
                f"SHA-256 {then.sha256[:12]}, got {draft.operation.inputs[role].sha256[:12]}"
            )
    return draft


def _agree(again: Again) -> Draft:
    return draft_agree(again.start, AgreeConfig(teachers=tuple(again.settings.get("teachers", ()))))


def _calibrate(again: Again) -> Draft:
    recorded = again.settings
    config = CalibrateConfig(
        teachers=tuple(recorded.get("teachers", ())), prior=bool(recorded.get("prior", False)),
        calibrator=str(recorded.get("calibrator", "")), seed=int(recorded.get("seed", 0)),
        certify_share=float(recorded.get("certify_share", DEFAULT_CERTIFY_SHARE)),
    )  # fmt: skip
    return draft_calibrate(again.start, config)


def _merge(again: Again) -> Draft:
    return remake_merge(again.start, again.settings, again.name)


def _revert(again: Again) -> Draft:
    return remake_revert(again.start, again.settings, again.name)


def _rm(again: Again) -> Draft:
    return remake_takedown(again.start, again.settings, again.commit, again.name)


OPERATIONS: Mapping[str, Remaker] = {
    "init": Remaker(version=INIT_VERSION, make=_init),
    "ingest": Remaker(version=INGEST_VERSION, make=_ingest),
    "label": Remaker(version=LABEL_VERSION, make=_label),
    "agree": Remaker(version=AGREE_VERSION, make=_agree),
    "calibrate": Remaker(version=CALIBRATE_VERSION, make=_calibrate),
    "filter": Remaker(version=FILTER_VERSION, make=_filter),
    "gold": Remaker(version=GOLD_VERSION, make=_gold),
    "merge": Remaker(version=MERGE_VERSION, make=_merge),
    "revert": Remaker(version=REVERT_VERSION, make=_revert),
    "rm": Remaker(version=TAKEDOWN_VERSION, make=_rm),
}
"""Operation -> how its commits are made again."""
