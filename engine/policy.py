"""A policy decides which masks are kept, and what they count for. It is data: a TOML file.

    name = "default"
    teachers = ["sam_vit_t"]      # in order of preference; the first mask that passes is taken
    use_human = true              # a human mask is kept as it is, whatever the teachers say

    [rules]
    min_predicted_iou = 0.7       # the rules a mask must meet, see RULES

    [categories.person]           # the same keys, for one category
    min_box_iou = 0.5

    [target]                      # needs calibrated confidence: 'maskmill calibrate'
    max_risk = 0.05               # certified: at most 5% of the kept masks ...
    iou_bound = 0.7               # ... have an IoU under 0.7 ...
    delta = 0.05                  # ... with 95% confidence; or mean_iou = 0.85, without certificate

    [floor]                       # of each category, its most confident masks stay in any case
    min_share = 0.2

    [weights]                     # what a mask counts for in training
    by = "confidence"

A rule on a signal that a teacher does not give (a filled box predicts no IoU) does not apply to
that teacher; a signal that is not a number always drops the mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from manifests.errors import InputError
from manifests.settings import did_you_mean, from_mapping, read_toml, with_overrides
from teachers.registry import ALIASES

_BUILT_IN = Path(__file__).parent / "policies"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A kind of rule.

    Attributes:
        column: the signal it reads.
        is_minimum: the side on which its bound lies.
        reason: the drop reason of a mask that breaks it.
        is_share: its bounds lie in [0, 1]; otherwise they are counts, 0 or more.
    """

    column: str
    is_minimum: bool
    reason: str
    is_share: bool = True


def _at_least(column: str, reason: str, *, is_share: bool = True) -> Rule:
    return Rule(column=column, is_minimum=True, reason=reason, is_share=is_share)


def _at_most(column: str, reason: str, *, is_share: bool = True) -> Rule:
    return Rule(column=column, is_minimum=False, reason=reason, is_share=is_share)


IMAGE_FRACTION = "image_fraction"
CONFIDENCE = "confidence"
"""The signals that are no columns of a mask: its area as a share of its image's, and its expected
IoU, which has a layer of its own."""

RULES: Mapping[str, Rule] = {
    "min_predicted_iou": _at_least("predicted_iou", "low_predicted_iou"),
    "min_stability": _at_least("stability", "low_stability"),
    "min_mean_foreground": _at_least("mean_foreground", "low_mean_foreground"),
    "min_box_iou": _at_least("box_iou", "low_box_iou"),
    "max_outside_fraction": _at_most("outside_fraction", "outside_box"),
    "min_fill_ratio": _at_least("fill_ratio", "low_fill_ratio"),
    "max_components": _at_most("num_components", "too_many_parts", is_share=False),
    "min_area_px": _at_least("area_px", "too_small", is_share=False),
    "max_area_px": _at_most("area_px", "too_large", is_share=False),
    # SA-1B, too, left out masks of more than 95% of the image.
    "max_image_fraction": _at_most(IMAGE_FRACTION, "covers_image"),
    "min_confidence": _at_least(CONFIDENCE, "low_confidence"),
}
"""In this order: the first rule that a mask breaks is its drop reason."""

