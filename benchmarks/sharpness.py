"""Sharpness of real photos, as they are and blurred: what `min_sharpness` cuts.

python benchmarks/sharpness.py --data ../shared/data
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from rich.console import Console
from rich.table import Table

from engine.decode import read_upright
from engine.measure import measure

_BLURRED_AT_SIDE = 1024
_RADII = (2, 4, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--photos", type=int, default=150, help="of each set, the first by name")
    arguments = parser.parse_args()
    table = Table(title="sharpness", title_justify="left")
    for name in ("set", "photos", "lowest", "1%", "median"):
        table.add_column(name, justify="left" if name == "set" else "right")
    for radius in _RADII:
        table.add_column(f"median, blurred {radius} px", justify="right")
    for folder in sorted(arguments.data.iterdir()):
        files = sorted((folder / "images").iterdir())[: arguments.photos]
        plain = [measure(read_upright(file.read_bytes()).rgb).sharpness for file in files]
        shown = [len(files), *np.percentile(plain, [0, 1, 50])]
        blurred = [median_blurred(files[:20], radius) for radius in _RADII]
        table.add_row(folder.name, *(f"{value:,.4g}" for value in (*shown, *blurred)))
    Console(width=110).print(table)


def median_blurred(files: list[Path], radius: int) -> float:
    """Of the photos at a long side of 1,024 px, blurred by a Gaussian."""
    found = []
    for file in files:
        image = Image.open(file).convert("RGB")
        image.thumbnail((_BLURRED_AT_SIDE, _BLURRED_AT_SIDE))
        soft = image.filter(ImageFilter.GaussianBlur(radius))
        found.append(measure(np.asarray(soft)).sharpness)
    return float(np.median(found))


if __name__ == "__main__":
    main()
