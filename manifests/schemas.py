"""Arrow schemas of every layer. A layer's file can be read by anyone; these say what is in it.

The alignment invariant: `masks/*`, `verdicts` and every other annotation layer have exactly the
rows of the shard's `boxes`, in that order, and are joined to it by position.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

IMAGES = "images"
IMAGE_INDEX = "image_index"
BOXES = "boxes"
MASKS_HUMAN = "masks/human"
AGREEMENT = "agreement"
CONFIDENCE = "confidence"
VERDICTS = "verdicts"

IMAGE_LAYERS = (IMAGES, IMAGE_INDEX)
COMPUTED_LAYERS = (AGREEMENT, CONFIDENCE, VERDICTS)
"""Made from other layers alone, in this order: out of date as soon as one of those changes."""


def masks_layer(teacher: str) -> str:
    """Name of a teacher's layer."""
    return f"masks/{teacher}"


ORIGIN = pa.struct(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("source_image_id", pa.string(), nullable=False),
        pa.field("file_name", pa.string(), nullable=False),
    ]
)

IMAGE_INDEX_SCHEMA = pa.schema(
    [
        # 128-bit digest of the source's image bytes, as hex.
        pa.field("image_id", pa.string(), nullable=False),
        # Of the stored, upright image.
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        # Where the encoded bytes lie in the shard's `images` tar.
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        # "jpeg", "png", "webp" ...: what the stored bytes are.
        pa.field("format", pa.string(), nullable=False),
        # First origin; `origins` has all of them when one picture came from several places.
        pa.field("file_name", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("source_image_id", pa.string(), nullable=False),
        pa.field("origins", pa.list_(ORIGIN), nullable=False),
        # What ingest did to the bytes, e.g. "exif_6", "cmyk", "16_bit"; empty: stored untouched.
        pa.field("transforms", pa.list_(pa.string()), nullable=False),
        # Laplacian variance of the sharpest regions; mean luma in [0, 255]; share of pixels that
        # are nearly black or nearly white, in [0, 1]. See engine.measure.
        pa.field("sharpness", pa.float32(), nullable=False),
        pa.field("brightness", pa.float32(), nullable=False),
        pa.field("dark_fraction", pa.float32(), nullable=False),
        pa.field("bright_fraction", pa.float32(), nullable=False),
        # Why the ingest policy keeps the image away from teachers; null: it does not.
        pa.field("quarantine", pa.string()),
        # Federated labels, as category names.
        pa.field("not_exhaustive", pa.list_(pa.string()), nullable=False),
        pa.field("negative", pa.list_(pa.string()), nullable=False),
    ]
)

BOXES_SCHEMA = pa.schema(
    [
        # 128-bit digest of image, source, source id and box, as hex.
        pa.field("annotation_id", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        # Row of the image in the shard's `image_index`; rows of one image are together.
        pa.field("image_row", pa.int32(), nullable=False),
        pa.field("category", pa.string(), nullable=False),
        # Absolute pixels of the stored image, clipped to it, x1 > x0 and y1 > y0.
        pa.field("box_xyxy", pa.list_(pa.float32(), 4), nullable=False),
        pa.field("is_crowd", pa.bool_(), nullable=False),
        pa.field("is_group_of", pa.bool_(), nullable=False),
        pa.field("flags", pa.list_(pa.string()), nullable=False),
        # A detector's score, if the source's boxes are detections.
        pa.field("score", pa.float32()),
        pa.field("source", pa.string(), nullable=False),
        # Null where the source has no ids of its own.
        pa.field("source_annotation_id", pa.string()),
    ]
)

MASK_FIELDS = [
    # COCO RLE counts, column-major, in the image's own size.
    pa.field("counts", pa.binary()),
    pa.field("area_px", pa.int64()),
    pa.field("mask_box_xyxy", pa.list_(pa.float32(), 4)),
    # Raw signals; what each measures is said in teachers.signals and teachers.protocol.
    pa.field("predicted_iou", pa.float32()),
    pa.field("stability", pa.float32()),
    pa.field("mean_foreground", pa.float32()),
    pa.field("box_iou", pa.float32()),
    pa.field("outside_fraction", pa.float32()),
    pa.field("fill_ratio", pa.float32()),
    pa.field("num_components", pa.int32()),
    pa.field("border_contact", pa.float32()),
    pa.field("num_holes", pa.int32()),
    pa.field("edge_alignment", pa.float32()),
    pa.field("jitter_iou", pa.float32()),
    pa.field("output_iou", pa.float32()),
]

OK = "ok"
SKIPPED = "skipped"
FAILED = "failed"
ABSENT = "absent"
PENDING = "pending"

MASKS_SCHEMA = pa.schema(
    [
        # "ok", "skipped" (not prompted on purpose), "failed", "absent" (no human mask) or
        # "pending" (the box came after the teacher). `reason` is a ledger word unless "ok".
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        # The teacher's own choice, flat, so that a policy over 10M rows reads a few columns ...
        *MASK_FIELDS,
        # ... and its other outputs for the same box, best first by its own opinion.
        pa.field("candidates", pa.list_(pa.struct(MASK_FIELDS)), nullable=False),
    ]
)
"""A teacher's (or the humans') masks; every mask column is null unless `status` is "ok"."""

VERDICTS_SCHEMA = pa.schema(
    [
        pa.field("keep", pa.bool_(), nullable=False),
        # Null when kept; otherwise the first rule that the mask broke.
        pa.field("reason", pa.string()),
        # Whose mask was judged: a layer `masks/<teacher>`; null when there was none to judge.
        pa.field("teacher", pa.string()),
        # 0: the teacher's own choice; n: its `candidates[n - 1]`.
        pa.field("candidate", pa.int16(), nullable=False),
        # What the mask counts for in training, in [0, 1]: 0 where it was dropped.
        pa.field("weight", pa.float32()),
    ]
)

CONFIDENCE_SCHEMA = pa.schema(
    [
        # Calibrated expected IoU of the best output, in [0, 1]; null where no teacher drew a mask.
        pa.field("confidence", pa.float32()),
        # The output that has it: a layer `masks/<teacher>` and a candidate, as in `verdicts`.
        pa.field("teacher", pa.string()),
        pa.field("candidate", pa.int16(), nullable=False),
    ]
)
"""A float32 column for each output follows (`output_name`): the expected IoU of that one.

`agreement` has nothing but columns of that kind, one for each pair of outputs of two teachers
(`pair_name`): the IoU of their masks, null where one of them is not there.
"""

_BETWEEN = "|"


def output_name(teacher: str, candidate: int) -> str:
    """The column of one output of a teacher: `sam_vit_t` its own choice, `sam_vit_t.1` the next."""
    return f"{teacher}.{candidate}" if candidate else teacher


def output_of(name: str) -> tuple[str, int]:
    """(teacher, candidate) of an output's column."""
    teacher, dot, candidate = name.rpartition(".")
    return (teacher, int(candidate)) if dot and candidate.isdigit() else (name, 0)


def pair_name(first: str, second: str) -> str:
    """The column of two outputs: `grabcut|sam_vit_t.1`, in the order of their names."""
    return _BETWEEN.join(sorted((first, second)))


def pair_of(name: str) -> tuple[str, str]:
    """The two outputs of a column of `agreement`."""
    first, _, second = name.partition(_BETWEEN)
    return first, second


LATER_COLUMNS: Mapping[str, pa.DataType] = {
    field.name: field.type
    for schema in (MASKS_SCHEMA, VERDICTS_SCHEMA)
    for field in schema
    if field.name in {"num_holes", "edge_alignment", "jitter_iou", "output_iou", "weight"}
}
"""Columns that cells written before maskmill 0.2 lack; they are read as nulls."""

REJECTS_SCHEMA = pa.schema(
    [
        # "images", "boxes" or "masks/human".
        pa.field("layer", pa.string(), nullable=False),
        # "dropped" or "failed".
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("source_image_id", pa.string()),
        pa.field("file_name", pa.string()),
        pa.field("source_annotation_id", pa.string()),
        pa.field("category", pa.string()),
    ]
)
"""One row for every image and box an ingest did not keep: `maskmill show REF --rejects`."""

REMOVED_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("file_name", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        # The shard that held the image, and the one with its other images; null: there were none.
        pa.field("shard", pa.string(), nullable=False),
        pa.field("successor", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("author", pa.string(), nullable=False),
        pa.field("time", pa.string(), nullable=False),
    ]
)
"""One row for every image that was taken down; a commit's table holds its whole history's."""

PREDICTIONS_SCHEMA = pa.schema(
    [
        # As asked for, below the root.
        pa.field("file_name", pa.string(), nullable=False),
        pa.field("height", pa.int32()),
        pa.field("width", pa.int32()),
        # A ledger word for an image that could not be read; null: it was predicted.
        pa.field("reason", pa.string()),
        pa.field(
            "segments",
            pa.list_(
                pa.struct(
                    [
                        pa.field("text", pa.string(), nullable=False),
                        pa.field("score", pa.float32(), nullable=False),
                        pa.field("box_xyxy", pa.list_(pa.float32(), 4), nullable=False),
                        pa.field("counts", pa.binary(), nullable=False),
                        # "learnable", "conditional" or "several": what found it.
                        pa.field("query", pa.string(), nullable=False),
                    ]
                )
            ),
            nullable=False,
        ),
    ]
)
"""One row for every photo that `maskmill predict` was given, in that order."""
