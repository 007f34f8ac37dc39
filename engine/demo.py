"""The demo set: photos that installed packages bring along, with boxes, as a COCO dataset.

Nothing is downloaded and no photo is part of maskmill: files are copied from scikit-image and
scikit-learn, and a few are spoiled on purpose so that a demo shows what becomes of bad data.
"""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, ImageFilter

from engine.demo_boxes import DEMO_IMAGES, LICENCES, DemoImage, DemoPhoto, Derivation
from manifests.errors import InputError

_DISTRIBUTIONS = {"skimage": "scikit-image", "sklearn": "scikit-learn"}
_JPEG_QUALITY = 92
_BLUR_RADIUS_PX = 14
_DARKNESS = 0.04
_EXIF_ROTATE_90_CW = 6  # what a viewer has to do with the stored pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSet:
    """What `build_demo_set` wrote.

    Attributes:
        images: the folder of the photos.
        annotations: COCO instances JSON, its file names relative to `images`.
        num_images, num_boxes: entries of that file, the bad ones included.
    """

    images: Path
    annotations: Path
    num_images: int
    num_boxes: int


def build_demo_set(folder: Path) -> DemoSet:
    """Writes `images/` and `boxes.json` below `folder`; the same bytes each time.

    Raises:
        InputError: a package with photos is not installed, or the folder cannot be written.
    """
    sources = {image.photo: _read_photo(image.photo) for image in DEMO_IMAGES}
    images, annotations = folder / "images", folder / "boxes.json"
    try:
        images.mkdir(parents=True, exist_ok=True)
        for image in DEMO_IMAGES:
            data = _DERIVE[image.derivation](sources[image.photo], image)
            (images / image.file_name).write_bytes(data)
        annotations.write_text(json.dumps(_instances(), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"the demo set cannot be written to {folder}: {error.strerror or error}; "
            "name another folder"
        ) from error
    return DemoSet(
        images=images,
        annotations=annotations,
        num_images=len(DEMO_IMAGES),
        num_boxes=sum(len(image.boxes) for image in DEMO_IMAGES),
    )


def _read_photo(photo: DemoPhoto) -> bytes:
    """Found without importing the package, which would take a second."""
    name = _DISTRIBUTIONS.get(photo.package, photo.package)
    spec = importlib.util.find_spec(photo.package)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"the demo photos come with {name}, which is not installed; run 'pip install {name}'"
        )
    path = Path(spec.submodule_search_locations[0]) / photo.member
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"the installed {name} lacks the demo photo {photo.member} ({error.strerror}); "
            f"install the version that requirements/lock.txt names"
        ) from error


def _as_it_is(data: bytes, image: DemoImage) -> bytes:
    return data


def _blurred(data: bytes, image: DemoImage) -> bytes:
    return _jpeg(_open(data, image).filter(ImageFilter.GaussianBlur(_BLUR_RADIUS_PX)))


def _blackened(data: bytes, image: DemoImage) -> bytes:
    return _jpeg(_open(data, image).point(lambda value: round(value * _DARKNESS)))


def _turned(data: bytes, image: DemoImage) -> bytes:
    """Pixels lie on their side as a camera held upright stores them; the tag says how to turn."""
    sideways = _open(data, image).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = _EXIF_ROTATE_90_CW
    return _jpeg(sideways, exif=exif)


def _truncated(data: bytes, image: DemoImage) -> bytes:
    return data[: len(data) // 2]


_DERIVE: Mapping[Derivation, Callable[[bytes, DemoImage], bytes]] = {
    "as_it_is": _as_it_is,
    "blurred": _blurred,
    "blackened": _blackened,
    "turned": _turned,
    "truncated": _truncated,
}


def _open(data: bytes, image: DemoImage) -> Image.Image:
    with Image.open(io.BytesIO(data)) as photo:
        rgb = photo.convert("RGB")
    return rgb if image.crop_xyxy is None else rgb.crop(image.crop_xyxy)


def _jpeg(image: Image.Image, *, exif: Image.Exif | None = None) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_JPEG_QUALITY, exif=exif or Image.Exif())
    return file.getvalue()


def _instances() -> dict[str, Any]:  # Any: JSON
    names = sorted({box.category for image in DEMO_IMAGES for box in image.boxes})
    category_ids = {name: number for number, name in enumerate(names, start=1)}
    return {
        "info": {
            "description": "maskmill demo set: photos from scikit-image and scikit-learn with "
            "boxes drawn by hand; some files and boxes are bad on purpose, see their `note`",
            "version": "1",
        },
        "licenses": [
            {"id": number, "name": licence.name, "url": licence.url}
            for number, licence in enumerate(LICENCES, start=1)
        ],
        "categories": [{"id": number, "name": name} for name, number in category_ids.items()],
        "images": [_image(number, image) for number, image in enumerate(DEMO_IMAGES, start=1)],
        "annotations": _annotations(category_ids),
    }


def _image(number: int, image: DemoImage) -> dict[str, Any]:  # Any: JSON
    height, width = image.size_hw
    return {
        "id": number,
        "file_name": image.file_name,
        "height": height,
        "width": width,
        "license": LICENCES.index(image.photo.licence) + 1,
        "credit": image.photo.credit,
        "note": image.note,
    }


def _annotations(category_ids: Mapping[str, int]) -> list[dict[str, Any]]:  # Any: JSON
    boxes = [(number, box) for number, image in enumerate(DEMO_IMAGES, 1) for box in image.boxes]
    found = []
    for annotation_id, (image_id, box) in enumerate(boxes, start=1):
        x1, y1, x2, y2 = box.box_xyxy
        found.append(
            {
                "id": annotation_id,
                "image_id": image_id,
                "category_id": category_ids[box.category],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": int(box.is_crowd),
            }
        )
    return found
