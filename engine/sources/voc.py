"""Pascal VOC: a folder with one XML file for each image.

VOC counts pixels from 1 and includes the last one, so (xmin, ymin, xmax, ymax) is the half-open
box (xmin - 1, ymin - 1, xmax, ymax). Tools that write the same XML with coordinates from 0 need
the option `one_based = false`, which takes the four numbers as they are.
"""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NoReturn
from xml.etree import ElementTree  # every document type is refused: _NoDoctype

from engine.sources.files import FileText, Folder, open_bytes
from engine.sources.protocol import SourceBatch, SourceConfig, SourceInput
from engine.sources.rows import AnnotationRow, Box, CategoryRow, ImageRow, Row, batches
from engine.sources.tables import INT32_MAX
from manifests.errors import InputError

_log = logging.getLogger(__name__)
_FLAGS = ("difficult", "truncated", "occluded")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def open_voc(config: SourceConfig) -> VocSource:
    """The source behind the format `voc`."""
    image_set = config.options.get("image_set")
    return VocSource(
        annotations=config.annotations,
        image_set=None if image_set is None else str(image_set),
        one_based=bool(config.options.get("one_based", True)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class VocSource:
    """A folder of XML files, or the folder that has them in `Annotations`.

    Attributes:
        image_set: "train" for ImageSets/Main/train.txt, or the path or URL of such a list.
        one_based: whether coordinates count from 1.
    """

    annotations: str
    image_set: str | None = None
    one_based: bool = True

    @property
    def box_unit(self) -> Literal["pixel", "relative"]:
        return "pixel"

    @property
    def images_implied(self) -> bool:
        return False

    def inputs(self) -> Iterator[SourceInput]:
        """The XML files, and the list that chooses some of them."""
        folder = Folder(self.annotations)
        names, _ = self._chosen(folder, _below(folder))
        yield SourceInput(role="annotations", url=self.annotations, names=sorted(names))
        if self.image_set is not None:
            yield SourceInput(role="image_set", url=_image_set_url(folder, self.image_set))

    def scan(self) -> Iterator[SourceBatch]:
        """Images in the order of the list, or of their names, with new categories between."""
        yield from batches(self._rows())

    def _rows(self) -> Iterator[Row]:
        folder = Folder(self.annotations)
        below = _below(folder)
        names, missing = self._chosen(folder, below)
        for name in missing:
            yield _broken(name, below, "missing_annotation_file")
        seen: set[str] = set()
        for text in folder.read(names):
            yield from self._file_rows(text, below, seen)

    def _chosen(self, folder: Folder, below: str) -> tuple[list[str], list[str]]:
        """The XML files to read, in order, and those of the list that are not there."""
        names = folder.names((".xml",), below=below)
        if not names:
            raise InputError(
                f"no .xml file below {self.annotations}: expected one for each image; "
                f"check the folder"
            )
        if self.image_set is None:
            return names, []
        present = set(names)
        wanted = [
            posixpath.join(below, f"{stem}.xml") for stem in _image_set(folder, self.image_set)
        ]
        # Only files that were listed are opened, whatever the list says.
        missing = [name for name in wanted if name not in present]
        return [name for name in wanted if name in present], missing

    def _file_rows(self, text: FileText, below: str, seen: set[str]) -> Iterator[Row]:
        try:
            root = _parse(text)
        except _RefusedError as error:
            _log.warning("annotation file %s left out: %s", text.name, error)
            yield _broken(text.name, below, "malformed_annotation_file")
            return
        image_id = _image_id(text.name, below)
        file_name = _text(root, "filename")
        yield ImageRow(
            source_image_id=image_id,
            file_name=file_name or None,
            size_hw=_size(root),
            defect=None if file_name else "malformed_image_entry",
        )
        for entry in root.findall("object"):
            name = _text(entry, "name")
            if name and name not in seen:
                seen.add(name)
                yield CategoryRow(source_category_id=name, name=name)
            yield self._annotation(entry, image_id, name)

    def _annotation(
        self, entry: ElementTree.Element, source_image_id: str, name: str
    ) -> AnnotationRow:
        box = _box(entry, shift=1.0 if self.one_based else 0.0)
        defect = "malformed_box" if box is None else None
        return AnnotationRow(
            source_image_id=source_image_id,
            category=name,
            box_xyxy=box,
            flags=tuple(flag for flag in _FLAGS if _text(entry, flag) in ("1", "true", "True")),
            defect=defect if name else "missing_category_id",
        )


class _RefusedError(Exception):
    """An annotation file that cannot be used, and why."""


class _NoDoctype(ElementTree.TreeBuilder):
    """Refuses a document type before any entity in it can be declared, let alone expanded."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> NoReturn:
        raise _RefusedError(f"it declares a document type ({name}), which VOC does not have")


def _parse(text: FileText) -> ElementTree.Element:
    if text.problem is not None or text.is_missing:
        raise _RefusedError(text.problem or "it is gone")
    parser = ElementTree.XMLParser(target=_NoDoctype())  # noqa: S314  # see _NoDoctype
    try:
        parser.feed(text.text)
        root: ElementTree.Element = parser.close()
    except ElementTree.ParseError as error:
        line, column = error.position
        raise _RefusedError(f"broken at line {line}, column {column + 1}: {error}") from error
    except (ValueError, LookupError) as error:  # an encoding that Python does not have
        raise _RefusedError(str(error)) from error
    if root.tag != "annotation":
        raise _RefusedError(f"expected <annotation>, got <{root.tag}>")
    return root


def _broken(name: str, below: str, defect: str) -> ImageRow:
    return ImageRow(source_image_id=_image_id(name, below), file_name=None, defect=defect)


def _image_id(name: str, below: str) -> str:
    """The XML file's name without folder and suffix: VOC's own id."""
    return name[len(below) :].lstrip("/").removesuffix(".xml")


def _image_set(folder: Folder, image_set: str) -> list[str]:
    """The ids in a list, without the second column that says whether a class is present."""
    with open_bytes(_image_set_url(folder, image_set)) as file:
        lines = [line.split() for line in file.read().decode("utf-8-sig", "replace").splitlines()]
    return list(dict.fromkeys(cells[0] for cells in lines if cells))


def _image_set_url(folder: Folder, image_set: str) -> str:
    is_path = "/" in image_set or image_set.endswith(".txt")
    return image_set if is_path else folder.url_of(f"ImageSets/Main/{image_set}.txt")


def _below(folder: Folder) -> str:
    """Where the XML files are in the folder."""
    return "Annotations" if folder.has_folder("Annotations") else ""


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
    """Height and width; None where either is absent or impossible."""
    size = root.find("size")
    if size is None:
        return None
    try:
        height, width = int(_text(size, "height")), int(_text(size, "width"))
    except ValueError:
        return None
    return (height, width) if 0 < height <= INT32_MAX and 0 < width <= INT32_MAX else None


def _box(entry: ElementTree.Element, *, shift: float) -> Box | None:
    found = entry.find("bndbox")
    if found is None:
        return None
    try:
        x0, y0, x1, y1 = (float(_text(found, name)) for name in _CORNERS)
    except ValueError:
        return None
    return x0 - shift, y0 - shift, x1, y1


def _text(parent: ElementTree.Element, name: str) -> str:
    return (parent.findtext(name) or "").strip()
