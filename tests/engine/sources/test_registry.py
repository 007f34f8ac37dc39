"""Formats and options by name; every mistake names the way out."""

from __future__ import annotations

import subprocess
import sys

import pytest

from engine.sources.protocol import SourceConfig
from engine.sources.registry import FORMATS, open_source
from manifests.errors import InputError


def config(format: str, **options: str | bool) -> SourceConfig:
    return SourceConfig(format=format, annotations="x", images="y", name="n", options=options)


@pytest.mark.parametrize("format", list(FORMATS))
def test_every_format_opens_without_touching_a_file(format: str) -> None:
    source = open_source(config(format))
    assert source.box_unit == ("relative" if format in ("open_images", "yolo") else "pixel")
    assert source.images_implied == (format in ("open_images", "csv"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (config("COCO"), "no format 'COCO', expected one of coco, .*; did you mean 'coco'"),
        (config("open-images"), "did you mean 'open_images'"),
        (config("yolo", spilt="val"), "no option 'spilt', expected one of split; did you mean"),
        (config("coco", split="val"), "has no option 'split', expected one of none"),
        (config("voc", one_based="no"), "option 'one_based': expected a bool, got 'no'"),
        (config("csv", unit="mm"), "option 'unit': expected 'pixel' or 'relative', got 'mm'"),
    ],
)
def test_mistakes(wrong: SourceConfig, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_source(wrong)


def test_importing_the_registry_loads_nothing_heavy() -> None:
    heavy = "torch", "ray", "cv2", "duckdb", "pandas", "PIL", "s3fs", "botocore"
    code = f"import sys, engine.sources.registry; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
