"""What pseudo-masks are worth to a student, and which queries: every arm on real photos.

    python benchmarks/student_learning.py --data ../shared/data/ccp_dev --work bench-out/learning

The first `--human` photos have human masks, the next ones boxes only: they are labelled, calibrated
and filtered by maskmill's own commands. All arms are the same student, trained for the same number
of steps with the same seed, and judged on the last `--judge` photos against human masks. Stores,
checkpoints and results stay in the work folder: run again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from command import maskmill
from learning_page import learning_page
from rich.console import Console
from rich.table import Table

from manifests.refs import Refs
from manifests.store import Store

POLICIES = {
    "all": 'name = "all"\nteachers = ["sam_vit_t"]\n[rules]\n',
    "weighted": 'name = "weighted"\n[rules]\n[weights]\nby = "confidence"\npower = 2.0\n',
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One training: whose masks, how many photos, and what is set differently."""

    name: str
    store: str
    ref: str
    photos: int
    words: tuple[str, ...] = ()


def arms(human: int, photos: int) -> list[Arm]:
    """The question first, the ablations after it."""
    gold = ("data.masks=masks/human",)
    mixed = Arm(name="pseudo-weighted", store="weak", ref="weighted", photos=photos)
    only = "model.transformer."
    learnable = (f"{only}learnable_queries=100", f"{only}conditional_queries=0")
    conditional = (f"{only}learnable_queries=0", f"{only}conditional_queries=100")
    return [
        Arm(name=f"human-{human}", store="truth", ref="main", photos=human, words=gold),
        mixed,
        Arm(name=f"human-{photos}", store="truth", ref="main", photos=photos, words=gold),
        Arm(name="pseudo-all", store="weak", ref="all", photos=photos),
        Arm(name="pseudo-certified", store="weak", ref="certified", photos=photos),
        Arm(name="learnable-only", store="weak", ref="weighted", photos=photos, words=learnable),
        Arm(name="conditional-only", store="weak", ref="weighted", photos=photos,
            words=conditional),
        Arm(name="no-fusion", store="weak", ref="weighted", photos=photos,
            words=(f"{only}query_fusion=false",)),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="images/, boxes.json, masks.json")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--human", type=int, default=100)
    parser.add_argument("--photos", type=int, default=500)
    parser.add_argument("--judge", type=int, default=100)
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--set", action="append", default=[], dest="words")
    parser.add_argument("--arms", help="comma-separated names; default: all")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    prepare(arguments)
    wanted = arguments.arms.split(",") if arguments.arms else None
    results = {}
    for arm in arms(arguments.human, arguments.photos):
        if wanted is None or arm.name in wanted:
            results[arm.name] = run_arm(arm, arguments)
            show(results)
    write_page(results, arguments)


def prepare(arguments: argparse.Namespace) -> None:
    """`truth`: all human masks. `weak`: those of the first photos; the rest by the main job."""
    work, images = arguments.work, arguments.data / "images"
    truth, weak = work / "truth", work / "weak"
    document = json.loads((arguments.data / "masks.json").read_text())
    document["images"] = document["images"][: arguments.photos + arguments.judge]
    if not (work / "ready").exists():
        for store, human in ((truth, None), (weak, arguments.human)):
            boxes = work / f"{store.name}.json"
            boxes.write_text(json.dumps(with_masks_of(document, human)))
            if not store.exists():
                maskmill("init", "--store", store)
            maskmill("ingest", "coco", boxes, images, "--store", store)  # goes on if interrupted
        for teacher in ("grabcut", "u2netp", "sam_vit_t"):
            maskmill("label", teacher, "--store", weak)
        maskmill("agree", "--store", weak)
        maskmill("calibrate", "--store", weak)
        (work / "ready").touch()


def with_masks_of(document: dict[str, Any], human: int | None) -> dict[str, Any]:
    """The document with segmentations on the first `human` photos only; None: on all."""
    ids = [image["id"] for image in document["images"]]
    every, masked = set(ids), set(ids if human is None else ids[:human])
    annotations = [
        annotation if annotation["image_id"] in masked else without_mask(annotation)
        for annotation in document["annotations"]
        if annotation["image_id"] in every
    ]
    return document | {"annotations": annotations}


def without_mask(annotation: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in annotation.items() if key != "segmentation"}


def run_arm(arm: Arm, arguments: argparse.Namespace) -> dict[str, Any]:
    """Trains and judges, or reads what an earlier run found."""
    tag = tag_of(arm.name, arguments)
    found = arguments.work / f"{tag}.json"
    if not found.exists():
        if arm.store == "weak":
            make_branch(arm.ref, arguments.work)
        words = [
            f"data.mix=[{{max_images={arm.photos}}}]", f"train.steps={arguments.steps}",
            *arguments.words, *arm.words,
        ]  # fmt: skip
        settings = [part for word in words for part in ("--set", word)]
        store = arguments.work / arm.store
        maskmill(
            "train", arm.ref, "--store", store, "--size", arguments.size, "--name", tag,
            "--run-folder", arguments.work / "runs" / tag, "--inline", *settings,
        )  # fmt: skip
        judged = maskmill(
            "evaluate", f"models/{tag}", "--store", store, "--on", "main",
            "--data-store", arguments.work / "truth", "--skip-images", arguments.photos,
            "--max-images", arguments.judge, "--html", arguments.work / f"{tag}.html", "--json",
        )  # fmt: skip
        found.write_text(json.dumps({"arm": asdict(arm), "evaluation": json.loads(judged)}))
    return dict(json.loads(found.read_text())["evaluation"])


def make_branch(name: str, work: Path) -> None:
    """A branch of `weak` with the verdicts of a policy; `certified` needs gold masks enough."""
    if (done := work / f"{name}.filtered").exists():
        return
    policy = name
    if name in POLICIES:
        policy = str(work / f"{name}.toml")
        Path(policy).write_text(POLICIES[name])
    if name not in Refs(Store(str(work / "weak"))).branches():  # made, and then interrupted
        maskmill("branch", name, "main", "--store", work / "weak")
    maskmill("filter", policy, "--store", work / "weak", "--branch", name)
    done.touch()


def tag_of(arm: str, arguments: argparse.Namespace) -> str:
    return f"{arm}-{arguments.size}-{arguments.steps}"


def write_page(results: dict[str, dict[str, Any]], arguments: argparse.Namespace) -> None:
    """Learning curves, arms of the same question together."""
    pseudo = ["pseudo-weighted", "pseudo-certified", "pseudo-all"]
    groups = {
        "Whose masks": [f"human-{arguments.human}", *pseudo, f"human-{arguments.photos}"],
        "Which queries": ["pseudo-weighted", "learnable-only", "conditional-only", "no-fusion"],
    }
    runs = arguments.work / "runs"
    logs = {name: runs / tag_of(name, arguments) / "log.jsonl" for name in results}
    page = arguments.work / "curves.html"
    page.write_bytes(learning_page(groups, logs, results))
    print(f"wrote {page}")


def show(results: dict[str, dict[str, Any]]) -> None:
    """One line an arm."""
    columns = ("mask_ap", "mask_ap50", "box_ap", "boundary_ap", "pq", "miou", "foreground_iou")
    table = Table(*(("arm", *columns)))
    for name, judged in results.items():
        table.add_row(name, *(f"{judged[column]:.4f}" for column in columns))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
