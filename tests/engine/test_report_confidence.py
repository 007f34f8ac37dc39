"""The part on confidence: what is promised and how true it is; nothing where there is none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.confidence.figures import reliability
from engine.demo_boxes import ASTRONAUT, CAT, COFFEE
from engine.policy import Policy, Target
from engine.report import ReportOptions, write_report
from engine.report_confidence_rows import confidence_rows
from engine.report_confidence_survey import (
    BEST_DROPPED,
    BEST_KEPT,
    DISAGREE,
    MAX_PER_IMAGE,
    WORST_KEPT,
    survey_confidence,
)
from manifests.dataset import Dataset
from tests.engine.report_chain import Chain

EVIL = "<script>alert('x')</script>&\"'"
BY_CONFIDENCE = Policy(name="sure", target=Target(max_risk=0.25), use_human=False)
CERTIFICATE = {
    "max_risk": 0.25, "iou_bound": 0.7, "delta": 0.05, "threshold": 0.5, "num_gold": 40,
    "num_images": 20, "num_bad": 3, "upper_bound": 0.21, "population": 9, "design_effect": 1.0,
    "sentence": "with 95% confidence it is as it should be",
}  # fmt: skip


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    """Two photos with masks of one teacher; 11 boxes, the last 4 on the second photo."""
    made = Chain(tmp_path)
    made.ingest((ASTRONAUT, COFFEE))
    made.label("sam")
    return made


def page_of(dataset: Dataset, folder: Path, **options: Any) -> str:
    target = folder / "report.html"
    write_report(dataset, target, options=ReportOptions(**{"max_photos": 1, **options}))
    return target.read_text(encoding="utf-8")


def rising(chain: Chain, low: float = 0.3) -> list[float | None]:
    """A confidence for each box: the further down, the surer."""
    return [round(low + 0.05 * row, 3) for row in range(len(chain.boxes))]


def quality(chain: Chain, kept: int, **more: Any) -> dict[str, Any]:
    size = len(chain.boxes)
    return {
        "calibrator": "0" * 64, "is_prior": False, "threshold": 0.5, "num_rows": size,
        "num_kept": kept, "kept_share": kept / size, "expected_mean_iou": 0.8125,
        "certificate": None, "notes": [], "categories": {}, **more,
    }  # fmt: skip


def figures(gold: list[tuple[float, float]]) -> dict[str, Any]:
    confidence, iou = (np.array(values, np.float32) for values in zip(*gold, strict=True))
    own = {
        "num_images": 2, "num_boxes": len(gold), "iou_bound": 0.7, "auroc": 0.875,
        "calibration_error": 0.0625, "share_kept_at_5_percent": 0.375,
        "mean_iou": {"fused": 0.75, "oracle": 0.8, "sam": 0.7}, "risk_at_coverage": {},
        "reliability": reliability(confidence, iou),
    }  # fmt: skip
    return own | {"certify": own, "importance": {"sam": {"stability": 0.25, "box_iou": 0.125}}}


def with_gold(chain: Chain) -> Dataset:
    """Gold on every box, the first half of which calibrates."""
    gold = [
        (row, "calibrate" if row < 4 else "certify", 0.2 + 0.06 * row, 0.3 + 0.05 * row)
        for row in range(len(chain.boxes))
    ]
    pairs = [(confidence, iou) for _, _, iou, confidence in gold]
    return chain.calibrate({"sam": rising(chain)}, gold=chain.gold(gold), figures=figures(pairs))


def headings(page: str) -> list[str]:
    return re.findall(r"<h2[^>]*>([^<]*?) *<", page)


def test_without_confidence_the_page_is_as_before(chain: Chain, tmp_path: Path) -> None:
    page = page_of(chain.filter({0: "low_box_iou"}), tmp_path)
    assert not [name for name in headings(page) if "onfidence" in name or "Masks to" in name]
    assert "<svg" not in page
    assert "mean predicted IoU" in page


def test_promise_and_certificate_come_first(chain: Chain, tmp_path: Path) -> None:
    with_gold(chain)
    told = quality(chain, 7, certificate=CERTIFICATE)
    dataset = chain.filter({}, policy=BY_CONFIDENCE, quality=told)
    page = page_of(dataset, tmp_path)
    head = page[: page.index("<nav>")]
    for text in ("63.6%", "0.812", "≤ 25.0%", "With 95% confidence it is as it should be.",
                 "7 of 11 masks", "Upper bound 21.0%"):  # fmt: skip
        assert text in head, text
    assert "prior" not in head
    assert "max_risk = 0.25" in page


def test_trust_is_drawn_where_there_is_gold(chain: Chain, tmp_path: Path) -> None:
    page = page_of(with_gold(chain), tmp_path)
    for text in ("0.875", "0.062", "37.5%", "held-out gold (11 masks)", "perfect", "10 to 90%",
                 "by confidence", "by the teacher", "by the truth", "best possible", "stability",
                 "fitted by hand", "Promised most, missed most", "the human mask"):  # fmt: skip
        assert text in page, text
    assert page.count("<svg") == page.count("</svg>") == 6


def test_a_prior_is_announced_loudly_and_nothing_is_claimed(chain: Chain, tmp_path: Path) -> None:
    chain.calibrate({"sam": rising(chain)}, figures=figures([(0.5, 0.5)] * 3))
    told = quality(chain, 11, is_prior=True, notes=["another note"])
    page = page_of(chain.filter({}, policy=BY_CONFIDENCE, quality=told), tmp_path)
    assert page.count('class="notice loud"') == 1
    assert "confidence comes from the prior" in page
    assert "another note" in page
    assert "No human mask of this dataset was used" in page
    assert "AUROC" not in page
    assert "0.875" not in page


def test_gold_that_is_not_in_the_store(chain: Chain, tmp_path: Path) -> None:
    dataset = with_gold(chain)
    gold = str((dataset.commit.attached or {})["gold"])
    (tmp_path / "store" / "objects" / gold[:2] / gold).unlink()
    page = page_of(dataset, tmp_path)
    assert "Is it true?" in page
    assert "Promised most" not in page


def test_what_changed_since_the_filter_is_said(chain: Chain, tmp_path: Path) -> None:
    with_gold(chain)
    told = quality(chain, 3)
    page = page_of(chain.filter({}, policy=BY_CONFIDENCE, quality=told), tmp_path)
    assert "3 kept of 11 masks, now there are 11 of 11" in page
    assert "calibrated anew since" in page


def test_a_later_filter_without_confidence_promises_nothing(chain: Chain, tmp_path: Path) -> None:
    with_gold(chain)
    chain.filter({}, policy=BY_CONFIDENCE, quality=quality(chain, 11))
    page = page_of(chain.filter({1: "low_box_iou"}), tmp_path)
    assert "expected mean IoU of the kept" not in page
    assert "Is it true?" in page


def test_calibrated_and_not_judged(chain: Chain, tmp_path: Path) -> None:
    page = page_of(with_gold(chain), tmp_path)
    assert "Most confident" in page
    assert "not judged yet" in page
    assert "kept share" not in page


def test_nothing_is_promised_of_nothing(chain: Chain, tmp_path: Path) -> None:
    with_gold(chain)
    told = quality(chain, 0, num_rows=0, kept_share=0.0, expected_mean_iou=None)
    page = page_of(chain.filter({}, policy=BY_CONFIDENCE, quality=told), tmp_path)
    assert "there is nothing to promise" in page
    assert "No certificate" not in page


def test_nobody_has_a_mask(chain: Chain, tmp_path: Path) -> None:
    page = page_of(chain.calibrate({"sam": [None] * 11}), tmp_path)
    assert "11 boxes have no mask of a teacher" in page
    assert "Masks to look at" not in page


def test_escapes_everything_from_data(tmp_path: Path) -> None:
    chain = Chain(tmp_path)
    chain.ingest((CAT,), category=EVIL, file_name=EVIL, source=EVIL)
    chain.label(EVIL)
    confidence: dict[str, list[float | None]] = {EVIL: [0.5] * len(chain.boxes)}
    made = figures([(0.5, 0.5)]) | {"importance": {EVIL: {EVIL: 1.0}}}
    made["certify"]["mean_iou"][EVIL] = 0.5
    chain.calibrate(confidence, gold=chain.gold([(0, "certify", 0.5, 0.5)]), figures=made)
    told = quality(chain, 0, notes=[EVIL], certificate=CERTIFICATE | {"sentence": EVIL})
    dropped = dict.fromkeys(range(len(chain.boxes)), EVIL)
    policy = Policy(name=EVIL, target=Target(max_risk=0.25))
    page = page_of(chain.filter(dropped, teacher=EVIL, policy=policy, quality=told), tmp_path)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 20
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)


def test_sheets_hold_the_extremes(chain: Chain) -> None:
    chain.calibrate({"sam": rising(chain)})
    dataset = chain.filter({2: "low_confidence", 9: "low_box_iou"}, policy=BY_CONFIDENCE)
    sheets = survey_confidence(dataset).sheets
    # 7 boxes on the first photo, 4 on the second; two of each at most.
    assert [ref.row for ref in sheets[BEST_KEPT]] == [10, 8, 6, 5]
    assert [ref.row for ref in sheets[WORST_KEPT]] == [0, 1, 7, 8]
    assert [ref.row for ref in sheets[BEST_DROPPED]] == [9, 2]
    assert [ref.reason for ref in sheets[BEST_DROPPED]] == ["low_box_iou", "low_confidence"]
    assert [ref.confidence[0] for ref in sheets[BEST_DROPPED]] == pytest.approx([0.75, 0.4])
    assert DISAGREE not in sheets or not sheets[DISAGREE]


def test_disagreement_is_between_the_two_most_trusted(chain: Chain, tmp_path: Path) -> None:
    chain.label("grabcut")
    chain.label("weak")
    chain.agree([0.5 + 0.01 * row for row in range(10)] + [0.125])
    chain.calibrate(
        {"sam": rising(chain), "grabcut": [0.28] * 11, "weak": [0.1] * 10 + [0.99]}
    )  # fmt: skip
    dataset = chain.filter({}, policy=BY_CONFIDENCE)
    found = survey_confidence(dataset).sheets[DISAGREE]
    # On the last box weak is trusted more than grabcut, and nobody compared it with sam.
    assert [ref.row for ref in found] == [0, 1, 7, 8]
    assert found[0].outputs[0].name == "sam"
    assert found[0].teachers_iou == pytest.approx(0.5)
    assert "IoU of the two" in page_of(dataset, tmp_path)


def test_a_human_mask_is_judged_by_nobody(chain: Chain) -> None:
    chain.label("human", absent=tuple(range(1, 11)))
    chain.calibrate({"sam": rising(chain)})
    dataset = chain.filter({}, policy=BY_CONFIDENCE)
    rows = confidence_rows(dataset, chain.shard)
    assert rows is not None
    assert rows.has_human.tolist() == [True] + [False] * 10
    survey = survey_confidence(dataset)
    assert (survey.num_rows, survey.num_kept) == (10, 10)
    verdicts_of_humans = chain.filter({}, teacher="human", policy=BY_CONFIDENCE)
    rows = confidence_rows(verdicts_of_humans, chain.shard)
    assert rows is not None
    assert np.isnan(rows.confidence).all()
    assert not survey_confidence(verdicts_of_humans).sheets.get(BEST_KEPT)


def test_true_iou_is_measured_where_there_is_a_human_mask(chain: Chain, tmp_path: Path) -> None:
    chain.label("human")
    chain.calibrate({"sam": rising(chain)})
    page = page_of(chain.filter({}, policy=BY_CONFIDENCE), tmp_path)
    assert page.count("<span>true IoU</span><b>1.000</b>") == 2 * len((BEST_KEPT, WORST_KEPT)) * 2


def test_categories_say_what_gold_says(chain: Chain, tmp_path: Path) -> None:
    with_gold(chain)
    told = quality(chain, 11, threshold=0.6)
    page = page_of(chain.filter({}, policy=BY_CONFIDENCE, quality=told), tmp_path)
    table = page[page.index('id="categories"') :]
    category = chain.boxes[10]["category"]
    mine = [row for row, box in enumerate(chain.boxes) if box["category"] == category]
    kept = [row for row in mine if 0.3 + 0.05 * row >= 0.6 - 1e-6]
    mean = np.mean([0.2 + 0.06 * row for row in kept])
    line = re.search(rf'<tr><td class="name">{category}</td>.*?</tr>', table, re.DOTALL)
    assert line is not None
    assert f"{len(kept)} <span" in line[0]
    assert f"of {len(mine)}</span>" in line[0]
    assert f'<td class="n">{mean:.3f}</td>' in line[0]
    assert '<td class="n">0.600</td>' in line[0]


def test_the_page_keeps_to_its_limit(chain: Chain, tmp_path: Path) -> None:
    dataset = with_gold(chain)
    assert len(page_of(dataset, tmp_path, max_page_bytes=70_000).encode()) <= 70_000
    assert page_of(dataset, tmp_path / "a") == page_of(dataset, tmp_path / "b")


def test_at_most_two_of_a_photo(chain: Chain) -> None:
    survey = survey_confidence(with_gold(chain))
    for refs in survey.sheets.values():
        images = [chain.boxes[ref.row]["image_row"] for ref in refs]
        assert all(images.count(image) <= MAX_PER_IMAGE for image in images)
