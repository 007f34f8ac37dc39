"""Fitting a calibrator to gold, so that every figure about it comes from images it did not see.

Images are dealt into folds. Networks of a fold are fitted without its images; what they say about
those images ("out of fold") is what curves and shifts are fitted to, again without the fold itself
where the outcome is to be judged. The final networks see all images.

Legend: M gold boxes, O outputs, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.confidence.calibrator import Curve, Head
from engine.confidence.choice import Choice, fit_choice
from engine.confidence.gold import GoldBoxes
from engine.confidence.outputs import Bools, Floats, Output

_NUM_FOLDS = 5
_NUM_NETS, _NUM_NETS_OF_A_FOLD = 2, 2
_NUM_HIDDEN = 32
_ENOUGH_ROWS = 4_000
_MAX_BOXES = 20_000
"""More gold is not needed for a few hundred parameters, and costs time."""
_MAX_STEPS, _BATCH, _MAX_EPOCHS = 8_000, 128, 150

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A calibrator, and what calibrators that did not see a box's image say of its outputs.

    Attributes:
        gold: the boxes that were used.
        heads, choice, chosen: as in Calibrator.
        taken: [M] place, among the sorted outputs of `confidence`, of what a rule takes that did
            not see the box's image.
        confidence: output -> [M] out of fold; NaN where the output is not there.
    """

    gold: GoldBoxes
    heads: Mapping[str, Head]
    choice: Choice
    taken: Ints
    chosen: Curve
    confidence: Mapping[Output, Floats]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """All outputs of one teacher in one list; R rows."""

    outputs: tuple[Output, ...]
    box: Ints  # [R] which gold box
    column: Ints  # [R] which of `outputs`
    features: Floats  # [R, F]
    iou: Floats  # [R]
    fold: Ints  # [R]
    category: NDArray[np.object_]  # [R]


def fit(
    gold: GoldBoxes,
    features: Mapping[str, Sequence[str]],
    identities: Mapping[str, Mapping[str, Any]],  # Any: JSON
    *,
    seed: int = 0,
) -> Fitted:
    """Fits a head for each teacher that has drawn for some gold.

    Args:
        gold: at least two images, boxes that calibrate only.
        features: teacher -> names of its features, in the order of `gold.features`.
        identities: teacher -> who it is.
        seed: of the folds and the networks.
    """
    gold = _at_most(gold, _MAX_BOXES, seed)
    folds = deal(gold.codes("image_id"), seed)
    heads: dict[str, Head] = {}
    confidence: dict[Output, Floats] = {}
    for teacher in sorted(features):
        rows = _rows(gold, teacher, folds)
        if len(np.unique(rows.fold)) < 2:
            continue  # nothing could be said of it out of fold
        head, out_of_fold = _fit_head(rows, features[teacher], identities[teacher], seed)
        heads[teacher] = head
        confidence |= _spread(rows, out_of_fold, gold.num_boxes)
    taken = _cross_fitted_taken(gold, confidence, folds)
    best, iou = best_of(taken, confidence, gold.iou)
    judged = _cross_fitted_curve(best, iou, folds)
    shift = judged - best
    return Fitted(
        gold=gold,
        heads=heads,
        choice=fit_choice(confidence, gold.iou, gold.categories),
        taken=taken,
        chosen=fit_curve(best, iou),
        # All outputs of a box are moved as the one that is taken: it must stay the one.
        confidence={
            output: np.clip(values + np.nan_to_num(shift), 0, 1).astype(np.float32)
            for output, values in confidence.items()
        },
    )


def deal(images: Ints, seed: int) -> Ints:
    """[M] the fold of each box: all boxes of an image are in one, the folds are about as large."""
    from sklearn.model_selection import GroupKFold

    num_folds = min(_NUM_FOLDS, len(np.unique(images)))
    folds = np.zeros(len(images), np.int64)
    splitter = GroupKFold(num_folds, shuffle=True, random_state=seed)
    for number, (_, held_out) in enumerate(splitter.split(images, groups=images)):
        folds[held_out] = number
    return folds


def taken_by(
    choice: Choice, confidence: Mapping[Output, Floats], categories: pa.DictionaryArray | None
) -> Ints:
    """[M] the place, among the sorted outputs, of the one that is taken for each box."""
    outputs = sorted(confidence)
    scores = np.stack([confidence[output] for output in outputs], axis=1)  # [M, O]
    return choice(outputs, scores, categories)


