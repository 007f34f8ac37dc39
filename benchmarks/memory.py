"""Peak memory of driver and worker when a job is ten times as long.

    python benchmarks/memory.py --images 1000 10000

Small pictures are made, ingested and labelled with the filled box, each size in a fresh process.
The worker's peak is the highest of samples taken every 50 ms, the driver's is the kernel's own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

_INGEST = """
import json, resource, sys
from pathlib import Path
from engine.ingest import ingest
from engine.ingest_config import ImagePolicy, IngestConfig
from engine.pool import PoolConfig
from engine.sources.protocol import SourceConfig
from manifests.dataset import init
from manifests.store import Store

folder, log = Path(sys.argv[1]), Path(sys.argv[2])
store = Store(str(folder / "store"))
init(store)
source = SourceConfig(format="coco", annotations=str(folder / "boxes.json"),
                      images=str(folder / "images"), name="small")
lenient = ImagePolicy(min_sharpness=0)
with watched(log):
    ingest(store, IngestConfig(source=source, policy=lenient, pool=PoolConfig(workers=1)))
"""
_LABEL = """
import sys
from pathlib import Path
from engine.label import LabelConfig, label
from engine.pool import PoolConfig
from manifests.store import Store

folder, log = Path(sys.argv[1]), Path(sys.argv[2])
with watched(log):
    pool = PoolConfig(workers=1, cpus_per_worker=1)
    label(Store(str(folder / "store")), LabelConfig(teacher="box", pool=pool))
"""
_WATCH = """
import contextlib, json, resource, threading, time
import psutil

@contextlib.contextmanager
def watched(log):
    peaks, done = {0: 0}, threading.Event()
    def watch():
        while not done.wait(0.05):
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if "_ActorBody" in " ".join(child.cmdline()):
                        peaks[child.pid] = max(peaks.get(child.pid, 0), child.memory_info().rss)
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    log.write_text(json.dumps({"driver": own, "worker": max(peaks.values())}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000])
    arguments = parser.parse_args()
    table = Table(title="peak memory, MB", title_justify="left")
    for name in ("images", "ingest driver", "ingest worker", "label driver", "label worker"):
        table.add_column(name, justify="right")
    for count in arguments.images:
        with tempfile.TemporaryDirectory(prefix="maskmill-bench-") as folder:
            peaks = measure(Path(folder), count)
        table.add_row(f"{count:,}", *(f"{peak / 1e6:.0f}" for peak in peaks))
    Console(width=80).print(table)


def measure(folder: Path, count: int) -> list[float]:
    """Bytes, in the order of the table's columns."""
    make_pictures(folder, count)
    found: list[float] = []
    for job in (_INGEST, _LABEL):
        log = folder / "peaks.json"
        subprocess.run([sys.executable, "-c", _WATCH + job, str(folder), str(log)], check=True)
        peaks = json.loads(log.read_text())
        found += [peaks["driver"], peaks["worker"]]
    return found


def make_pictures(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    images, annotations = [], []
    for number in range(1, count + 1):
        pixels = rng.integers(0, 255, (96, 128, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.jpg", quality=50)
        images.append({"id": number, "file_name": f"{number}.jpg", "height": 96, "width": 128})
        annotations += [
            {"id": 4 * number + k, "image_id": number, "category_id": 1,
             "bbox": [10 * k, 5 * k, 60, 50]}
            for k in range(4)
        ]  # fmt: skip
    document = {"images": images, "annotations": annotations,
                "categories": [{"id": 1, "name": "thing"}]}  # fmt: skip
    (folder / "boxes.json").write_text(json.dumps(document))


if __name__ == "__main__":
    main()
