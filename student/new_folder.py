"""Making a folder that a setting names, or saying which setting to change."""

from __future__ import annotations

from pathlib import Path

from manifests.errors import InputError


def make_folder(folder: Path, *, setting: str) -> None:
    """With those above it; it may be there already.

    Raises:
        InputError: it cannot be made; names the setting.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{setting}: {folder} cannot be made ({error.strerror or error}); give a folder on a "
            "local disk"
        ) from error
