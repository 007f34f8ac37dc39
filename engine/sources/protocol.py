"""The contract between ingest and every external box-labelled dataset.

A source only *reads and translates*: it yields what it found, row by row, as Arrow batches with
one of three schemas, in any order, and holds no more than a batch. It does not open images, join,
deduplicate, clip or drop: `engine.plan` does that once for all formats, with the ledger at hand.
A row that a source cannot translate is yielded all the same, with its `defect` set, so that it is
counted. Only a file that is not well-formed at all raises (`SourceSyntaxError`, `InputError`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import msgspec
import pyarrow as pa

from manifests.errors import InputError
from manifests.file_system import holds_password

IMAGE_ENTRIES = pa.schema(
    [
        pa.field("source_image_id", pa.string(), nullable=False),
        # Relative to the image root, as the source writes it; null with a defect.
        pa.field("file_name", pa.string()),
        # The size the source declares; null where it declares none.
        pa.field("height", pa.int32()),
        pa.field("width", pa.int32()),
        # Federated labels (LVIS, Open Images): categories not exhaustive / verified absent.
        pa.field("not_exhaustive", pa.list_(pa.string())),
        pa.field("negative", pa.list_(pa.string())),
        # A ledger word, such as "malformed_image_entry"; null for a good row.
        pa.field("defect", pa.string()),
    ]
)
"""`not_exhaustive` and `negative` hold source category ids."""

CATEGORY_ENTRIES = pa.schema(
    [
        pa.field("source_category_id", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("supercategory", pa.string()),
    ]
)

ANNOTATION_ENTRIES = pa.schema(
    [
        pa.field("source_image_id", pa.string(), nullable=False),
        # Null where the source has no ids of its own (YOLO, VOC, plain CSV).
        pa.field("source_annotation_id", pa.string()),
        pa.field("source_category_id", pa.string(), nullable=False),
        # As the source has it, NaN and all, in `Source.box_unit`. Null with a defect.
        pa.field("box_xyxy", pa.list_(pa.float64(), 4)),
        pa.field("is_crowd", pa.bool_(), nullable=False),
        pa.field("is_group_of", pa.bool_(), nullable=False),
        # Anything else worth keeping: "occluded", "truncated", "depiction", "inside", "difficult".
        pa.field("flags", pa.list_(pa.string())),
        # A detector's score, where the boxes are detections.
        pa.field("score", pa.float32()),
        # COCO `segmentation` as JSON bytes, coordinates in `Source.box_unit`; null without one.
        pa.field("segmentation", pa.binary()),
        # A ledger word, such as "malformed_box"; null for a good row.
        pa.field("defect", pa.string()),
    ]
)

PATH_OPTIONS = ("classes", "image_labels", "images_csv")
"""Options of formats that name a file."""

BATCH_ROWS = 20_000
"""What a source aims at for one batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceBatch:
    """Rows of one kind; `table` has that kind's schema above."""

    kind: Literal["images", "categories", "annotations"]
    table: pa.Table


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig:
    """One external dataset, as a job file or the command line names it.

    Attributes:
        format: a name of `engine.sources.registry`.
        annotations: folder or file, local path or any fsspec URL.
        images: the image root, a folder or any fsspec URL; every `file_name` is below it.
        name: what the dataset is called in ids and exports; stable, since ids depend on it.
        options: the format's own settings; unknown ones are refused.

    Local paths are made absolute: commits keep them, and are read from other folders.
    """

    format: str
    annotations: str
    images: str
    name: str
    options: Mapping[str, str | int | float | bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises InputError for a password in an address: commits keep all of this for ever."""
        for value in (self.annotations, self.images, *self.options.values()):
            if isinstance(value, str) and holds_password(value):
                raise InputError(
                    f"source '{self.name}': an address holds a password, which would end up in "
                    "commits; put it where the client looks for it (for S3: a profile, or "
                    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"
                )
        placed = {name: _placed_option(name, value) for name, value in self.options.items()}
        object.__setattr__(self, "annotations", absolute(self.annotations))
        object.__setattr__(self, "images", absolute(self.images))
        object.__setattr__(self, "options", placed)

    def is_as_recorded(self, recorded: object) -> bool:
        """Whether a commit's settings of a source, read in this folder, are just these."""
        try:
            return msgspec.convert(recorded, SourceConfig) == self
        except (msgspec.ValidationError, InputError):
            return False


def absolute(url: str) -> str:
    """The same address from every working folder."""
    return url if "://" in url or not url else os.path.abspath(os.path.expanduser(url))


def _placed_option(name: str, value: str | int | float | bool) -> str | int | float | bool:
    """The option, absolute if it is a local path; VOC's `image_set` is one if it looks like it."""
    is_path = name in PATH_OPTIONS or (
        name == "image_set" and isinstance(value, str) and ("/" in value or value.endswith(".txt"))
    )
    return absolute(value) if is_path and isinstance(value, str) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceInput:
    """Something that a scan depends on, and whose change would change the dataset.

    Attributes:
        role: "annotations", the option that names it, or "image_names".
        url: a file, or a folder.
        names: files below the folder, sorted; those that are missing count as well. None: `url` is
            one file.
        is_listing: the scan looks at the names alone and never into these files.
    """

    role: str
    url: str
    names: Sequence[str] | None = None
    is_listing: bool = False


class Source(Protocol):
    """One external dataset, opened."""

    @property
    def box_unit(self) -> Literal["pixel", "relative"]:
        """Whether coordinates are pixels or shares of the image's width and height."""
        ...

    @property
    def images_implied(self) -> bool:
        """True if image entries are derived from annotation rows and may repeat."""
        ...

    def inputs(self) -> Iterator[SourceInput]:
        """What `scan` depends on, but for the images themselves; each role once.

        Raises:
            InputError: as `scan`, where a folder must be listed.
        """
        ...

    def scan(self) -> Iterator[SourceBatch]:
        """Every category, image and annotation of the dataset, once, in a fixed order.

        Raises:
            SourceSyntaxError: a file is not well-formed (with line and column).
            InputError: a file is missing, empty, or not of this format.
        """
        ...
