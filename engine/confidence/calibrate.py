"""Calibrate: gold and signals become a calibrator, and the calibrator the layer `confidence`.

Without gold a calibrator that comes with maskmill is used, and every screen says so.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from threadpoolctl import threadpool_limits

from engine.confidence.apply import confidence_table, score, scores_of
from engine.confidence.calibrator import Calibrator
from engine.confidence.features import feature_names, read_shard
from engine.confidence.figures import calibration_error, figures
from engine.confidence.fit import best_of, fit, taken_by
from engine.confidence.gold import GoldBoxes, gold_table, read_gold
from engine.confidence.importance import importance
from engine.confidence.outputs import Floats, Output, teachers_of
from engine.confidence.priors import load_prior
from engine.confidence.roles import CALIBRATE, CERTIFY, DEFAULT_CERTIFY_SHARE
from manifests import schemas
from manifests.cells import write_cell
from manifests.dataset import DEFAULT_BRANCH, Dataset, operation
from manifests.errors import InputError
from manifests.history import history
from manifests.in_parallel import in_parallel, threads_for
from manifests.ledger import Ledger, LedgerCounter
from manifests.parquet import table_to_parquet
from manifests.results import ResultRecord, find_result, publish_result, work_key
from manifests.statistics import rows_by_category
from manifests.store import Store
from manifests.writer import Draft, Writer

log = logging.getLogger(__name__)

VERSION = 1
"""Raised when the calibrator or the confidence of the same masks would come out different."""

MIN_BOXES, MIN_IMAGES = 100, 20
"""Gold that calibrates: less does not carry a fit with out-of-fold figures."""
_SCORED, _NO_MASK = "scored", "no_mask"
_PACKAGES = ("scikit-learn", "safetensors", "scipy")


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateConfig:
    """Settings of one calibrate step.

    Attributes:
        teachers: whose masks to judge; empty: of all that have drawn.
        prior: use the calibrator that comes with maskmill, also where there is gold.
        calibrator: object id of a calibrator in the store to apply as it is; "": fit one.
        certify_share: share of the gold images that is kept away from the fit.
        seed: of folds and networks.
        branch, message: as in LabelConfig.
    """

    teachers: tuple[str, ...] = ()
    prior: bool = False
    calibrator: str = ""
    certify_share: float = DEFAULT_CERTIFY_SHARE
    seed: int = 0
    branch: str = DEFAULT_BRANCH
    message: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.certify_share < 1:
            raise InputError(
                f"certify_share: expected from 0 to below 1, got {self.certify_share!r}"
            )
        if self.prior and self.calibrator:
            raise InputError("calibrate: expected --prior or --from, got both; leave one out")


def calibrate(store: Store, config: CalibrateConfig) -> str:
    """Fits and applies, and commits `confidence`; returns the commit id.

    Raises:
        InputError: no masks, too little gold (says how much more), or a calibrator of others.
        NothingToCommitError: the confidence is there already.
        CommitConflictError: the branch moved meanwhile.
    """
    writer = Writer(store, config.branch)
    return writer.publish(draft_calibrate(writer.dataset, config))


def draft_calibrate(dataset: Dataset, config: CalibrateConfig) -> Draft:
    """What a calibrate step makes of a commit; no branch is touched. Raises as `calibrate`."""
    identities = identities_of(dataset, config.teachers)
    missing = sorted(set(config.teachers) - set(identities))
    if missing or not identities:
        what = f"masks of '{missing[0]}'" if missing else "masks of a teacher"
        have = ", ".join(identities_of(dataset)) or "none"
        raise InputError(
            f"calibrate: expected {what}, but the teachers that have drawn are {have}; run "
            "'maskmill label TEACHER' first"
        )
    _check_agreement(dataset)
    calibrator, attached = _calibrator(dataset, config, identities)
    calibrator.check_teachers(identities)
    object_id = dataset.store.put_bytes(calibrator.to_bytes()).object_id
    work = partial(_score_shard, dataset, calibrator, object_id)
    shards = dataset.manifest.shards()
    # Shards are done side by side: threads of matrix products besides would only wait for cores.
    with threadpool_limits(1, user_api="blas"):
        records = list(in_parallel(work, shards, num_threads=threads_for(dataset.store)))
    return Draft.on(
        dataset,
        dataset.manifest.with_cells(cell for record in records for cell in record.cells),
        operation=operation(
            "calibrate", version=VERSION, config=_lineage(config, identities), packages=_PACKAGES
        ),
        ledger=_ledger(dataset, records),
        message=config.message or f"calibrate: {calibrator.origin}",
        attached={"calibrator": object_id, **attached},
    )


def identities_of(
    dataset: Dataset, teachers: Sequence[str] = ()
) -> dict[str, Mapping[str, Any]]:  # Any: JSON
    """Teacher -> who drew its masks, as the newest commit that says so has it; sorted."""
    wanted = set(teachers_of(dataset.manifest, teachers))
    found: dict[str, Mapping[str, Any]] = {}
    for entry in history(dataset.store, dataset.commit_id):
        drawn_by = entry.commit.operation.teacher or {}
        if drawn_by.get("name") in wanted:
            found.setdefault(str(drawn_by["name"]), drawn_by)
        if len(found) == len(wanted):
            break
    return dict(sorted(found.items()))  # whoever has drawn first: the fit must not depend on it


def _check_agreement(dataset: Dataset) -> None:
    """Refuses agreement of masks that have been replaced since."""
    there = {cell.object_id for cell in dataset.manifest}
    cells = dataset.manifest.of_layer(schemas.AGREEMENT)
    if old := sum(not there.issuperset(cell.inputs) for cell in cells):
        raise InputError(
            f"calibrate: the agreement of {old:,} of {len(cells):,} shards was computed from other "
            "masks than are there now; run 'maskmill agree' again first"
        )


def _calibrator(
    dataset: Dataset,
    config: CalibrateConfig,
    identities: Mapping[str, Mapping[str, Any]],  # Any: JSON
) -> tuple[Calibrator, dict[str, str]]:
    """The calibrator, and the objects besides it that the commit is to carry."""
    if config.calibrator:
        known = Calibrator.load(dataset.store, config.calibrator)
        # Attached here too, or gc takes the gold as soon as the commit that made it is gone.
        has_gold = known.gold and dataset.store.object_size(known.gold) is not None
        return known, {"gold": known.gold} if known.gold and has_gold else {}
    features = {name: feature_names(name, list(identities)) for name in identities}
    gold = read_gold(dataset, features, certify_share=config.certify_share)
    if not config.prior and not gold.num_boxes and gold.unused:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in gold.unused.items())
        raise InputError(
            f"calibrate: expected human masks that fit their boxes, but none can be used "
            f"({reasons}); look at them with 'maskmill report', or use --prior"
        )
    if config.prior or not gold.num_boxes:
        return load_prior(identities, certify_share=config.certify_share), {}
    fitting = gold.where(gold.has_role(CALIBRATE))
    _check_enough(fitting)
    return _fit(dataset, config, gold, features, identities)


def _fit(
    dataset: Dataset,
    config: CalibrateConfig,
    gold: GoldBoxes,
    features: Mapping[str, Sequence[str]],
    identities: Mapping[str, Mapping[str, Any]],  # Any: JSON
) -> tuple[Calibrator, dict[str, str]]:
    fitted = fit(gold.where(gold.has_role(CALIBRATE)), features, identities, seed=config.seed)
    used, held_out = fitted.gold, gold.where(gold.has_role(CERTIFY))
    calibrator = Calibrator(
        heads=fitted.heads,
        choice=fitted.choice,
        chosen=fitted.chosen,
        certify_share=config.certify_share,
        origin=f"fitted on {used.num_boxes:,} gold masks of this dataset",
    )
    tables = [gold_table(fitted.choice, used, fitted.confidence, fitted.taken)]
    found = figures(fitted.choice, used, fitted.confidence, fitted.taken)
    if held_out.num_boxes:
        judged = score_gold(calibrator, held_out)
        tables.append(gold_table(fitted.choice, held_out, judged))
        found["certify"] = figures(fitted.choice, held_out, judged)
    found["importance"] = importance(calibrator.heads, held_out if held_out.num_boxes else used)
    found["by_source"] = _transfer(used, features, identities, config.seed)
    found["unused"] = dict(gold.unused)
    table = table_to_parquet(pa.concat_tables(tables).combine_chunks())
    gold_id = dataset.store.put_bytes(table).object_id
    return replace(calibrator, figures=found, gold=gold_id), {"gold": gold_id}


def score_gold(calibrator: Calibrator, gold: GoldBoxes) -> dict[Output, Floats]:
    """Output -> [M] expected IoU of gold boxes."""
    outputs = [output for output in sorted(gold.iou) if output.teacher in calibrator.heads]
    columns = []
    categories = gold.words("category")
    for output in outputs:
        head = calibrator.heads[output.teacher]
        shifts = np.array([head.categories.get(name, 0.0) for name in categories], np.float32)
        expected = head.expected_iou(gold.features[output], shifts)
        columns.append(np.where(np.isfinite(gold.iou[output]), expected, np.nan))
    stacked = np.stack(columns, axis=1).astype(np.float32)
    values = scores_of(calibrator, tuple(outputs), stacked, gold.categories).values
    return {output: values[:, number] for number, output in enumerate(outputs)}


def _transfer(
    gold: GoldBoxes,
    features: Mapping[str, Sequence[str]],
    identities: Mapping[str, Mapping[str, Any]],  # Any: JSON
    seed: int,
) -> dict[str, Any]:  # Any: JSON
    """Source -> figures of a calibrator that saw only the other sources."""
    sources = np.array(gold.words("source"), dtype=object)
    images = gold.codes("image_id")
    found = {}
    for name in sorted(set(gold.words("source"))):
        is_mine = sources == name
        # A picture may come from several sources.
        is_other = ~is_mine & ~np.isin(images, images[is_mine])
        if not all(_is_enough(gold.where(rows)) for rows in (is_mine, is_other)):
            continue
        others = fit(gold.where(is_other), features, identities, seed=seed)
        calibrator = Calibrator(
            heads=others.heads, choice=others.choice, chosen=others.chosen, certify_share=0
        )
        held_out = gold.where(is_mine)
        told = score_gold(calibrator, held_out)
        taken = taken_by(others.choice, told, held_out.categories)
        best, iou = best_of(taken, told, held_out.iou)
        known = np.isfinite(best)
        found[name] = {
            "num_boxes": int(known.sum()),
            "calibration_error": round(calibration_error(best[known], iou[known]), 4),
        }
    return found


def _is_enough(gold: GoldBoxes) -> bool:
    num_images = len(np.unique(gold.codes("image_id")))
    return gold.num_boxes >= MIN_BOXES and num_images >= MIN_IMAGES


def _check_enough(gold: GoldBoxes) -> None:
    if _is_enough(gold):
        return
    num_images = len(np.unique(gold.codes("image_id")))
    names, counts = np.unique(gold.words("category"), return_counts=True)
    least = [f"{names[place]} {counts[place]}" for place in np.argsort(counts)[:5]]
    unused = ", ".join(f"{reason} {count}" for reason, count in gold.unused.items())
    raise InputError(
        f"calibrate: expected at least {MIN_BOXES} human masks on {MIN_IMAGES} images that "
        f"calibrate, got {gold.num_boxes} on {num_images}"
        f"{f' (not usable: {unused})' if unused else ''}; draw "
        f"{max(0, MIN_BOXES - gold.num_boxes)} more on {max(0, MIN_IMAGES - num_images)} more "
        f"images ('maskmill gold propose'; fewest: {', '.join(least) or 'no category has any'}), "
        "or use --prior"
    )


def _score_shard(
    dataset: Dataset, calibrator: Calibrator, calibrator_id: str, shard: str
) -> ResultRecord:
    boxes = dataset.cell(shard, schemas.BOXES)
    layers = [schemas.masks_layer(name) for name in sorted(calibrator.heads)]
    cells = [dataset.manifest.get(shard, layer) for layer in (*layers, schemas.AGREEMENT)]
    inputs = (boxes.object_id, *(cell.object_id for cell in cells if cell), calibrator_id)
    key = work_key(operation="calibrate", version=VERSION, inputs=inputs, config={})
    if record := find_result(dataset.store, key):
        return record
    found = read_shard(dataset, shard, sorted(calibrator.heads))
    table = confidence_table(score(calibrator, found))
    is_scored = table["confidence"].is_valid().to_numpy()
    cell = write_cell(
        dataset.store, table, shard=shard, layer=schemas.CONFIDENCE, inputs=inputs,
        statistics={_SCORED: int(is_scored.sum()), _NO_MASK: int((~is_scored).sum())},
    )  # fmt: skip
    record = ResultRecord(cells=(cell,), ledger=_outcomes(found.categories, is_scored).rows)
    return publish_result(dataset.store, key, record)


def _lineage(
    config: CalibrateConfig, identities: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:  # Any: JSON
    return {
        "teachers": list(config.teachers), "prior": config.prior, "calibrator": config.calibrator,
        "certify_share": config.certify_share, "seed": config.seed,
        "identities": {name: dict(identity) for name, identity in identities.items()},
    }  # fmt: skip


def _outcomes(categories: pa.ChunkedArray, is_scored: np.ndarray) -> Ledger:
    counter = LedgerCounter()
    table = pa.table({"category": categories, "scored": pa.array(is_scored)})
    for row in table.group_by(["category", "scored"]).aggregate([([], "count_all")]).to_pylist():
        category, count = row["category"], row["count_all"]
        if row["scored"]:
            counter.add_kept(schemas.CONFIDENCE, category, count)
        else:
            counter.add_dropped(schemas.CONFIDENCE, category, reason=_NO_MASK, count=count)
    return counter.ledger()


def _ledger(dataset: Dataset, records: Sequence[ResultRecord]) -> Ledger:
    counter = LedgerCounter()
    for category, count in _inputs(dataset):
        counter.add_inputs(schemas.CONFIDENCE, category, count)
    for record in records:
        counter.add_ledger(record.ledger)
    return counter.ledger()


def _inputs(dataset: Dataset) -> Iterator[tuple[str, int]]:
    for cell in dataset.manifest.of_layer(schemas.BOXES):
        yield from rows_by_category(cell).items()
