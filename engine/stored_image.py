"""Do an image's stored bytes still decode to the picture that its row describes? Asked by fsck."""

from __future__ import annotations

from engine.decode import ImageRejectedError, check_stored


def complaint_about(data: bytes, size_hw: tuple[int, int]) -> str | None:
    """What is wrong with stored image bytes, or None: they decode, upright, to (height, width)."""
    try:
        check_stored(data, size_hw=size_hw)
    except ImageRejectedError as error:
        return f"{error.reason}: {error.detail}"
    return None
