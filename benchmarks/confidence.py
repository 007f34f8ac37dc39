"""How good fusion, confidence and certificates are, against true masks.

    python benchmarks/confidence.py --data ../shared/data --inline

The photos are ingested and labelled by the job itself (benchmarks/mask_quality.py). Figures are out
of fold, by image: every mask is judged by a calibrator that did not see its photo. Transfer is from
one set to another; certificates are tried on 200 random splits of each set into three parts by
image: one to say where to begin, one to certify, one to see whether it was true.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from confidence_gold import Floats, GoldSet, forest, gold_set, predicted_iou
from mask_quality import labelled
from rich.console import Console
from rich.table import Table

from engine.confidence.agree import AgreeConfig, agree
from engine.confidence.calibrate import score_gold
from engine.confidence.calibrator import Calibrator
from engine.confidence.certificate import (
    GoldKept,
    gold_kept,
    least_gold,
    likeness_of,
    starts_of,
    tested_thresholds,
)
from engine.confidence.choice import NEVER, Choice
from engine.confidence.figures import IOU_BOUND, auroc, calibration_error, share_kept
from engine.confidence.fit import Fitted, best_of, fit, taken_by
from engine.confidence.importance import importance
from engine.confidence.outputs import Output
from manifests.dataset import Dataset
from manifests.errors import NothingToCommitError

MAIN = "sam_vit_t"
NUM_SPLITS, NUM_LEVELS = 200, 40
MAX_RISKS = (0.05, 0.1, 0.2)


def main() -> None:
    arguments = parse_arguments()
    console = Console(width=130)
    sets = [prepared(name, arguments) for name in arguments.sets.split(",")]
    fitted = {found.name: fit(found.gold, found.features, found.identities) for found in sets}
    console.print(mean_ious(sets, fitted))
    console.print(confidences(sets, fitted))
    console.print(certificates(sets, fitted))
    console.print(by_category(sets, fitted))
    console.print(transfers(sets, fitted))
    for found in sets:
        console.print(importances(found, fitted[found.name]))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("bench-out/quality"))
    parser.add_argument("--sets", default="coco_dev,ccp_dev,balloon_dev")
    parser.add_argument("--teachers", default="grabcut,u2netp,sam_vit_t")
    parser.add_argument("--limit", type=int, default=0, help="images a set, evenly taken; 0: all")
    parser.add_argument("--inline", action="store_true", help="no Ray")
    parser.add_argument("--option", action="append", default=[], help="KEY=VALUE of the teachers")
    return parser.parse_args()


def prepared(name: str, arguments: argparse.Namespace) -> GoldSet:
    """The set's gold, with the agreement of its teachers."""
    dataset = labelled(name, arguments)
    with suppress(NothingToCommitError):
        agree(dataset.store, AgreeConfig())
    return gold_set(name, Dataset.open(dataset.store))


