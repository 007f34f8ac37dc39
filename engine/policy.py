"""A policy decides, from raw signals alone, which masks are kept. It is data: a TOML file.

    name = "default"
    teachers = ["sam_vit_t"]      # in order of preference; the first mask that passes is taken
    use_human = true              # a human mask is kept as it is, whatever the teachers say

    [rules]
    min_predicted_iou = 0.7       # the rules a mask must meet, see RULES

    [categories.person]           # the same keys, for one category
    min_box_iou = 0.5

A rule on a signal that a teacher does not give (a filled box predicts no IoU) does not apply to
that teacher; a signal that is not a number always drops the mask.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.settings import with_overrides
from manifests.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A kind of rule: the column it reads, the side its bound lies on, and its drop reason."""

    column: str
    is_minimum: bool
    reason: str


RULES: Mapping[str, Rule] = {
    "min_predicted_iou": Rule(column="predicted_iou", is_minimum=True, reason="low_predicted_iou"),
    "min_stability": Rule(column="stability", is_minimum=True, reason="low_stability"),
    "min_mean_foreground": Rule(
        column="mean_foreground", is_minimum=True, reason="low_mean_foreground"
    ),
    "min_box_iou": Rule(column="box_iou", is_minimum=True, reason="low_box_iou"),
    "max_outside_fraction": Rule(column="outside_fraction", is_minimum=False, reason="outside_box"),
    "min_fill_ratio": Rule(column="fill_ratio", is_minimum=True, reason="low_fill_ratio"),
    "max_components": Rule(column="num_components", is_minimum=False, reason="too_many_parts"),
    "min_area_px": Rule(column="area_px", is_minimum=True, reason="too_small"),
    "max_area_px": Rule(column="area_px", is_minimum=False, reason="too_large"),
    # Of the whole image: SA-1B, too, left out masks of more than 95% of it.
    "max_image_fraction": Rule(column="image_fraction", is_minimum=False, reason="covers_image"),
}
"""In this order: the first rule that a mask breaks is its drop reason."""

NOT_FINITE = "signal_not_finite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """See the module's docstring. `rules` and `categories` hold bounds by name of rule."""

    name: str
    teachers: tuple[str, ...]
    rules: Mapping[str, float] = field(default_factory=dict)
    categories: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    use_human: bool = True

    def __post_init__(self) -> None:
        if not self.teachers and not self.use_human:
            raise InputError(f"policy '{self.name}': names no teachers, so it can keep nothing")
        if len(set(self.teachers)) != len(self.teachers):
            raise InputError(f"policy '{self.name}': names a teacher twice")
        for place, rules in (("rules", self.rules), *self.categories.items()):
            _check_rules(self.name, place, rules)

    def rules_of(self, category: str) -> dict[str, float]:
        """The bounds for a category, in the order of RULES."""
        merged = {**self.rules, **self.categories.get(category, {})}
        return {name: float(merged[name]) for name in RULES if name in merged}

    @staticmethod
    def from_mapping(values: Mapping[str, Any]) -> Policy:  # Any: parsed TOML
        """A policy from parsed TOML.

        Raises:
            InputError: an unknown key, an unknown rule, or a bound that is no number.
        """
        known = {"name", "teachers", "rules", "categories", "use_human"}
        if unknown := sorted(set(values) - known):
            raise InputError(
                f"policy: unknown key '{unknown[0]}'; known are {', '.join(sorted(known))}"
            )
        teachers = values.get("teachers", [])
        if not isinstance(teachers, list) or not all(isinstance(name, str) for name in teachers):
            raise InputError('policy: expected teachers = ["name", ...]')
        return Policy(
            name=str(values.get("name", "unnamed")),
            teachers=tuple(teachers),
            rules=values.get("rules", {}),
            categories=values.get("categories", {}),
            use_human=bool(values.get("use_human", True)),
        )

    @staticmethod
    def load(path: str, *, overrides: Sequence[str] = ()) -> Policy:
        """A policy from a TOML file, or from the name of one that comes with maskmill.

        `overrides` are words such as `rules.min_box_iou=0.8`.

        Raises:
            InputError: there is no such file, it is not TOML, or not a policy.
        """
        built_in = Path(__file__).parent / "policies" / f"{path}.toml"
        file = built_in if built_in.is_file() and "/" not in path else Path(path)
        try:
            values = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            names = sorted(found.stem for found in built_in.parent.glob("*.toml"))
            raise InputError(
                f"policy '{path}': {error.strerror}; give a TOML file or one of {', '.join(names)}"
            ) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"policy '{path}' is not TOML: {error}") from error
        return Policy.from_mapping(with_overrides({"name": file.stem, **values}, list(overrides)))


def judge(
    signals: Mapping[str, NDArray[np.float64]],
    categories: NDArray[np.object_],
    policy: Policy,
) -> NDArray[np.object_]:
    """[N] the first broken rule's reason for each mask, None where it passes all.

    Args:
        signals: column name -> [N] values; NaN stands for "the teacher gives no such signal",
            infinity for a value that is not a number.
        categories: [N] names.
        policy: the rules.
    """
    reasons: NDArray[np.object_] = np.full(len(categories), None, dtype=object)
    is_odd = np.zeros(len(categories), dtype=bool)
    for values in signals.values():
        is_odd |= np.isinf(values)
    reasons[is_odd] = NOT_FINITE
    special = [name for name in policy.categories if name in set(categories)]
    is_general = ~np.isin(categories, special)
    groups = [(is_general, policy.rules_of(""))]
    groups += [(categories == name, policy.rules_of(name)) for name in special]
    for is_member, rules in groups:
        for name, bound in rules.items():
            rule = RULES[name]
            values = signals[rule.column]
            is_broken = values < bound if rule.is_minimum else values > bound
            is_first = is_broken & is_member & np.equal(reasons, None)
            reasons[is_first] = rule.reason
    return reasons


def _check_rules(policy: str, place: str, rules: object) -> None:
    if not isinstance(rules, Mapping):
        raise InputError(f"policy '{policy}': expected a table [{place}], got {rules!r}")
    for name, bound in rules.items():
        if name not in RULES:
            raise InputError(
                f"policy '{policy}': unknown rule '{name}' in [{place}]; known are "
                f"{', '.join(RULES)}"
            )
        if isinstance(bound, bool) or not isinstance(bound, int | float) or not np.isfinite(bound):
            raise InputError(
                f"policy '{policy}': {name} in [{place}]: expected a number, got {bound!r}"
            )
