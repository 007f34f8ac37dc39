"""Where the official weights and photos lie, and few threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(min(2, before))
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with weights/ and data/ beside the checkout."""
    given = os.environ.get("MASKMILL_SHARED")
    folder = Path(given) if given else Path(__file__).parents[3].parent / "shared"
    if not (folder / "weights" / "mobile_sam.pt").is_file():
        pytest.skip(f"needs weights and photos in {folder}; set $MASKMILL_SHARED")
    return folder
