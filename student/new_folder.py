"""Making a folder that a setting names, or saying which setting to change."""

from __future__ import annotations

import tempfile
from pathlib import Path

from manifests.errors import InputError


def make_folder(folder: Path, *, setting: str) -> None:
    """With those above it; it may be there already, but must take files.

    Raises:
        InputError: it cannot be made or written; names the setting.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{setting}: expected a folder that can be written, got {folder} "
            f"({error.strerror or error}); name another"
        ) from error