NOT_FINITE = "signal_not_finite"
_REASONS = pa.array([None, NOT_FINITE, *(rule.reason for rule in RULES.values())], pa.string())


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the kept masks are to be like as a whole; exactly one of the first two.

    Attributes:
        mean_iou: their expected mean IoU, at least.
        max_risk: the share of them with an IoU under `iou_bound`, at most, certified.
        iou_bound: see there.
        delta: the chance that the certificate is wrong.
    """

    mean_iou: float | None = None
    max_risk: float | None = None
    iou_bound: float = 0.7
    delta: float = 0.05

    def __post_init__(self) -> None:
        if (self.mean_iou is None) == (self.max_risk is None):
            raise InputError("[target]: expected mean_iou or max_risk, and not both")
        for name in ("mean_iou", "max_risk", "iou_bound", "delta"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise InputError(f"[target]: {name}: expected between 0 and 1, got {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """How much of each category stays whatever the target says, its most confident masks first.

    Attributes:
        min_share: of the category's masks, in [0, 1].
        min_masks: at least so many, if there are.
    """

    min_share: float = 0.0
    min_masks: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.min_share <= 1 or self.min_masks < 0:
            raise InputError(
                "[floor]: expected min_share from 0 to 1 and min_masks of 0 or more, got "
                f"{self.min_share!r} and {self.min_masks!r}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What kept masks count for in training, beside human masks, which count 1.

    Without a target they take the place of drops.

    Attributes:
        by: `none`: 1; `confidence`: confidence ** power.
        power: see there.
    """

    by: Literal["none", "confidence"] = "none"
    power: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.power <= 100:
            raise InputError(
                f"[weights]: power: expected above 0 and at most 100, got {self.power!r}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """See the module's docstring. `rules` and `categories` hold bounds by name of rule.

    With a target, a floor, weights by confidence or a rule on it, the masks of `teachers` (none
    named: of all) are chosen by confidence; else the first that passes is taken.

    Other names of teachers are brought to the registry's own, after which layers are called.
    """

    name: str = "unnamed"
    teachers: tuple[str, ...] = ()
    rules: Mapping[str, float] = field(default_factory=dict)
    categories: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    use_human: bool = True
    target: Target | None = None
    floor: Floor | None = None
    weights: Weights | None = None

    def __post_init__(self) -> None:
        teachers = tuple(ALIASES.get(name, name) for name in self.teachers)
        object.__setattr__(self, "teachers", teachers)
        if not teachers and not self.use_human and not self.uses_confidence:
            raise InputError(
                f"policy '{self.name}': names no teachers and no humans, so it can keep nothing; "
                'add teachers = ["sam_vit_t"]'
            )
        if len(set(teachers)) != len(teachers):
            raise InputError(
                f"policy '{self.name}': expected every teacher once, got {', '.join(teachers)}; "
                "take one out"
            )
        if self.floor and not self.target:
            raise InputError(
                f"policy '{self.name}': [floor] keeps masks that a target would drop, but there is "
                "no [target]; add one, or take the floor out"
            )
        _check_tables(f"policy '{self.name}'", self.rules, self.categories)

    @property
    def uses_confidence(self) -> bool:
        """Whether it needs the layer `confidence`."""
        by_weight = self.weights is not None and self.weights.by == "confidence"
        rules = (self.rules, *self.categories.values())
        return bool(
            self.target or self.floor or by_weight or any("min_confidence" in r for r in rules)
        )

    def bound(self, rule: str, category: str) -> float | None:
        """The bound of a rule for a category; None: the rule does not apply."""
        return self.categories.get(category, {}).get(rule, self.rules.get(rule))

    @staticmethod
    def from_mapping(values: Mapping[str, Any], *, name: str = "unnamed") -> Policy:
        """A policy from parsed TOML, called `name` unless it names itself.

        Raises:
            InputError: an unknown key or rule (names the nearest), or a value of another type.
        """
        where = f"policy '{name}'"
        _check_tables(where, values.get("rules", {}), values.get("categories", {}))
        try:
            return from_mapping(Policy, {"name": name, **values}, where=where)
        except InputError as error:
            if not str(error).startswith("["):
                raise
            # A table's own check does not know whose table it is.
            raise InputError(f"{where}: {error}") from error

    @staticmethod
    def load(path: str, *, overrides: Sequence[str] = ()) -> Policy:
        """A policy from a TOML file, or from the name of one that comes with maskmill.

        `overrides` are words such as `rules.min_box_iou=0.8`.

        Raises:
            InputError: there is no such file, it is not TOML, or not a policy.
        """
        built_in = {file.stem: file for file in sorted(_BUILT_IN.glob("*.toml"))}
        file = built_in.get(path, Path(path))
        if not file.exists():
            beside = [str(near) for near in file.parent.glob("*.toml")]
            raise InputError(
                f"policy '{path}': there is no such file, and none of that name comes with "
                f"maskmill; {did_you_mean(path, [*built_in, *sorted(beside)])}"
            )
        values = read_toml(file, what="policy")
        return Policy.from_mapping(with_overrides(values, overrides), name=file.stem)


def judge(
    signals: Mapping[str, NDArray[np.float32] | NDArray[np.float64]],
    categories: pa.DictionaryArray,
    policy: Policy,
) -> pa.StringArray:
    """[N] the reason of the first rule that each mask breaks, null where it breaks none.

    Args:
        signals: a rule's column -> [N] values; NaN stands for "the teacher gives no such signal",
            infinity for a value that is not a number.
        categories: [N] category names.
        policy: the rules.
    """
    names = categories.dictionary.to_pylist()
    codes = categories.indices.to_numpy(zero_copy_only=False)  # [N] positions in `names`
    has_special = any(category in policy.categories for category in names)
    broken = np.zeros(len(codes), dtype=np.int8)  # [N] positions in _REASONS
    # Backwards: what is written last, the first rule that is broken, stays.
    for position, (name, rule) in reversed(list(enumerate(RULES.items(), start=2))):
        bounds = [policy.rules.get(name)]
        if has_special:
            bounds = [policy.bound(name, category) for category in names]
        if all(bound is None for bound in bounds):
            continue
        values = signals[rule.column]
        # Rounded like the values themselves: 0.7 as float32 is not less than 0.7.
        limits = np.array([np.nan if bound is None else bound for bound in bounds], values.dtype)
        # One, or [N]; a NaN on either side breaks nothing.
        limit = limits[codes] if has_special else limits[0]
        broken[values < limit if rule.is_minimum else values > limit] = position
    for values in signals.values():
        broken[np.isinf(values)] = 1
    return _REASONS.take(pa.array(broken))


def _check_tables(where: str, rules: object, categories: object) -> None:
    if not isinstance(categories, Mapping):
        raise InputError(f"{where}: expected tables [categories.NAME], got {categories!r}")
    _check_rules(f"{where}: [rules]", rules)
    for category, special in categories.items():
        _check_rules(f"{where}: [categories.{category}]", special)


def _check_rules(place: str, rules: object) -> None:
    if not isinstance(rules, Mapping):
        raise InputError(f"{place}: expected a table of rules, got {rules!r}")
    for name, bound in rules.items():
        rule = RULES.get(name)
        if rule is None:
            raise InputError(f"{place}: unknown rule '{name}'; {did_you_mean(name, RULES)}")
        highest, expected = (1.0, "from 0 to 1") if rule.is_share else (np.inf, "of 0 or more")
        is_number = isinstance(bound, int | float) and not isinstance(bound, bool)
        if not is_number or not 0 <= bound <= highest or not np.isfinite(bound):
            raise InputError(f"{place}: {name}: expected a number {expected}, got {bound!r}")
