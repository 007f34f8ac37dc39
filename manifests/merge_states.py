"""What a dataset holds after two sides changed it: shard by shard, cell by cell.

Cells that one side changed are taken. A shard that both gave more boxes is united; a picture that
both ingested stays in our shard with the boxes of both; images that either took down are gone;
computed layers (verdicts) whose inputs moved are taken out, to be made again by their operation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from manifests import schemas
from manifests.cells import read_cell
from manifests.commit import Category
from manifests.dataset import Dataset
from manifests.ledger import LedgerCounter
from manifests.manifest import Cell, Manifest
from manifests.removed import Removals
from manifests.shard_edit import without_images
from manifests.shard_merge import Combined, combine, graft
from manifests.statistics import rows_by_category
from manifests.store import Store
from manifests.takedown_replay import replaced_shard, replay
from manifests.three_way import (
    Conflict,
    Layers,
    Settlement,
    merge_categories,
    merge_layers,
    shard_layers,
)

DUPLICATE_IMAGE, DUPLICATE_BOX, STALE = "duplicate_image", "duplicate_box", "inputs_changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What a commit says of a dataset's contents."""

    manifest: Manifest
    categories: tuple[Category, ...] = ()
    removals: Removals = Removals()

    @staticmethod
    def of(dataset: Dataset) -> State:
        """A commit's state."""
        removals = Removals.load(dataset.store, dataset.commit)
        return State(
            manifest=dataset.manifest, categories=dataset.commit.categories, removals=removals
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedState:
    """The outcome of a merge.

    Attributes:
        state: what the dataset holds now; our side in every conflict.
        conflicts: cells that both sides changed and nobody settled.
        stale: computed cells that were taken out, since what they were computed from changed.
        num_duplicates: pictures that both sides had in new shards of their own.
        counter: the ledger of the merge: every image and box of either side.
    """

    state: State
    conflicts: tuple[Conflict, ...]
    stale: tuple[Cell, ...]
    num_duplicates: int
    counter: LedgerCounter


def merge_states(
    store: Store,
    base: State,
    ours: State,
    theirs: State,
    *,
    settlement: Settlement = Settlement(),
) -> MergedState:
    """Merges what two sides did since their base.

    Args:
        store: where the cells of all three are, and where new ones go.
        base, ours, theirs: see above. Order of shards: ours, then theirs.
        settlement: whose cell is taken where both changed one.

    Raises:
        ObjectMissingError, ObjectDamagedError: a cell that must be read cannot be.
    """
    removals = Removals.merged(base.removals, ours.removals, theirs.removals)
    manifests = [ours.manifest, theirs.manifest, base.manifest]
    if removals:
        every = Removals([*base.removals.rows, *ours.removals.rows, *theirs.removals.rows])
        reverted = every.without(removals.rows)
        manifests, removals = replay(store, manifests, removals, reverted=reverted)
    merge = _Merge(store, settlement)
    manifest = merge.shards(manifests[2], manifests[0], manifests[1])
    manifest = merge.without_duplicates(manifest, manifests)
    merge.count_outcome(manifest)
    return MergedState(
        state=State(
            manifest=manifest,
            categories=merge_categories(base.categories, ours.categories, theirs.categories),
            removals=removals,
        ),
        conflicts=tuple(merge.conflicts),
        stale=tuple(merge.stale),
        num_duplicates=merge.num_duplicates,
        counter=merge.counter,
    )


@dataclass(slots=True)
class _Merge:
    """A merge under way."""

    store: Store
    settlement: Settlement
    conflicts: list[Conflict] = field(default_factory=list)
    stale: list[Cell] = field(default_factory=list)
    num_duplicates: int = 0
    counter: LedgerCounter = field(default_factory=LedgerCounter)

    def shards(self, base: Manifest, ours: Manifest, theirs: Manifest) -> Manifest:
        """Every shard of either side, merged; our order first."""
        cells: list[Cell] = []
        for shard in dict.fromkeys([*ours.shards(), *theirs.shards()]):
            sides = _Sides(*(shard_layers(side, shard) for side in (base, ours, theirs)))
            merged = self._stored(shard, sides)
            if merged:
                cells += [*merged.values(), *self._computed(shard, sides, merged).values()]
        return Manifest(cells)

    def _stored(self, shard: str, sides: _Sides) -> dict[str, Cell]:
        """The shard's layers that are not computed from others."""
        three = sides.layers(computed=False)
        if sides.both_grew():
            done = combine(self.store, shard, three, self.settlement)
            self._take(done)
            self._count_inputs(sides.ours, sides.theirs, minus=sides.base)
            for category, count in done.gone.items():
                self.counter.add_inputs(schemas.BOXES, category, count)
            return done.cells
        merged, conflicts = merge_layers(shard, *three, self.settlement)
        if sides.one_took_it_out():
            merged, conflicts = self._taken_out_once(shard, three)
        elif sides.need_realigning(merged):
            done = combine(self.store, shard, three, self.settlement)
            merged, conflicts = done.cells, done.conflicts
        self.conflicts += conflicts
        self._count_inputs(merged)
        return merged

    def _taken_out_once(
        self, shard: str, three: tuple[Layers, Layers, Layers]
    ) -> tuple[dict[str, Cell], list[Conflict]]:
        """A shard that one side has no more: gone, unless the other side changed it since."""
        base, ours, theirs = three
        changed = [
            layer
            for layer, cell in {**ours, **theirs}.items()
            if _id(base, layer) != cell.object_id
        ]
        if not changed:
            return {}, []
        sides = {self.settlement.of(layer) for layer in changed}
        if len(sides) == 1 and (side := sides.pop()):
            return dict(ours if side == "ours" else theirs), []
        conflicts = [
            Conflict(
                shard=shard, layer=layer, base=_id(base, layer),
                ours=_id(ours, layer), theirs=_id(theirs, layer),
            )
            for layer in changed
        ]  # fmt: skip
        return dict(ours), conflicts

    def _computed(self, shard: str, sides: _Sides, merged: Layers) -> dict[str, Cell]:
        """The shard's computed layers; where both sides made one, the one that is not stale."""
        three = sides.layers(computed=True)
        found, conflicts = merge_layers(shard, *three, Settlement())
        disputed = {conflict.layer: conflict for conflict in conflicts}
        computed: dict[str, Cell] = {}
        for layer in schemas.COMPUTED_LAYERS:  # verdicts may be made from confidence, and so on
            made = [side[layer] for side in three[1:] if layer in side]
            if layer not in disputed:
                made = [found[layer]] if layer in found else []
            beside = {**merged, **computed}
            fresh = [cell for cell in made if not self._dropped_if_stale(cell, sides, beside)]
            if fresh:
                is_disputed = layer in disputed
                computed[layer] = self._settled(disputed[layer], fresh) if is_disputed else fresh[0]
        return computed

    def _settled(self, conflict: Conflict, fresh: Sequence[Cell]) -> Cell:
        """The one that is fresh, or of two, ours first, the one that was settled on."""
        side = self.settlement.of(conflict.layer)
        if len(fresh) == 2 and side is None:
            self.conflicts.append(conflict)
        return fresh[-1] if side == "theirs" else fresh[0]

    def _dropped_if_stale(self, cell: Cell, sides: _Sides, merged: Layers) -> bool:
        is_stale = sides.is_stale(cell, merged)
        if is_stale:
            self._drop_stale(cell)
        return is_stale

    def _drop_stale(self, cell: Cell) -> None:
        self.stale.append(cell)
        self.counter.add_inputs(cell.layer, count=cell.num_rows)
        self.counter.add_dropped(cell.layer, reason=STALE, count=cell.num_rows)

    def without_duplicates(self, merged: Manifest, sides: Sequence[Manifest]) -> Manifest:
        """Pictures in a shard of each side's own stay in ours, with the boxes of both.

        A shard of the base that one side took out and the other's change kept counts as new.
        """
        mine = set(sides[0].shards())
        old = mine.intersection(*(side.shards() for side in sides))
        new_mine = [shard for shard in merged.shards() if shard in mine - old]
        new_theirs = [shard for shard in merged.shards() if shard not in mine]
        if not new_mine or not new_theirs:
            return merged
        home = {image_id: shard for shard in new_mine for image_id in self._ids(merged, shard)}
        for shard in new_theirs:
            twins = [image_id for image_id in self._ids(merged, shard) if image_id in home]
            if twins:
                merged = self._moved(merged, shard, twins, home)
        return merged

    def _moved(
        self, merged: Manifest, shard: str, twins: list[str], home: Mapping[str, str]
    ) -> Manifest:
        source = shard_layers(merged, shard)
        for target in sorted({home[image_id] for image_id in twins}):
            ids = {image_id for image_id in twins if home[image_id] == target}
            done = graft(self.store, shard_layers(merged, target), source, ids)
            self._take(done)
            for layer in schemas.COMPUTED_LAYERS:
                if computed := merged.get(target, layer):
                    self._drop_stale(computed)
            merged = replaced_shard(merged, target, done.cells.values())
        self.num_duplicates += len(twins)
        self.counter.add_dropped(schemas.IMAGES, reason=DUPLICATE_IMAGE, count=len(twins))
        left = without_images(self.store, source, twins)
        return replaced_shard(merged, shard, left.values())

    def _ids(self, manifest: Manifest, shard: str) -> list[str]:
        cell = manifest.get(shard, schemas.IMAGE_INDEX)
        if cell is None:
            return []
        ids: list[str] = read_cell(self.store, cell, columns=["image_id"])["image_id"].to_pylist()
        return ids

    def count_outcome(self, merged: Manifest) -> None:
        """What is there in the end, for the ledger."""
        for shard in merged.shards():
            cells = shard_layers(merged, shard)
            self.counter.add_kept(schemas.IMAGES, count=_rows(cells, schemas.IMAGES))
            if schemas.BOXES in cells:
                for category, count in rows_by_category(cells[schemas.BOXES]).items():
                    self.counter.add_kept(schemas.BOXES, category, count)

    def _take(self, done: Combined) -> None:
        self.conflicts += done.conflicts
        for category, number in done.duplicates.items():
            self.counter.add_dropped(schemas.BOXES, category, reason=DUPLICATE_BOX, count=number)

    def _count_inputs(self, *sides: Layers, minus: Layers | None = None) -> None:
        """Images once, boxes of every side without those that both got from `minus`."""
        self.counter.add_inputs(schemas.IMAGES, count=_rows(sides[0], schemas.IMAGES))
        for side in sides:
            if schemas.BOXES in side:
                for category, count in rows_by_category(side[schemas.BOXES]).items():
                    self.counter.add_inputs(schemas.BOXES, category, count)
        if minus and schemas.BOXES in minus:
            for category, count in rows_by_category(minus[schemas.BOXES]).items():
                self.counter.add_inputs(schemas.BOXES, category, -count)


@dataclass(frozen=True, slots=True)
class _Sides:
    """One shard's cells in the base, in ours and in theirs."""

    base: Layers
    ours: Layers
    theirs: Layers

    @property
    def all(self) -> tuple[Layers, Layers, Layers]:
        return self.base, self.ours, self.theirs

    def layers(self, *, computed: bool) -> tuple[Layers, Layers, Layers]:
        """The cells that are, or are not, computed from others."""
        base, ours, theirs = (
            {
                name: cell
                for name, cell in side.items()
                if (name in schemas.COMPUTED_LAYERS) == computed
            }
            for side in self.all
        )
        return base, ours, theirs

    def one_took_it_out(self) -> bool:
        """Whether just one side has the shard of the base no more."""
        return bool(self.base) and bool(self.ours) != bool(self.theirs)

    def both_grew(self) -> bool:
        """Whether boxes or origins of the same images changed on both sides, differently."""
        if not self._have_images():
            return False
        return any(
            self._num_versions(layer) == (3 if self.base else 2)
            for layer in (schemas.IMAGE_INDEX, schemas.BOXES)
        )

    def need_realigning(self, merged: Layers) -> bool:
        """Whether a layer comes from, or is disputed by, a side with other boxes than the merged.

        Such a layer has the rows of its own side's boxes.
        """
        boxes = _id(merged, schemas.BOXES)
        if not self._have_images():
            return False
        for side in (self.ours, self.theirs):
            if _id(side, schemas.BOXES) != boxes:
                return any(
                    _id(side, layer) not in (_id(self.base, layer), None)
                    for layer in side
                    if layer not in (*schemas.IMAGE_LAYERS, *schemas.COMPUTED_LAYERS)
                )
        return False

    def is_stale(self, cell: Cell, merged: Layers) -> bool:
        """Whether a computed cell comes from a cell of this shard that is not its own any more."""
        known = {other.object_id for side in self.all for other in side.values()}
        return bool(set(cell.inputs) & known - {other.object_id for other in merged.values()})

    def _have_images(self) -> bool:
        return all(schemas.IMAGE_INDEX in side for side in (self.ours, self.theirs))

    def _num_versions(self, layer: str) -> int:
        return len({_id(side, layer) for side in self.all if side})


def _id(cells: Layers, layer: str) -> str | None:
    return cells[layer].object_id if layer in cells else None


def _rows(cells: Layers, layer: str) -> int:
    return cells[layer].num_rows if layer in cells else 0
