"""A self-contained HTML page: pictures are data: URIs, nothing is fetched, nothing runs.

Everything that comes from data is escaped by the template engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from manifests.errors import InputError

_View = TypeVar("_View")
NONE = "–"  # noqa: RUF001  a dash for a number that there is not


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureQuality:
    """How much of the page a picture may take: its long side in pixels, JPEG's 1-100."""

    long_side: int
    jpeg: int


def render(
    template: str,
    filters: Mapping[str, Callable[..., object]],
    values: Mapping[str, Any],  # Any: whatever the template reads
    *,
    folder: Path,
) -> bytes:
    """A template of a folder as UTF-8.

    It may include `style.html`, the look of all pages. `count` is always among the filters.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, Path(__file__).parent / "templates"]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"count": "{:,}".format, **filters}
    return environment.get_template(template).render(**values).encode("utf-8", errors="replace")


def smallest_needed(
    qualities: Sequence[PictureQuality],
    draw: Callable[[PictureQuality], Sequence[_View]],
    page_of: Callable[[Sequence[_View]], bytes],
    *,
    max_bytes: int,
    fewer: Callable[[Sequence[_View]], Sequence[_View]],
) -> tuple[bytes, int]:
    """The first page within its limit, and how many pictures it has.

    Args:
        qualities: the best first.
        draw: the pictures in one of them.
        page_of: the page with some pictures.
        max_bytes: the limit; a page without pictures may be over it.
        fewer: what is left of the pictures where the lowest quality is still too large.
    """
    views: Sequence[_View] = ()
    page = b""
    for quality in qualities:
        views = draw(quality)
        page = page_of(views)
        if len(page) <= max_bytes:
            return page, len(views)
    while views and len(page) > max_bytes:
        views = fewer(views)
        page = page_of(views)
    return page, len(views)


def require_writable(target: Path, *, what: str) -> None:
    """Before the work: raises what `write_page` would raise after it."""
    is_new = not target.exists()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("ab"):
            pass
        if is_new:
            target.unlink()
    except OSError as error:
        raise _unwritable(target, error, what) from error


def write_page(page: bytes, target: Path, *, what: str) -> None:
    """Writes a page, replacing a file. Raises InputError, naming `what`, if it cannot."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(page)
    except OSError as error:
        raise _unwritable(target, error, what) from error


def _unwritable(target: Path, error: OSError, what: str) -> InputError:
    return InputError(
        f"the {what} cannot be written to {target}: {error.strerror or error}; name another file"
    )