def best_of(
    taken: Ints, confidence: Mapping[Output, Floats], iou: Mapping[Output, Floats]
) -> tuple[Floats, Floats]:
    """[M] the confidence of the output that is taken for each box, and its IoU."""
    outputs = sorted(confidence)
    scores = np.stack([confidence[output] for output in outputs], axis=1)  # [M, O]
    ious = np.stack([iou[output] for output in outputs], axis=1)
    places = np.arange(len(taken)), taken
    return scores[places], ious[places]


def _cross_fitted_taken(gold: GoldBoxes, confidence: Mapping[Output, Floats], folds: Ints) -> Ints:
    """[M] see Fitted: each fold by the rule of the others."""
    taken, categories = np.zeros(gold.num_boxes, np.int64), gold.categories
    for fold in np.unique(folds):
        mine = folds == fold
        told, held_out = (
            {output: values[rows] for output, values in confidence.items()}
            for rows in (~mine, mine)
        )
        iou = {output: gold.iou[output][~mine] for output in confidence}
        choice = fit_choice(told, iou, categories.filter(pa.array(~mine)))
        taken[mine] = taken_by(choice, held_out, categories.filter(pa.array(mine)))
    return taken


def fit_curve(x: Floats, y: Floats) -> Curve:
    """The least squares line, rising or flat, between the lowest and the highest x.

    Recalibration by slope and intercept (Cox 1958); whoever asks cuts the outcome to [0, 1].
    Networks that were fitted to squared error need little more, and an isotonic map, tried first,
    cost 0.01 AUROC out of fold: its steps tie masks and change from fold to fold.
    """
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known].astype(np.float64), y[known].astype(np.float64)
    low, high = float(x.min()), float(x.max())
    variance = float(x.var())
    slope = (
        max(0.0, float(((x - x.mean()) * (y - y.mean())).mean()) / variance) if variance else 0.0
    )
    ends = np.array([low, high] if high > low else [low])
    line = y.mean() + slope * (ends - x.mean())
    return Curve(x=ends.astype(np.float32), y=line.astype(np.float32))


def fit_shifts(categories: NDArray[np.object_], residuals: Floats, boxes: Ints) -> dict[str, float]:
    """What is to be added for each category: its mean residual, shrunk the more the less it has.

    Empirical Bayes for a one-way layout: n / (n + s / t) of the mean, s the variance of residuals
    within a category and t that of the categories' own means (Efron & Morris 1975); the n are
    boxes, whose outputs are averaged first.
    """
    _, place = np.unique(boxes, return_inverse=True)
    of_box = np.bincount(place, residuals) / np.bincount(place)
    first = np.zeros(len(of_box), np.int64)
    first[place[::-1]] = np.arange(len(boxes))[::-1]
    names, code = np.unique(categories[first].astype(str), return_inverse=True)
    count = np.bincount(code)
    mean = np.bincount(code, of_box) / count
    within = float(np.square(of_box - mean[code]).sum() / max(1, len(of_box) - len(names)))
    between = float(np.average(np.square(mean), weights=count)) - within * len(names) / len(of_box)
    if between <= 0:
        return {}
    shrunk = mean * count / (count + within / between)
    return {str(name): round(float(shift), 5) for name, shift in zip(names, shrunk, strict=True)}


def _at_most(gold: GoldBoxes, limit: int, seed: int) -> GoldBoxes:
    """Whole images, drawn at random, until the limit is met."""
    if gold.num_boxes <= limit:
        return gold
    images = gold.codes("image_id")
    order = np.random.default_rng(seed).permutation(images.max() + 1)
    taken = np.cumsum(np.bincount(images)[order]) <= limit
    return gold.where(np.isin(images, order[taken]))


def _rows(gold: GoldBoxes, teacher: str, folds: Ints) -> _Rows:
    outputs = tuple(sorted(output for output in gold.iou if output.teacher == teacher))
    there = [np.flatnonzero(np.isfinite(gold.iou[output])) for output in outputs]
    box = np.concatenate([*there, np.zeros(0, np.int64)])
    column = np.repeat(np.arange(len(outputs)), [len(rows) for rows in there])
    categories = np.array(gold.words("category"), dtype=object)
    pairs = list(zip(outputs, there, strict=True))
    nothing = np.zeros(0, np.float32)
    return _Rows(
        outputs=outputs,
        box=box,
        column=column,
        features=np.concatenate([gold.features[output][rows] for output, rows in pairs])
        if pairs
        else nothing.reshape(0, 0),
        iou=np.concatenate([nothing, *(gold.iou[output][rows] for output, rows in pairs)]),
        fold=folds[box],
        category=categories[box],
    )