def table_of(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def mean_ious(sets: list[GoldSet], fitted: Mapping[str, Fitted]) -> Table:
    """Each teacher's own choice, SAM's most promising output, what is taken, and oracles."""
    table = table_of(
        "mean IoU (objects of at least 256 px; masks of SAM are cut to their boxes)",
        "set", "images", "objects", "grabcut", "u2netp", "SAM, predicted IoU", "SAM, own choice",
        "taken", "SAM oracle", "oracle",
    )  # fmt: skip
    for found in sets:
        gold = found.gold
        taken = best_of(fitted[found.name].taken, fitted[found.name].confidence, gold.iou)[1]
        own = {o.teacher: np.nan_to_num(gold.iou[o]) for o in gold.iou if o.candidate == 0}
        table.add_row(
            found.name, f"{len(np.unique(gold.codes('image_id'))):,}", f"{gold.num_boxes:,}",
            *(f"{own[name].mean():.4f}" for name in ("grabcut", "u2netp")),
            f"{most_promising(found).mean():.4f}", f"{own[MAIN].mean():.4f}",
            f"{taken.mean():.4f}", f"{oracle(found, MAIN).mean():.4f}",
            f"{oracle(found).mean():.4f}",
        )  # fmt: skip
    return table


def most_promising(found: GoldSet) -> Floats:
    """[M] IoU of the output of SAM with the highest predicted IoU."""
    outputs = sorted(output for output in found.gold.iou if output.teacher == MAIN)
    told = {output: predicted_iou(found, output) for output in outputs}
    highest = Choice(base=Output(teacher="none", candidate=0), margin=0)
    return best_of(taken_by(highest, told, None), told, found.gold.iou)[1]


def oracle(found: GoldSet, teacher: str = "") -> Floats:
    """[M] IoU of the best output, of one teacher or of all."""
    outputs = [o for o in found.gold.iou if not teacher or o.teacher == teacher]
    best: Floats = np.nan_to_num(np.fmax.reduce([found.gold.iou[output] for output in outputs]))
    return best


def confidences(sets: list[GoldSet], fitted: Mapping[str, Fitted]) -> Table:
    """Predicted IoU, a forest and the calibrator: on SAM's own choice, and on what they take."""
    table = table_of(
        f"finding IoU < {IOU_BOUND}",
        "set", "masks and judge", "mean IoU", "AUROC", "calibration error", "kept at <= 5% bad",
        "perfect ranking",
    )  # fmt: skip
    nobody = Output(teacher="none", candidate=0)
    for found in sets:
        sam = [output for output in found.gold.iou if output.teacher == MAIN]
        own = Choice(base=Output(teacher=MAIN, candidate=0), margin=NEVER)
        trees, mine = forest(found, MAIN), fitted[found.name]
        ways = {
            "own choice: predicted IoU": (
                own, {output: predicted_iou(found, output) for output in sam}
            ),
            "own choice: random forest": (own, trees),
            "own choice: calibrator": (own, mine.confidence),
            "taken by the forest": (Choice(base=nobody, margin=0), trees),
            "taken by the calibrator": (None, mine.confidence),
        }  # fmt: skip
        for name, (choice, told) in ways.items():
            taken = mine.taken if choice is None else taken_by(choice, told, None)
            confidence, iou = best_of(taken, told, found.gold.iou)
            table.add_row(
                found.name, name, f"{iou.mean():.4f}", f"{auroc(confidence, iou) or 0:.3f}",
                f"{calibration_error(confidence, iou):.4f}",
                f"{share_kept(confidence, iou, max_risk=0.05):.2f}",
                f"{share_kept(iou, iou, max_risk=0.05):.2f}",
            )  # fmt: skip
    return table


def certificates(sets: list[GoldSet], fitted: Mapping[str, Fitted]) -> Table:
    """Of 200 random splits: how many certify something, and for how many it was true."""
    table = table_of(
        f"certificates (delta 0.05) on {NUM_SPLITS} random splits by image",
        "set", "at most", "true in", "certified in", "kept share", "bad among them",
    )  # fmt: skip
    for found in sets:
        confidence, iou = best_of(
            fitted[found.name].taken, fitted[found.name].confidence, found.gold.iou
        )
        images = found.gold.codes("image_id")
        for max_risk in MAX_RISKS:
            rng = np.random.default_rng(0)
            tried = [one_split(confidence, iou, images, max_risk, rng) for _ in range(NUM_SPLITS)]
            claims = [claim for claim in tried if claim is not None]
            num_true = sum(risk <= max_risk + 1e-9 for _, risk in claims) + tried.count(None)
            kept, risks = zip(*claims, strict=True) if claims else ((), ())
            table.add_row(
                found.name, f"{max_risk:.0%}", f"{num_true / NUM_SPLITS:.1%}",
                f"{len(claims) / NUM_SPLITS:.1%}",
                f"{np.mean(kept):.2f}" if kept else "-", f"{np.mean(risks):.3f}" if risks else "-",
            )  # fmt: skip
    return table


def one_split(
    confidence: Floats, iou: Floats, images: np.ndarray, max_risk: float, rng: np.random.Generator
) -> tuple[float, float] | None:
    """(share kept, share of bad ones) of the part that nobody looked at; None: no claim."""
    others, certify, fresh = (
        np.isin(images, part) for part in np.array_split(rng.permutation(images.max() + 1), 3)
    )
    falling = np.sort(confidence)[::-1]
    places = (np.arange(1, NUM_LEVELS + 1) * len(falling)) // NUM_LEVELS - 1
    enough = [
        float(x)
        for x in falling[places]
        if (confidence[certify] >= x).sum() >= least_gold(max_risk, 0.05)
    ]
    if not enough:
        return None

    def kept(part: np.ndarray) -> list[GoldKept]:
        bad = iou[part] < IOU_BOUND
        alike = likeness_of(bad, images[part])
        return [gold_kept(confidence[part] >= x, bad, images[part], likeness=alike) for x in enough]

    tested = tested_thresholds(
        enough, kept(certify), [int((confidence[fresh] >= x).sum()) for x in enough],
        max_risk=max_risk, delta=0.05,
        starts=starts_of(kept(others), len(enough), max_risk=max_risk),
    )  # fmt: skip
    held = [one for one in tested if one.holds]
    if not held:
        return None
    mine = confidence[fresh] >= held[-1].threshold
    return float(mine.mean()), float((iou[fresh][mine] < IOU_BOUND).mean())


def by_category(sets: list[GoldSet], fitted: Mapping[str, Fitted]) -> Table:
    """Where another teacher than SAM is taken most: the three such categories of each set."""
    table = table_of(
        "categories where another teacher's mask is taken most",
        "set", "category", "objects", "another's", "grabcut", "u2netp", "SAM", "taken",
    )  # fmt: skip
    for found in sets:
        gold, mine = found.gold, fitted[found.name]
        outputs = sorted(mine.confidence)
        of_others = np.array([output.teacher != MAIN for output in outputs])
        is_other = of_others[mine.taken]
        taken = best_of(mine.taken, mine.confidence, gold.iou)[1]
        own = {o.teacher: np.nan_to_num(gold.iou[o]) for o in gold.iou if o.candidate == 0}
        names = np.array(gold.words("category"))
        rows = {name: np.flatnonzero(names == name) for name in np.unique(names)}
        most = sorted(rows, key=lambda name, rows=rows: -int(is_other[rows[name]].sum()))[:3]
        for name in most:
            if not is_other[rows[name]].any():
                continue
            figures = [own["grabcut"], own["u2netp"], own[MAIN], taken]
            table.add_row(
                found.name, str(name), f"{len(rows[name]):,}", f"{is_other[rows[name]].mean():.2f}",
                *(f"{values[rows[name]].mean():.3f}" for values in figures),
            )  # fmt: skip
    return table


def transfers(sets: list[GoldSet], fitted: Mapping[str, Fitted]) -> Table:
    """Fitted on one set, judged on another."""
    table = table_of(
        "transfer", "fitted on", "judged on", "mean IoU", "AUROC", "calibration error",
        "kept at <= 5% bad",
    )  # fmt: skip
    for source in sets:
        fit_ = fitted[source.name]
        calibrator = Calibrator(
            heads=fit_.heads, choice=fit_.choice, chosen=fit_.chosen, certify_share=0
        )
        for judged in sets:
            if judged is source:
                continue
            told = score_gold(calibrator, judged.gold)
            taken = taken_by(fit_.choice, told, judged.gold.categories)
            confidence, iou = best_of(taken, told, judged.gold.iou)
            table.add_row(
                source.name, judged.name, f"{iou.mean():.4f}",
                f"{auroc(confidence, iou) or 0:.3f}", f"{calibration_error(confidence, iou):.4f}",
                f"{share_kept(confidence, iou, max_risk=0.05):.2f}",
            )  # fmt: skip
    return table


def importances(found: GoldSet, fitted: Fitted) -> Table:
    """Rise of the root mean squared error of SAM's head when one feature is shuffled.

    The head has seen these photos; the order counts.
    """
    table = table_of(f"signals of {MAIN} on {found.name}", "signal", "rise of RMSE when shuffled")
    rises = importance({MAIN: fitted.heads[MAIN]}, found.gold)[MAIN]
    for name, rise in list(rises.items())[:12]:
        table.add_row(name, f"{rise:.4f}")
    return table


if __name__ == "__main__":
    main()
