"""The formats a source can have: literal name to builder, and the options each one knows."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field

from engine.sources.coco import open_coco
from engine.sources.csv_boxes import open_csv_boxes
from engine.sources.lvis import open_lvis
from engine.sources.open_images import open_open_images
from engine.sources.protocol import Source, SourceConfig
from engine.sources.voc import open_voc
from engine.sources.yolo import open_yolo
from manifests.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How to open one format; `options` maps each option's name to its type."""

    build: Callable[[SourceConfig], Source]
    options: dict[str, type] = field(default_factory=dict)


FORMATS = {
    "coco": Format(build=open_coco),
    "objects365": Format(build=open_coco),
    "lvis": Format(build=open_lvis),
    "open_images": Format(
        build=open_open_images,
        options={"classes": str, "image_labels": str, "images_csv": str, "extension": str},
    ),
    "yolo": Format(build=open_yolo, options={"split": str}),
    "voc": Format(build=open_voc, options={"image_set": str, "one_based": bool}),
    "csv": Format(build=open_csv_boxes, options={"unit": str}),
}


def open_source(config: SourceConfig) -> Source:
    """The dataset a job names, ready to be scanned.

    Raises:
        InputError: the format or an option is unknown, or an option has the wrong type.
    """
    known = FORMATS.get(config.format)
    if known is None:
        raise InputError(
            f"source '{config.name}': no format '{config.format}', expected one of "
            f"{', '.join(FORMATS)}{_nearest(config.format, list(FORMATS))}"
        )
    for name, value in config.options.items():
        if name not in known.options:
            raise InputError(
                f"source '{config.name}': format '{config.format}' has no option '{name}', "
                f"expected one of {', '.join(known.options) or 'none'}"
                f"{_nearest(name, list(known.options))}"
            )
        if not isinstance(value, known.options[name]):
            raise InputError(
                f"source '{config.name}': option '{name}': expected a "
                f"{known.options[name].__name__}, got {value!r}; change it in the job"
            )
    return known.build(config)


def _nearest(word: str, choices: list[str]) -> str:
    near = difflib.get_close_matches(word.lower(), choices, n=1, cutoff=0.0)
    return f"; did you mean '{near[0]}'?" if near else ""
