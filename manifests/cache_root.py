"""The folder of everything that can be had again: weights, cached objects, logs of runs."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_root() -> Path:
    """`$MASKMILL_CACHE`, or the user's cache folder for maskmill; absolute, and not made here."""
    named = os.environ.get("MASKMILL_CACHE") or platformdirs.user_cache_dir("maskmill")
    return Path(named).absolute()
