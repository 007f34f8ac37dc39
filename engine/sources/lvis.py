"""LVIS: COCO's JSON with federated labels, and in v1 without file names.

A v1 image is named by the last two parts of its `coco_url` ("train2017/000000391895.jpg"), so the
image root is the folder that holds COCO's train2017 and val2017.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from engine.sources.coco import CocoSource
from engine.sources.coco_entries import ImageElement
from engine.sources.protocol import SourceConfig


def open_lvis(config: SourceConfig) -> CocoSource:
    """The source behind the format `lvis`."""
    return CocoSource(path=config.annotations, file_name_of=file_name_of)


def file_name_of(image: ImageElement) -> str | None:
    """The image's `file_name`, else what its `coco_url` ends with; None where it has neither."""
    if image.file_name or not image.coco_url:
        return image.file_name
    try:
        parts = [part for part in urlsplit(image.coco_url).path.split("/") if part]
    except ValueError:
        return None
    return "/".join(parts[-2:]) or None
