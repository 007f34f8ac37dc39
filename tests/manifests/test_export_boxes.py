"""The layer `boxes`: every box of a commit, without masks and without verdicts."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO

from manifests.dataset import Dataset
from manifests.errors import InputError
from manifests.export import export
from manifests.export_plan import ExportOptions

_BOXES = ExportOptions(layer="boxes")


@pytest.fixture
def unjudged(builder: Any) -> Dataset:
    """A box that no teacher has seen, one that a verdict would drop, a crowd, a quarantined one."""
    builder.image("a.jpg", size_hw=(30, 50))
    builder.box("shoe", (6, 4.5, 41, 25), teacher=None)
    builder.box("hat", (0, 0, 5, 5), keep=False)
    builder.box("shoe", (1, 2, 9, 7), teacher=None, is_crowd=True)
    builder.image("b.jpg", quarantine="blurry")
    builder.box("shoe", (1, 1, 5, 5), teacher=None)
    builder.shard(verdicts=False)
    return builder.commit()


def test_coco_has_every_box_and_no_mask(unjudged: Dataset, tmp_path: Path) -> None:
    summary = export(unjudged, str(tmp_path / "out"), format="coco", options=_BOXES)
    assert (summary.num_annotations, summary.num_skipped) == (3, {"image_quarantined": 1})
    with redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "out" / "instances.json"))
    shoe, hat, crowd = coco.loadAnns(coco.getAnnIds())
    assert (shoe["bbox"], shoe["area"], shoe["segmentation"]) == ([6, 4.5, 35, 20.5], 718, [])
    assert (hat["area"], hat["segmentation"]) == (25, [])
    # Evaluators need the region of a crowd.
    assert (crowd["iscrowd"], coco.annToMask(crowd).sum()) == (1, 40)
    assert "teacher" not in shoe


def test_quarantined_if_asked_for(unjudged: Dataset, tmp_path: Path) -> None:
    options = ExportOptions(layer="boxes", include_quarantined=True)
    export(unjudged, str(tmp_path / "out"), format="coco", options=options)
    rows = json.loads((tmp_path / "out" / "instances.json").read_bytes())
    assert len(rows["annotations"]) == 4


def test_yolo_needs_masks(unjudged: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="yolo: expected masks, got the layer 'boxes'"):
        export(unjudged, str(tmp_path / "out"), format="yolo", options=_BOXES)
    assert not (tmp_path / "out").exists()
