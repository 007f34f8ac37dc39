"""One image as people gave it back, and what they drew in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

BAD_SEGMENTATION = "bad_segmentation"
NO_MASK = "no_mask"
OLDER_ANNOTATION = "older_annotation"
UNKNOWN_CATEGORY = "unknown_category"
UNKNOWN_IMAGE = "unknown_image"

# Label Studio puts eight digits and a dash before the name of a file that is uploaded to it.
_ID_AT_END = re.compile(r"(?:^|[^0-9a-f])([0-9a-f]{32})$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was drawn for one object.

    Attributes:
        name: the tool's own id, for people who look for it.
        category: its name; None: the file does not say which.
        segmentation: as COCO has it: polygons in pixels, or RLE; None or [] if there is none.
        problem: why it cannot be used, a ledger word, and `detail`; "" where nothing is wrong yet.
    """

    name: str
    category: str | None
    segmentation: object
    problem: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnImage:
    """An image of an answer file.

    Attributes:
        file_name: as the tool has it, perhaps below folders of its own.
        given_id: maskmill's id, if the tool kept it.
        size_hw: that the file says the image has; None: it does not.
        answers: in the order of the file; none: nobody has drawn in it.
    """

    file_name: str
    given_id: str | None
    size_hw: tuple[int, int] | None
    answers: tuple[Answer, ...]

    def possible_ids(self) -> tuple[str, ...]:
        """What may be the image's id: the one that was given along, and the end of the stem."""
        found = _ID_AT_END.search(PurePosixPath(self.file_name).stem)
        in_name = found.group(1) if found else None
        return tuple(dict.fromkeys(name for name in (self.given_id, in_name) if name))


def size_hw_of(height: object, width: object) -> tuple[int, int] | None:
    """A size that JSON gives, if it is one."""
    if type(height) is not int or type(width) is not int:
        return None
    return (height, width) if height > 0 and width > 0 else None
