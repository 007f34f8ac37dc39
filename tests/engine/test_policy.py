"""Policies: what a TOML file may say, and which rule a mask breaks first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.policy import NOT_FINITE, RULES, Policy, Target, Weights, judge
from manifests.errors import InputError, SourceSyntaxError

COLUMNS = sorted({rule.column for rule in RULES.values()})
GOOD = {
    "predicted_iou": 0.9, "stability": 0.9, "mean_foreground": 0.9, "box_iou": 0.9,
    "outside_fraction": 0.0, "fill_ratio": 0.7, "num_components": 1, "area_px": 5000,
    "image_fraction": 0.2, "confidence": 0.9,
}  # fmt: skip


def policy(rules: dict[str, float] | None = None, **fields: Any) -> Policy:
    return Policy(name="test", teachers=("box",), rules=rules or {}, **fields)


def judged(
    rows: list[dict[str, float]], chosen: Policy, categories: list[str] | None = None
) -> list[str | None]:
    """Reasons of rows that are GOOD but for what they say; float32 as stored."""
    signals = {
        name: np.array([{**GOOD, **row}[name] for row in rows], dtype=np.float32)
        for name in COLUMNS
    }
    names = pa.array(categories or ["shoe"] * len(rows)).dictionary_encode()
    found: list[str | None] = judge(signals, names, chosen).to_pylist()
    return found


def test_every_rule_has_its_reason_and_its_bound_passes() -> None:
    bounds = {
        "min_predicted_iou": (0.7, 0.69), "min_stability": (0.8, 0.79),
        "min_mean_foreground": (0.6, 0.59), "min_box_iou": (0.7, 0.69),
        "max_outside_fraction": (0.1, 0.11), "min_fill_ratio": (0.3, 0.29),
        "max_components": (3, 4), "min_area_px": (64, 63), "max_area_px": (9000, 9001),
        "max_image_fraction": (0.95, 0.96), "min_confidence": (0.6, 0.59),
    }  # fmt: skip
    assert list(bounds) == list(RULES)
    for name, (bound, beyond) in bounds.items():
        rule = RULES[name]
        rows = [{rule.column: bound}, {rule.column: beyond}, {}]
        assert judged(rows, policy({name: bound})) == [None, rule.reason, None], name
    assert len({rule.reason for rule in RULES.values()}) == len(RULES)


def test_the_first_broken_rule_is_the_reason() -> None:
    rules = {"min_area_px": 64, "min_box_iou": 0.5, "min_predicted_iou": 0.7}
    rows = [
        {"area_px": 1, "box_iou": 0.1, "predicted_iou": 0.1},
        {"area_px": 1, "box_iou": 0.1},
        {"area_px": 1},
    ]
    assert judged(rows, policy(rules)) == ["low_predicted_iou", "low_box_iou", "too_small"]


def test_a_signal_the_teacher_does_not_give_breaks_nothing_but_an_odd_one_drops() -> None:
    rules = {"min_predicted_iou": 0.7, "min_box_iou": 0.5}
    rows = [
        {"predicted_iou": np.nan},
        {"predicted_iou": np.inf},
        {"stability": np.inf, "box_iou": 0.1},  # no rule reads it, and it is still wrong
        {"predicted_iou": np.nan, "box_iou": 0.1},
    ]
    assert judged(rows, policy(rules)) == [None, NOT_FINITE, NOT_FINITE, "low_box_iou"]


def test_categories_override_single_rules() -> None:
    chosen = policy(
        {"min_box_iou": 0.5, "min_area_px": 64},
        categories={"thin": {"min_box_iou": 0.1}, "big": {"min_area_px": 6000}},
    )
    rows = [{"box_iou": 0.3}] * 2 + [{}] * 3 + [{"area_px": 10}]
    categories = ["shoe", "thin", "shoe", "thin", "big", "thin"]
    assert judged(rows, chosen, categories) == [
        "low_box_iou", None, None, None, "too_small", "too_small",
    ]  # fmt: skip


def test_no_rows() -> None:
    signals = {name: np.zeros(0, np.float32) for name in COLUMNS}
    empty = pa.array([], pa.string()).dictionary_encode()
    assert len(judge(signals, empty, policy({"min_box_iou": 0.5}))) == 0


SIGNAL = st.floats(0, 1, width=32) | st.just(float("nan")) | st.just(float("inf"))
ROW = st.fixed_dictionaries(dict.fromkeys(COLUMNS, SIGNAL))
RULE_BOUNDS = st.dictionaries(st.sampled_from(list(RULES)), st.floats(0, 1))


@settings(deadline=None)
@given(st.lists(ROW, min_size=1, max_size=20), RULE_BOUNDS, st.sampled_from(list(RULES)), st.data())
def test_tightening_a_bound_never_keeps_more(
    rows: list[dict[str, float]], rules: dict[str, float], name: str, data: st.DataObject
) -> None:
    loose = data.draw(st.floats(0, 1))
    tight = data.draw(st.floats(loose, 1) if RULES[name].is_minimum else st.floats(0, loose))
    before = judged(rows, policy({**rules, name: loose}))
    after = judged(rows, policy({**rules, name: tight}))
    assert all(old is None for old, new in zip(before, after, strict=True) if new is None)
    without = judged(rows, policy({key: rules[key] for key in rules if key != name}))
    assert all(old is None for old, new in zip(without, before, strict=True) if new is None)


@settings(deadline=None)
@given(st.lists(ROW, min_size=1, max_size=20), RULE_BOUNDS)
def test_the_reason_is_the_first_broken_rule_whatever_the_signals(
    rows: list[dict[str, float]], rules: dict[str, float]
) -> None:
    def expected(row: dict[str, float]) -> str | None:
        if np.isinf(list(row.values())).any():
            return NOT_FINITE
        for name, rule in RULES.items():
            value, bound = np.float32(row[rule.column]), np.float32(rules.get(name, np.nan))
            if value < bound if rule.is_minimum else value > bound:
                return rule.reason
        return None

    assert judged(rows, policy(rules)) == [expected(row) for row in rows]


def test_the_built_in_policies_load() -> None:
    default = Policy.load("default")
    assert default.name == "default"
    assert default.bound("min_area_px", "anything") == 64
    assert default.use_human


def test_a_file_and_words_over_it(tmp_path: Path) -> None:
    path = tmp_path / "strict.toml"
    path.write_text(
        'teachers = ["mobile_sam", "box"]\nuse_human = false\n[rules]\nmin_area_px = 10\n'
        '[categories."wine glass"]\nmin_box_iou = 0.25\n'
    )
    chosen = Policy.load(str(path), overrides=["rules.min_area_px=20", "rules.max_components=3"])
    assert chosen == Policy(
        name="strict",
        teachers=("sam_vit_t", "box"),
        rules={"min_area_px": 20, "max_components": 3},
        categories={"wine glass": {"min_box_iou": 0.25}},
        use_human=False,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("techers = []", "unknown key 'techers'; did you mean 'teachers'"),
        ("teachers = 'box'", "teachers: expected 'array', got 'str'"),
        ("teachers = [1]", "expected 'str', got 'int'"),
        ('teachers = ["box", "box"]', "expected every teacher once, got box, box"),
        ('teachers = ["sam_vit_t", "mobile_sam"]', "expected every teacher once"),
        ("use_human = false", "names no teachers and no humans"),
        ('use_human = "no"', "use_human: expected 'bool', got 'str'"),
        ("rules = 3", r"\[rules\]: expected a table of rules, got 3"),
        ("[rules]\nmin_boxiou = 1", "unknown rule 'min_boxiou'; did you mean 'min_box_iou'"),
        ("[rules]\nmin_box_iou = '1'", "min_box_iou: expected a number from 0 to 1, got '1'"),
        ("[rules]\nmin_box_iou = true", "expected a number from 0 to 1, got True"),
        ("[rules]\nmin_box_iou = nan", "expected a number from 0 to 1, got nan"),
        ("[rules]\nmin_box_iou = 70", "expected a number from 0 to 1, got 70"),
        ("[rules]\nmin_area_px = -1", "expected a number of 0 or more, got -1"),
        ("[rules]\nmax_area_px = inf", "expected a number of 0 or more, got inf"),
        ("categories = 1", r"expected tables \[categories.NAME\], got 1"),
        ("[categories]\ncat = 1", r"\[categories.cat\]: expected a table of rules, got 1"),
        ("[categories.cat]\nmin_x = 1", r"\[categories.cat\]: unknown rule 'min_x'"),
        ("[rules]\nmin_confidence = 2", "min_confidence: expected a number from 0 to 1, got 2"),
        ("[target]", r"\[target\]: expected mean_iou or max_risk, and not both"),
        ("[target]\nmean_iou = 0.8\nmax_risk = 0.1", "expected mean_iou or max_risk, and not both"),
        ("[target]\ndelta = 0.1", "expected mean_iou or max_risk, and not both"),
        ("[target]\nmean_iou = 0.0", r"\[target\]: mean_iou: expected between 0 and 1, got 0.0"),
        ("[target]\nmax_risk = 1.0", "max_risk: expected between 0 and 1, got 1.0"),
        ("[target]\nmax_risk = nan", "max_risk: expected between 0 and 1, got nan"),
        ("[target]\nmax_risk = 0.1\niou_bound = 70", "iou_bound: expected between 0 and 1, got 70"),
        ("[target]\nmax_risk = 0.1\ndelta = -1", "delta: expected between 0 and 1, got -1"),
        ("[target]\nmax_risk = '5%'", "target.max_risk: expected .*'float.* got 'str'"),
        ("[target]\nmax_rsk = 0.1", "unknown key 'max_rsk' in target; did you mean 'max_risk'"),
        ("target = 0.05", "target: expected 'object.*got 'float'"),
        ("[floor]\nmin_share = 1.5", r"\[floor\]: expected min_share from 0 to 1 .* got 1.5 and 0"),
        ("[floor]\nmin_share = nan", r"\[floor\]: expected min_share from 0 to 1"),
        ("[floor]\nmin_masks = -1", r"min_masks of 0 or more, got 0.0 and -1"),
        ("[floor]\nmin_share = 0.2", r"\[floor\] keeps masks that a target would drop"),
        ("[floor]\nmin_masks = 0.5", "floor.min_masks: expected 'int', got 'float'"),
        ("[weights]\nby = 'confidense'", "weights.by: expected one of none, confidence, got"),
        ("[weights]\npower = 0", "power: expected above 0 and at most 100, got 0"),
        ("[weights]\npower = 101.0", "power: expected above 0 and at most 100, got 101.0"),
        ("[weights]\npower = nan", "power: expected above 0 and at most 100, got nan"),
    ],
)  # fmt: skip
def test_mistakes_in_a_file_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        Policy.load(str(path))
    assert "policy 'wrong'" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "uses"),
    [
        ("", False),
        ("[rules]\nmin_predicted_iou = 0.5", False),
        ("[rules]\nmin_confidence = 0.0", True),
        ("[categories.bag]\nmin_confidence = 0.5", True),
        ("[target]\nmean_iou = 0.8", True),
        ("[target]\nmax_risk = 0.05", True),
        ("[floor]\nmin_share = 0.2\n[target]\nmean_iou = 0.8", True),
        ("[weights]\nby = 'confidence'", True),
        ("[weights]\npower = 2", False),
    ],
)  # fmt: skip
def test_which_policies_need_confidence(tmp_path: Path, text: str, uses: bool) -> None:
    path = tmp_path / "some.toml"
    path.write_text(text)
    assert Policy.load(str(path), overrides=['teachers=["box"]']).uses_confidence is uses


def test_by_confidence_no_teachers_means_all_of_them(tmp_path: Path) -> None:
    path = tmp_path / "some.toml"
    path.write_text("use_human = false\n[target]\nmax_risk = 0.05\niou_bound = 0.75")
    chosen = Policy.load(str(path), overrides=["target.delta=0.1", "weights.by=confidence"])
    assert chosen.teachers == ()
    assert chosen.target == Target(max_risk=0.05, iou_bound=0.75, delta=0.1)
    assert chosen.weights == Weights(by="confidence", power=1.0)
    with pytest.raises(InputError, match="names no teachers and no humans"):
        Policy(use_human=False, weights=Weights(power=2))


def test_files_that_are_not_there_or_broken(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"policy 'defualt'.*did you mean 'default'"):
        Policy.load("defualt")
    (tmp_path / "strict.toml").write_text("x = = 1")
    with pytest.raises(InputError, match=r"did you mean '.*strict\.toml'"):
        Policy.load(str(tmp_path / "strikt.toml"))
    with pytest.raises(SourceSyntaxError, match="line 1, column 5"):
        Policy.load(str(tmp_path / "strict.toml"))
