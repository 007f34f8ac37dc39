"""Do an image's stored bytes still decode to the picture that its row describes? Asked by fsck."""

from __future__ import annotations

from engine.decode import ImageRejectedError, read_upright


def complaint_about(data: bytes, size_hw: tuple[int, int]) -> str | None:
    """What is wrong with stored image bytes, or None if they decode, upright, to (height, width).

    The header is read first, so nothing is decoded that is larger than what was stored.
    """
    height, width = size_hw
    try:
        found = read_upright(data, max_pixels=height * width)
    except ImageRejectedError as error:
        return f"{error.reason}: {error.detail}"
    if found.rgb.shape[:2] != size_hw:
        return f"it is {found.rgb.shape[1]} x {found.rgb.shape[0]}, its row says {width} x {height}"
    if found.transforms:
        return f"it needs {', '.join(found.transforms)}, which ingest does before it stores one"
    return None
