"""Makes the calibrator that comes with maskmill, for datasets without gold.

    python benchmarks/fit_priors.py --data ../shared/data --inline

It is fitted on all development photos with true masks: COCO, street fashion and balloons. The file
holds a few thousand numbers, no picture and no mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from confidence import parse_arguments, prepared
from confidence_gold import GoldSet

from engine.confidence.calibrator import Calibrator
from engine.confidence.figures import figures
from engine.confidence.fit import fit
from engine.confidence.gold import GoldBoxes
from engine.confidence.priors import FOLDER


def main() -> None:
    arguments = parse_arguments()
    sets = [prepared(name, arguments) for name in arguments.sets.split(",")]
    gold = joined(sets)
    fitted = fit(gold, sets[0].features, sets[0].identities)
    # What a category adds is known of these photos alone, and is nothing to go by elsewhere.
    heads = {name: without_categories(head) for name, head in fitted.heads.items()}
    prior = Calibrator(
        heads=heads, choice=replace(fitted.choice, bases={}), chosen=fitted.chosen,
        certify_share=0.5,
        figures=figures(fitted.choice, gold, fitted.confidence, fitted.taken),
        origin=f"maskmill's prior, fitted on {gold.num_boxes:,} masks of other photos",
    )  # fmt: skip
    FOLDER.mkdir(exist_ok=True)
    target = FOLDER / "default.safetensors"
    target.write_bytes(prior.to_bytes())
    print(f"wrote {target.stat().st_size:,} bytes, {prior.origin}; figures out of fold:")
    for name in ("mean_iou", "auroc", "calibration_error", "share_kept_at_5_percent"):
        print(f"  {name}: {prior.figures[name]}")


def joined(sets: Sequence[GoldSet]) -> GoldBoxes:
    """The gold of all sets in one; an output that a set lacks is not there in its rows."""
    outputs = sorted({output for found in sets for output in found.gold.iou})
    width = {o: found.gold.features[o].shape[1] for found in sets for o in found.gold.features}

    def spread(found: GoldSet, output, table) -> np.ndarray:  # type: ignore[no-untyped-def]
        values = getattr(found.gold, table)
        shape = (found.gold.num_boxes, *((width[output],) if table == "features" else ()))
        return values.get(output, np.full(shape, np.nan, np.float32))

    return GoldBoxes(
        table=pa.concat_tables([found.gold.table for found in sets]).combine_chunks(),
        iou={o: np.concatenate([spread(found, o, "iou") for found in sets]) for o in outputs},
        features={
            o: np.concatenate([spread(found, o, "features") for found in sets]) for o in outputs
        },
    )


def without_categories(head):  # type: ignore[no-untyped-def]
    return replace(head, categories={})


if __name__ == "__main__":
    main()
