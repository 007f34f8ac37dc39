"""Plan an ingest: which images make which shard, and which boxes go with them. All in SQL.

The spool holds the source as it is; here duplicate ids, unknown ids and equal pictures are found,
everything that will not be stored is counted with its reason, and the rest is cut into shards.
A plan is itself an object in the store, one row an image, its boxes nested in it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from engine.ingest_config import IngestConfig
from engine.spool import Spool, quoted
from manifests import schemas
from manifests.commit import Category
from manifests.dataset import Dataset
from manifests.ledger import LedgerCounter

_STRINGS = pa.list_(pa.string())

PLANNED_ANNOTATION = pa.struct(
    [
        pa.field("source_image_id", pa.string()),
        pa.field("source_annotation_id", pa.string()),
        # The size its own image entry declares: equal pictures may be declared differently.
        pa.field("height", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("category", pa.string()),
        pa.field("box_xyxy", pa.list_(pa.float64(), 4)),
        pa.field("is_crowd", pa.bool_()),
        pa.field("is_group_of", pa.bool_()),
        pa.field("flags", _STRINGS),
        pa.field("score", pa.float32()),
        pa.field("segmentation", pa.binary()),
    ]
)

PLAN = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("file_name", pa.string(), nullable=False),
        pa.field("source_image_id", pa.string(), nullable=False),
        pa.field("origins", pa.list_(schemas.ORIGIN), nullable=False),
        pa.field("height", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("not_exhaustive", _STRINGS),
        pa.field("negative", _STRINGS),
        pa.field("annotations", pa.list_(PLANNED_ANNOTATION), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedShard:
    """A shard to pack, or one that is there and gets more boxes.

    Attributes:
        table: rows of PLAN.
        extends: id of the existing shard whose images these are, or None for a new one.
    """

    table: pa.Table
    extends: str | None


class IngestPlan:
    """The plan of one ingest, made step by step on a filled spool."""

    def __init__(self, spool: Spool, config: IngestConfig, *, images_implied: bool) -> None:
        self._spool, self._config = spool, config
        self._images_implied = images_implied
        self._names = spool.category_names()

    def files(self) -> list[tuple[int, str]]:
        """(entry, file name) of every image to fingerprint."""
        self._spool.run(
            """
            CREATE TABLE image_fate AS
            SELECT entry, source_image_id, file_name, height, width, not_exhaustive, negative,
                   defect AS failure, NULL::VARCHAR AS detail,
                   row_number() OVER (PARTITION BY source_image_id ORDER BY entry) AS nth
            FROM images
            """
        )
        if self._images_implied:
            self._spool.run("DELETE FROM image_fate WHERE nth > 1")
        return [
            (entry, name)
            for entry, name in self._spool.rows(
                "SELECT entry, file_name FROM image_fate"
                " WHERE failure IS NULL AND nth = 1 ORDER BY entry"
            )
        ]

    def set_fingerprints(
        self, fingerprints: pa.Table, known: pa.Table, *, taken_down: Collection[str] = ()
    ) -> None:
        """Joins what reading the files told.

        Args:
            fingerprints: rows of FINGERPRINTS.
            known: image_id and shard of every image the dataset has already.
            taken_down: ids of images that were taken down and must not come back.
        """
        self._spool.add("fingerprints", fingerprints)
        self._spool.add("known", known)
        gone = pa.array(sorted(taken_down), pa.string())
        self._spool.add("taken_down", pa.table({"image_id": gone}))
        # `canon` is the entry under which a picture is stored: its first in the scan.
        self._spool.run(
            """
            CREATE TABLE fate AS
            SELECT i.entry, i.source_image_id, i.file_name, i.height, i.width, i.not_exhaustive,
                   i.negative, i.nth, f.image_id, f.num_bytes, k.shard AS known_shard,
                   t.image_id IS NOT NULL AS is_taken_down,
                   coalesce(i.failure, f.failure) AS failure,
                   coalesce(i.detail, f.detail) AS detail,
                   CASE WHEN f.image_id IS NULL THEN NULL
                        ELSE min(i.entry) OVER (PARTITION BY f.image_id) END AS canon
            FROM image_fate i
            LEFT JOIN fingerprints f USING (entry)
            LEFT JOIN known k ON k.image_id = f.image_id
            LEFT JOIN taken_down t ON t.image_id = f.image_id
            """
        )
        self._assign_shards()
        self._judge_images()
        self._judge_annotations()

    def count(self, counter: LedgerCounter) -> None:
        """Inputs of the whole ingest, and what this plan leaves out. Workers count the rest."""
        self._count_images(counter)
        for layer, condition in (
            (schemas.BOXES, "true"),
            (schemas.MASKS_HUMAN, "segmentation IS NOT NULL"),
        ):
            # Inputs come from the scan itself, outcomes from the joins: a row lost between the two
            # leaves the ledger out of balance.
            for category, count in self._spool.rows(
                f"SELECT coalesce(n.name, ''), count(*) FROM annotations a LEFT JOIN names n"  # noqa: S608
                f" ON n.id = a.source_category_id WHERE {condition} GROUP BY 1 ORDER BY 1"
            ):
                counter.add_inputs(layer, category, count)
        for layer, condition in (
            (schemas.BOXES, "true"),
            (schemas.MASKS_HUMAN, "has_segmentation"),
        ):
            for category, reason, outcome, count in self._spool.rows(
                f"SELECT category, reason, outcome, count(*) FROM annotation_fate"  # noqa: S608
                f" WHERE {condition} GROUP BY ALL ORDER BY ALL"
            ):
                if outcome == "failed":
                    counter.add_failed(layer, category, reason=reason, count=count)
                elif outcome == "dropped":
                    counter.add_dropped(layer, category, reason=reason, count=count)

    def rejects(self) -> pa.Table:
        """Rows of REJECTS_SCHEMA for everything this plan leaves out."""
        source = self._config.source.name
        images = self._spool.table(
            """
            SELECT 'images' AS layer, outcome, reason, detail, $source AS source, source_image_id,
                   file_name, NULL::VARCHAR AS source_annotation_id, NULL::VARCHAR AS category
            FROM image_outcome WHERE outcome <> 'planned' ORDER BY entry
            """,
            source=source,
        )
        boxes = self._spool.table(
            """
            SELECT 'boxes' AS layer, outcome, reason, detail, $source AS source, source_image_id,
                   NULL::VARCHAR AS file_name, source_annotation_id, category
            FROM annotation_fate WHERE outcome <> 'planned' ORDER BY entry
            """,
            source=source,
        )
        return pa.concat_tables([table.cast(schemas.REJECTS_SCHEMA) for table in (images, boxes)])

    def num_images(self) -> int:
        """Image entries of the source, good or bad."""
        return int(self._spool.rows("SELECT count(*) FROM image_fate")[0][0])

    def num_shards(self) -> int:
        """How many PlannedShards there are."""
        return int(self._spool.rows("SELECT coalesce(max(shard) + 1, 0) FROM planned")[0][0])

    def shard(self, number: int) -> PlannedShard:
        """The `number`-th planned shard, from 0: existing shards to extend come last."""
        first, last, known = self._spool.rows(
            "SELECT min(position), max(position), any_value(known_shard) FROM planned"
            " WHERE shard = $shard",
            shard=number,
        )[0]
        table = self._spool.table(
            """
            SELECT p.image_id, p.file_name, p.source_image_id, p.origins, p.height, p.width,
                   p.not_exhaustive, p.negative, coalesce(a.annotations, []) AS annotations
            FROM planned p LEFT JOIN (
                SELECT position, list(struct_pack(
                    source_image_id, source_annotation_id, height, width, category, box_xyxy,
                    is_crowd, is_group_of, flags, score, segmentation) ORDER BY entry)
                    AS annotations
                FROM planned_annotations WHERE position BETWEEN $first AND $last GROUP BY position
            ) a USING (position)
            WHERE p.position BETWEEN $first AND $last ORDER BY p.position
            """,
            first=first,
            last=last,
        )
        return PlannedShard(table=table.cast(PLAN), extends=known)

    def categories(self, before: tuple[Category, ...]) -> tuple[Category, ...]:
        """The dataset's category table with this source's categories merged in by name."""
        merged = {category.name: category for category in before}
        source = self._config.source.name
        for category_id, name, supercategory in self._spool.rows(
            "SELECT source_category_id, name, arg_min(supercategory, entry) FROM categories"
            " GROUP BY ALL ORDER BY min(entry)"
        ):
            known = merged.get(name, Category(name=name))
            merged[name] = Category(
                name=name,
                supercategory=known.supercategory or supercategory,
                source_ids={source: category_id, **known.source_ids},
            )
        return tuple(merged.values())

    def _assign_shards(self) -> None:
        """New pictures fill new shards in the order of the scan; known ones keep their shard."""
        self._spool.add("names", _name_table(self._names))
        new = self._spool.rows(
            "SELECT entry, num_bytes FROM fate WHERE entry = canon AND known_shard IS NULL"
            " AND NOT is_taken_down ORDER BY entry"
        )
        known = self._spool.rows(
            "SELECT entry, known_shard FROM fate WHERE entry = canon AND known_shard IS NOT NULL"
            " AND NOT is_taken_down ORDER BY known_shard, entry"
        )
        numbers = _full_shards([size for _, size in new], self._config)
        first_known = numbers[-1] + 1 if numbers else 0
        shards: dict[str, int] = {}
        for _, shard in known:
            shards.setdefault(shard, first_known + len(shards))
        numbers += [shards[shard] for _, shard in known]
        entries = [entry for entry, _ in (*new, *known)]
        self._spool.add(
            "placed",
            pa.table({"entry": entries, "shard": numbers, "position": range(len(entries))}),
        )
        self._spool.run(
            f"""
            CREATE TABLE planned AS
            WITH good AS (
                SELECT *, struct_pack(source := {quoted(self._config.source.name)},
                                      source_image_id, file_name) AS origin
                FROM fate WHERE failure IS NULL AND nth = 1
            ), together AS (
                -- Only pictures that come more than once: lists of all would not fit in memory.
                SELECT canon, list(origin ORDER BY entry) AS origins,
                       flatten(list(coalesce(not_exhaustive, []))) AS not_exhaustive,
                       flatten(list(coalesce(negative, []))) AS negative
                FROM good SEMI JOIN (
                    SELECT canon FROM good GROUP BY canon HAVING count(*) > 1) USING (canon)
                GROUP BY canon
            )
            SELECT f.* EXCLUDE (not_exhaustive, negative, origin), p.shard, p.position,
                   coalesce(o.origins, [f.origin]) AS origins,
                   coalesce(o.not_exhaustive, f.not_exhaustive) AS not_exhaustive,
                   coalesce(o.negative, f.negative) AS negative
            FROM placed p JOIN good f USING (entry) LEFT JOIN together o ON o.canon = p.entry
            ORDER BY p.position
            """  # noqa: S608
        )
        self._name_federated_lists()

    def _judge_images(self) -> None:
        self._spool.run(
            """
            CREATE TABLE image_outcome AS
            SELECT entry, source_image_id, file_name, canon, detail,
                   CASE WHEN nth > 1 THEN 'dropped' WHEN failure IS NOT NULL THEN 'failed'
                        WHEN is_taken_down OR entry <> canon OR known_shard IS NOT NULL
                            THEN 'dropped'
                        ELSE 'planned' END AS outcome,
                   CASE WHEN nth > 1 THEN 'duplicate_image_id'
                        WHEN failure IS NOT NULL THEN failure
                        WHEN is_taken_down THEN 'taken_down'
                        WHEN entry <> canon THEN 'duplicate_image'
                        WHEN known_shard IS NOT NULL THEN 'already_in_dataset' END AS reason
            FROM fate
            """
        )

    def _name_federated_lists(self) -> None:
        """Category ids of `not_exhaustive` and `negative` become names; unknown ones go."""
        for column in ("not_exhaustive", "negative"):
            self._spool.run(
                f"""
                UPDATE planned SET {column} = coalesce((
                    SELECT list(DISTINCT n.name ORDER BY n.name) FROM names n
                    WHERE list_contains(planned.{column}, n.id)), [])
                """  # noqa: S608
            )

    def _judge_annotations(self) -> None:
        self._spool.run(
            """
            CREATE TABLE annotation_fate AS
            WITH numbered AS (
                SELECT entry, source_image_id, source_annotation_id, source_category_id, defect,
                       segmentation IS NOT NULL AS has_segmentation,
                       CASE WHEN source_annotation_id IS NULL THEN 1 ELSE row_number() OVER (
                           PARTITION BY source_annotation_id, defect IS NULL ORDER BY entry
                       ) END AS nth
                FROM annotations
            ), images_by_id AS (
                SELECT source_image_id, any_value(failure) AS image_failure,
                       bool_or(is_taken_down) AS is_taken_down,
                       any_value(canon) AS canon, any_value(height) AS height,
                       any_value(width) AS width
                FROM fate WHERE nth = 1 GROUP BY source_image_id
            )
            SELECT a.entry, a.source_image_id, a.source_annotation_id,
                   coalesce(n.name, '') AS category, i.canon, i.height, i.width,
                   a.has_segmentation,
                   CASE WHEN a.defect IS NOT NULL THEN 'failed'
                        WHEN n.name IS NULL OR i.source_image_id IS NULL OR a.nth > 1
                            THEN 'dropped'
                        WHEN i.image_failure IS NOT NULL THEN 'failed'
                        WHEN i.is_taken_down THEN 'dropped'
                        ELSE 'planned' END AS outcome,
                   CASE WHEN a.defect IS NOT NULL THEN a.defect
                        WHEN i.source_image_id IS NULL THEN 'unknown_image_id'
                        WHEN n.name IS NULL THEN 'unknown_category_id'
                        WHEN a.nth > 1 THEN 'duplicate_annotation_id'
                        WHEN i.image_failure IS NOT NULL THEN 'image_' || i.image_failure
                        WHEN i.is_taken_down THEN 'image_taken_down'
                        END AS reason,
                   CASE WHEN n.name IS NULL THEN 'category id ' || a.source_category_id
                        END AS detail
            FROM numbered a
            LEFT JOIN names n ON n.id = a.source_category_id
            LEFT JOIN images_by_id i USING (source_image_id);
            CREATE TABLE planned_annotations AS
            SELECT p.position, a.entry, a.source_image_id, a.source_annotation_id, f.height,
                   f.width, f.category, a.box_xyxy, a.is_crowd, a.is_group_of, a.flags, a.score,
                   a.segmentation
            FROM annotations a JOIN annotation_fate f USING (entry)
            JOIN planned p ON p.entry = f.canon
            WHERE f.outcome = 'planned' ORDER BY p.position, a.entry
            """
        )

    def _count_images(self, counter: LedgerCounter) -> None:
        counter.add_inputs(schemas.IMAGES, count=self.num_images())
        for outcome, reason, count in self._spool.rows(
            "SELECT outcome, reason, count(*) FROM image_outcome GROUP BY ALL ORDER BY ALL"
        ):
            if outcome == "failed":
                counter.add_failed(schemas.IMAGES, reason=reason, count=count)
            elif outcome == "dropped":
                counter.add_dropped(schemas.IMAGES, reason=reason, count=count)


def _full_shards(sizes: Sequence[int], config: IngestConfig) -> list[int]:
    """The shard number of each image: a shard is full by images or by bytes."""
    numbers: list[int] = []
    shard, num_images, num_bytes = 0, 0, 0
    for size in sizes:
        is_full = num_images == config.shard_images or num_bytes + size > config.shard_bytes
        if is_full and num_images:
            shard, num_images, num_bytes = shard + 1, 0, 0
        numbers.append(shard)
        num_images, num_bytes = num_images + 1, num_bytes + size
    return numbers


def known_images(dataset: Dataset) -> pa.Table:
    """image_id and shard of every image of a dataset."""
    ids: list[str] = []
    shards: list[str] = []
    for cell in dataset.manifest.of_layer(schemas.IMAGE_INDEX):
        found = dataset.table(cell.shard, schemas.IMAGE_INDEX, columns=["image_id"])
        ids += found["image_id"].to_pylist()
        shards += [cell.shard] * found.num_rows
    return pa.table(
        {"image_id": pa.array(ids, pa.string()), "shard": pa.array(shards, pa.string())}
    )


def _name_table(names: Mapping[str, str]) -> pa.Table:
    return pa.table(
        {"id": pa.array(list(names), pa.string()), "name": pa.array(names.values(), pa.string())}
    )
