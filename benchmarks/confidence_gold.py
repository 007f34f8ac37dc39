"""The gold of a labelled set, its objects of at least 256 pixels, and a forest to compare with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mask_quality import MIN_AREA_PX
from numpy.typing import NDArray

from engine.confidence.calibrate import identities_of
from engine.confidence.features import feature_names
from engine.confidence.fit import deal
from engine.confidence.gold import GoldBoxes, read_gold
from engine.confidence.outputs import Output
from manifests import schemas
from manifests.dataset import Dataset

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldSet:
    """All gold of a set; `features` and `identities` by teacher, as `fit` wants them."""

    name: str
    gold: GoldBoxes
    features: Mapping[str, Sequence[str]]
    identities: Mapping[str, Mapping[str, Any]]  # Any: JSON


def gold_set(name: str, dataset: Dataset) -> GoldSet:
    """Every box with a true mask of at least 256 pixels; nothing is held out."""
    identities = identities_of(dataset)
    features = {teacher: feature_names(teacher, list(identities)) for teacher in identities}
    gold = read_gold(dataset, features, certify_share=0.0)
    areas = {
        shard: dataset.table(shard, schemas.MASKS_HUMAN, columns=["area_px"])["area_px"].to_numpy()
        for shard in dataset.manifest.shards()
    }
    places = zip(gold.words("shard"), gold.words("row"), strict=True)
    area = np.array([areas[shard][row] for shard, row in places])
    kept = gold.where(area >= MIN_AREA_PX)
    return GoldSet(name=name, gold=kept, features=features, identities=identities)


def predicted_iou(found: GoldSet, output: Output) -> Floats:
    """[M] what a model says of an output itself."""
    place = list(found.features[output.teacher]).index("predicted_iou")
    values: Floats = found.gold.features[output][:, place]
    return values


def forest(found: GoldSet, teacher: str, *, seed: int = 0) -> dict[Output, Floats]:
    """Output -> [M] out of fold, of a plain random forest over the scalar signals."""
    from sklearn.ensemble import RandomForestRegressor

    outputs = sorted(output for output in found.gold.iou if output.teacher == teacher)
    folds = deal(found.gold.codes("image_id"), seed)
    told = {output: np.full(found.gold.num_boxes, np.nan, np.float32) for output in outputs}
    for fold in np.unique(folds):
        inputs, truths = [], []
        for output in outputs:
            rows = (folds != fold) & np.isfinite(found.gold.iou[output])
            inputs.append(np.nan_to_num(found.gold.features[output][rows], nan=-1))
            truths.append(found.gold.iou[output][rows])
        trees = RandomForestRegressor(200, min_samples_leaf=3, n_jobs=2, random_state=seed)
        trees.fit(np.concatenate(inputs), np.concatenate(truths))
        for output in outputs:
            rows = (folds == fold) & np.isfinite(found.gold.iou[output])
            values = np.nan_to_num(found.gold.features[output][rows], nan=-1)
            if len(values):
                told[output][rows] = trees.predict(values)
    return told
