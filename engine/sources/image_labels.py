"""Open Images' image-level labels, gathered into one list of absent categories for each image.

The rows of an image need not stand together in the file, and there are millions of images, so
the grouping is DuckDB's, which uses the disk when memory runs short.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from engine.sources.csv_stream import read_csv
from engine.sources.protocol import BATCH_ROWS

_COLUMNS = ("ImageID", "LabelName", "Confidence")
_MEMORY = "1GB"
_GROUPED = """
    SELECT image_id, list(DISTINCT label ORDER BY label) FILTER (absent) AS negative
    FROM labels GROUP BY image_id ORDER BY image_id
"""


def absent_labels(path: str) -> Iterator[pa.RecordBatch]:
    """Every image of the file once: `image_id`, and `negative`, the labels verified as absent.

    Raises:
        InputError: see `read_csv`.
    """
    import duckdb

    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "labels.duckdb"
        with duckdb.connect(str(database), config={"memory_limit": _MEMORY}) as connection:
            connection.execute("CREATE TABLE labels (image_id TEXT, label TEXT, absent BOOLEAN)")
            for batch in read_csv(path, columns=_COLUMNS, quoted=False):
                rows = pa.table(
                    {
                        "image_id": batch.text("ImageID"),
                        "label": batch.text("LabelName"),
                        "absent": pa.array(batch.numbers("Confidence") == 0),
                    }
                )
                connection.register("rows", rows.filter(pc.not_equal(rows["image_id"], "")))
                connection.execute("INSERT INTO labels SELECT * FROM rows")
            yield from connection.sql(_GROUPED).to_arrow_reader(BATCH_ROWS)
