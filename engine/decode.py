"""Foreign image bytes to upright 8-bit RGB, or a ledger word that says why not.

Stored bytes are the source's own wherever every reader decodes them to the same picture. Otherwise
(EXIF rotation, CMYK, 16 bit, alpha, animation, rare formats) the picture is encoded again, once,
and what was done is recorded in `transforms`.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

ImageRgb = NDArray[np.uint8]

DEFAULT_MAX_PIXELS = 89_000_000
"""Below the size at which Pillow itself begins to suspect a decompression bomb."""

# A camera's MPO is opened by the JPEG reader.
_READABLE = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
_KEPT_FORMATS = {"JPEG": "jpeg", "MPO": "jpeg", "PNG": "png", "WEBP": "webp"}
EXTENSIONS = {"jpeg": "jpg", "png": "png", "webp": "webp"}
# What Pillow's decoders are known to raise on hostile bytes.
_DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, TypeError, AttributeError,
    OverflowError, struct.error, zlib.error, NotImplementedError,
)  # fmt: skip

_MEMORY_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class ImageRejectedError(Exception):
    """This image cannot be used; `reason` is a ledger word, `detail` is for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, slots=True, kw_only=True)
class UprightImage:
    """A decoded image and the bytes to store for it.

    Attributes:
        rgb: [H, W, 3] uint8, upright.
        data: encoded bytes that decode to `rgb` in any reader.
        format: a key of EXTENSIONS.
        transforms: what was done to the source's bytes; empty if they are stored untouched.
        orientation: the EXIF orientation that was applied, 1 for none.
        raw_size_hw: height and width before that rotation.
    """

    rgb: ImageRgb
    data: bytes
    format: str
    transforms: tuple[str, ...]
    orientation: int
    raw_size_hw: tuple[int, int]


def read_upright(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> UprightImage:
    """Decodes a source's bytes fully, once, and makes them upright and plain.

    Raises:
        ImageRejectedError: `empty_file`, `not_an_image`, `too_many_pixels`, `undecodable` or
            `out_of_memory`.
    """
    if not data:
        raise ImageRejectedError("empty_file", "the file has no bytes")
    image = _open(data, max_pixels=max_pixels)
    source_format = image.format or ""
    raw_size_hw = (image.height, image.width)
    try:
        orientation = int(image.getexif().get(ExifTags.Base.Orientation, 1) or 1)
        transforms = _needed_transforms(image, orientation)
        image.load()
        plain = _plain(ImageOps.exif_transpose(image))
    except MemoryError as error:
        raise ImageRejectedError("out_of_memory", "not enough memory to decode it") from error
    except _DECODER_ERRORS as error:
        raise ImageRejectedError("undecodable", _words(error)) from error
    stored_format = _KEPT_FORMATS.get(source_format, "png")
    if transforms:
        stored_format = "jpeg" if stored_format == "jpeg" else "png"
        data = _encode(plain, stored_format)
        plain = Image.open(io.BytesIO(data))
    return UprightImage(
        rgb=np.asarray(plain.convert("RGB")),
        data=data,
        format=stored_format,
        transforms=transforms,
        orientation=orientation if 2 <= orientation <= 8 else 1,
        raw_size_hw=raw_size_hw,
    )


def decode_stored(data: bytes) -> ImageRgb:
    """[H, W, 3] uint8 RGB of bytes that `read_upright` has passed.

    Raises:
        ImageRejectedError: `undecodable`; the bytes have changed since.
    """
    Image.init()
    try:
        # A picture that was kept untouched may carry an orientation tag of 1 only, so none is read.
        return np.asarray(Image.open(io.BytesIO(data), formats=_READABLE).convert("RGB"))
    except _DECODER_ERRORS as error:
        raise ImageRejectedError("undecodable", _words(error)) from error


def check_stored(data: bytes, *, size_hw: tuple[int, int]) -> None:
    """Decodes stored bytes that may be damaged, and no more pixels than were stored.

    Raises:
        ImageRejectedError: they do not decode to an upright picture of that (height, width).
    """
    height, width = size_hw
    image = _open(data, max_pixels=height * width)
    if (image.height, image.width) != size_hw:
        raise ImageRejectedError(
            "image_size_mismatch",
            f"it is {image.width} x {image.height}, its row says {width} x {height}",
        )
    try:
        orientation = int(image.getexif().get(ExifTags.Base.Orientation, 1) or 1)
        transforms = _needed_transforms(image, orientation)
        image.load()
    except MemoryError as error:
        raise ImageRejectedError("out_of_memory", "not enough memory to decode it") from error
    except _DECODER_ERRORS as error:
        raise ImageRejectedError("undecodable", _words(error)) from error
    if transforms:
        raise ImageRejectedError("not_plain", f"it still needs {', '.join(transforms)}")


def _open(data: bytes, *, max_pixels: int) -> Image.Image:
    """Reads the header only, so that a decompression bomb is refused before it goes off."""
    Image.init()  # registers the rarer formats; only the first call does anything
    Image.MAX_IMAGE_PIXELS = None  # the policy decides, below, before anything is decoded
    try:
        image = Image.open(io.BytesIO(data), formats=_READABLE)
    except _DECODER_ERRORS as error:
        raise ImageRejectedError("not_an_image", _words(error)) from error
    if image.width * image.height > max_pixels:
        raise ImageRejectedError(
            "too_many_pixels",
            f"{image.width} x {image.height} pixels, the policy allows {max_pixels}",
        )
    return image


def _needed_transforms(image: Image.Image, orientation: int) -> tuple[str, ...]:
    found = []
    if 2 <= orientation <= 8:
        found.append(f"exif_{orientation}")
    if image.mode in ("CMYK", "YCCK"):
        found.append("cmyk")
    if image.mode.startswith(("I", "F")):
        found.append("16_bit")
    if image.has_transparency_data:
        found.append("alpha_on_white")
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        found.append("first_frame")
    if image.format not in _KEPT_FORMATS:
        found.append(f"from_{(image.format or 'unknown').lower()}")
    return tuple(found)


def _plain(image: Image.Image) -> Image.Image:
    """8-bit grey or RGB."""
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, dtype=np.float64)
        top = 65535.0 if values.max(initial=0) > 255 else 255.0
        return Image.fromarray(np.clip(values * (255.0 / top), 0, 255).round().astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "L" else image.convert("RGB")


def _encode(image: Image.Image, stored_format: str) -> bytes:
    sink = io.BytesIO()
    if stored_format == "jpeg":
        image.save(sink, "JPEG", quality=95, subsampling=0)
    else:
        image.save(sink, "PNG")
    return sink.getvalue()


def _words(error: Exception) -> str:
    """A decoder's complaint, the same in every run: Pillow names objects by their addresses."""
    return f"{type(error).__name__}: {_MEMORY_ADDRESS.sub('', str(error))}"