def _fit_head(
    rows: _Rows,
    names: Sequence[str],
    identity: Mapping[str, Any],  # Any: JSON
    seed: int,
) -> tuple[Head, Floats]:
    """The head, and [R] what heads of the other folds say."""
    raw = np.zeros(len(rows.iou), np.float32)
    for fold in np.unique(rows.fold):
        held_out = rows.fold == fold
        nets = _networks(rows, ~held_out, names, identity, _NUM_NETS_OF_A_FOLD, seed)
        raw[held_out] = nets.raw(rows.features[held_out])
    judged = np.zeros_like(raw)
    for fold in np.unique(rows.fold):
        held_out = rows.fold == fold
        curve, shifts = _second_stage(rows, raw, ~held_out)
        added = np.array([shifts.get(name, 0.0) for name in rows.category[held_out]], np.float32)
        judged[held_out] = np.clip(curve(raw[held_out]) + added, 0, 1)
    everything = np.ones(len(rows.iou), dtype=bool)
    curve, shifts = _second_stage(rows, raw, everything)
    nets = _networks(rows, everything, names, identity, _NUM_NETS, seed)
    return replace(nets, curve=curve, categories=shifts), judged


def _second_stage(rows: _Rows, raw: Floats, chosen: Bools) -> tuple[Curve, dict[str, float]]:
    curve = fit_curve(raw[chosen], rows.iou[chosen])
    residuals = rows.iou[chosen] - curve(raw[chosen])
    return curve, fit_shifts(rows.category[chosen], residuals, rows.box[chosen])


def _networks(
    rows: _Rows,
    chosen: Bools,
    names: Sequence[str],
    identity: Mapping[str, Any],  # Any: JSON
    num_nets: int,
    seed: int,
) -> Head:
    """A head without second stage: its networks' mean as it is."""
    values, iou = rows.features[chosen], rows.iou[chosen]
    known = np.isfinite(values)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, values, 0).sum(axis=0) / count
    spread = np.sqrt(np.where(known, np.square(values - mean), 0).sum(axis=0) / count)
    # A signal that is constant, or that nobody gives, says nothing: it stays at its mean, 0, and
    # nobody knows what follows if another dataset's masks have it.
    says_something = spread > 1e-6
    scale = np.where(says_something, spread, 1.0)
    inputs = np.clip(np.nan_to_num((values - mean) / scale, nan=0.0), -3, 3)
    nets = [_network(inputs, iou, seed + number) for number in range(num_nets)]
    return Head(
        teacher=identity, features=tuple(names), mean=mean.astype(np.float32),
        scale=scale.astype(np.float32),
        weights_in=np.stack([net.coefs_[0] * says_something[:, None] for net in nets]).astype(
            np.float32
        ),
        bias_in=np.stack([net.intercepts_[0] for net in nets]).astype(np.float32),
        weights_out=np.stack([net.coefs_[1][:, 0] for net in nets]).astype(np.float32),
        bias_out=np.stack([net.intercepts_[1][0] for net in nets]).astype(np.float32),
        curve=Curve(x=np.zeros(1, np.float32), y=np.zeros(1, np.float32)),
    )  # fmt: skip


def _network(inputs: Floats, iou: Floats, seed: int) -> Any:  # Any: scikit-learn has no types
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor

    # What little gold says is to be believed less.
    alpha = float(np.clip((_ENOUGH_ROWS / max(1, len(iou))) ** 2, 0.05, 1.0))
    epochs = int(np.clip(_MAX_STEPS * _BATCH // max(1, len(iou)), 10, _MAX_EPOCHS))
    net = MLPRegressor(
        hidden_layer_sizes=(_NUM_HIDDEN,), alpha=alpha, learning_rate_init=3e-3, max_iter=epochs,
        batch_size=min(_BATCH, len(iou)), n_iter_no_change=15, random_state=seed,
    )  # fmt: skip
    with warnings.catch_warnings():  # a bounded number of epochs is meant
        warnings.simplefilter("ignore", ConvergenceWarning)
        return net.fit(inputs.astype(np.float64), iou.astype(np.float64))


def _spread(rows: _Rows, values: Floats, num_boxes: int) -> dict[Output, Floats]:
    """Output -> [M]; NaN where it is not there."""
    found = {}
    for number, output in enumerate(rows.outputs):
        mine = rows.column == number
        spread = np.full(num_boxes, np.nan, np.float32)
        spread[rows.box[mine]] = values[mine]
        found[output] = spread
    return found


def _cross_fitted_curve(x: Floats, y: Floats, folds: Ints) -> Floats:
    """[M] each fold mapped by the curve of the others."""
    judged = np.zeros_like(x)
    for fold in np.unique(folds):
        held_out = folds == fold
        judged[held_out] = fit_curve(x[~held_out], y[~held_out])(x[held_out])
    return judged
