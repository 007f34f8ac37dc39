"""`checkout`: a commit as a plain folder of images and COCO JSON, brought up to date by the next.

    images/<file>          the stored bytes, under their source's name
    annotations.json       COCO: what the verdicts keep, a layer's masks, or boxes alone
    .maskmill-checkout/    what was written, so that the next checkout writes only what changed

name all images -> what becomes of each file -> annotations -> write it down -> remove, write
-> finished

The folder is a function of the commit and the options: it does not matter what was checked out
before. `annotations.json` says nothing about the commit, so it changes when its content does.
"""

from __future__ import annotations

import filecmp
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from manifests import layout
from manifests.byte_progress import ByteListener, Silence
from manifests.checkout_annotations import ANNOTATIONS, annotations_key, write_annotations
from manifests.checkout_files import CheckoutFolder, ShardFiles, locked
from manifests.checkout_names import CheckoutNames
from manifests.checkout_plan import CheckoutPlan, Planner
from manifests.checkout_state import STATE_FOLDER, CheckoutHeader, CheckoutState, KnownFile
from manifests.dataset import Dataset
from manifests.errors import InputError
from manifests.export_coco import IMAGES_FOLDER
from manifests.export_images import ShardImages
from manifests.export_names import NamedImage
from manifests.export_plan import ExportJob, ExportOptions, plan_ids
from manifests.kept import check_layer
from manifests.schemas import BOXES, IMAGE_INDEX, VERDICTS
from manifests.store import explained

Row = dict[str, Any]  # Any: one value of each column
_NAME_COLUMNS = ["image_id", "source", "file_name", "format", "size", "quarantine"]
_NAMED = _NAME_COLUMNS[:4]
_STEP_NS = 2 * 10**9  # the coarsest clock of a file system


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutOptions:
    """What to check out.

    Attributes:
        layer: a `masks/<teacher>` taken whole, or `boxes`; None: what the verdicts keep, and in a
            commit without any verdict the boxes alone.
        include_quarantined: also images that the ingest policy keeps away from teachers.
        images: also the image files.
        force: overwrite and remove files that somebody changed, and use a folder that is no
            checkout.
    """

    layer: str | None = None
    include_quarantined: bool = False
    images: bool = True
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutSummary:
    """What was done to a folder.

    Attributes:
        masks: `verdicts`, a layer `masks/<teacher>`, or `boxes`: no masks.
        num_skipped: boxes that are not in `annotations.json`, by reason.
        num_quarantined: images that are not in it.
        num_written, num_bytes: files that were written now, and their bytes.
        num_kept, num_removed: files that were there already; that are there no more.
        changed: files that somebody changed and that were left so.
    """

    folder: str
    commit_id: str
    ref: str
    masks: str
    num_images: int
    num_annotations: int
    num_skipped: Mapping[str, int]
    num_quarantined: int
    num_written: int
    num_kept: int
    num_removed: int
    num_bytes: int
    changed: tuple[str, ...]


def checkout(
    dataset: Dataset,
    folder: Path,
    options: CheckoutOptions = CheckoutOptions(),
    *,
    ref: str,
    listener: ByteListener | None = None,
) -> CheckoutSummary:
    """Makes a folder show a commit. Killed on the way, the next checkout goes on.

    Args:
        folder: a new or empty one, or an earlier checkout of any commit.
        ref: the name under which the commit was opened, for the record.

    Raises:
        InputError: the folder is something else, or files that somebody changed would be lost.
        RefError: some shards have no verdicts, or not the layer asked for.
        ObjectMissingError, ObjectDamagedError: the store is not whole, or images were taken down.
        StoreError: a disk is full, or refuses.
    """
    masks = _masks(dataset, options)
    check_layer(dataset, None if masks == VERDICTS else masks)
    with explained(str(folder), "file"):
        folder.mkdir(parents=True, exist_ok=True)
    state = CheckoutState(folder)
    with locked(folder):
        _check_folder(folder, state, force=options.force)
        job = _Checkout(dataset, folder, state, options, masks, ref, listener or Silence())
        return job.run()


def _masks(dataset: Dataset, options: CheckoutOptions) -> str:
    has_verdicts = bool(dataset.manifest.of_layer(VERDICTS))
    return options.layer or (VERDICTS if has_verdicts else BOXES)


def _check_folder(folder: Path, state: CheckoutState, *, force: bool) -> None:
    if state.is_there():
        return
    with explained(str(folder), "file"):
        there = sorted(path.name for path in folder.iterdir() if path.name != STATE_FOLDER)
    if layout.MARKER in there:
        raise InputError(f"{folder} is a maskmill store; check out into another folder")
    if there and not force:
        raise InputError(
            f"{folder} is not empty and no checkout: it has {there[0]!r}; choose another folder, "
            "or say --force to overwrite the files in it that have the names of the checkout's"
        )


class _Checkout:
    """One checkout under way."""

    def __init__(
        self,
        dataset: Dataset,
        folder: Path,
        state: CheckoutState,
        options: CheckoutOptions,
        masks: str,
        ref: str,
        listener: ByteListener,
    ) -> None:
        self._dataset, self._root, self._state = dataset, folder, state
        self._options, self._masks, self._ref, self._listener = options, masks, ref, listener
        self._images: dict[str, ShardImages] = {}
        self._num_quarantined = 0
        # A time that no file of this folder was given: after a kill it tells old from new.
        used = [header.mtime_ns + _STEP_NS for header in state.headers()]
        self._mtime_ns = max([time.time_ns() // _STEP_NS * _STEP_NS, *used])
        self._known = state.known()
        self._planner = Planner(folder, self._known, mtime_ns=self._mtime_ns, force=options.force)

    def run(self) -> CheckoutSummary:
        if header := self._finished():
            return self._summary(header, CheckoutPlan(num_kept=len(self._known)))
        writes = [files for files in self._plan_images() if files.rows]
        key = annotations_key(
            self._dataset,
            self._masks,
            include_quarantined=self._options.include_quarantined,
        )
        header = self._header_of(key)
        # Without a word about it (two kills in a row), it is made again, to be counted.
        is_made = self._planner.has_to_be_made(ANNOTATIONS, key if header else "")
        plan = self._planner.finish()
        image_bytes = plan.num_bytes
        new = self._state.new_folder()
        folder = CheckoutFolder(self._root, new, mtime_ns=self._mtime_ns)
        if header is None or is_made:
            header = self._make_annotations(new / ANNOTATIONS, key)
            is_made = self._add_annotations(folder, new / ANNOTATIONS, plan, key)
        self._state.begin(plan.before.table(), header, plan.after.table())
        folder.remove(plan.removed)
        self._listener.begin("writing images", total=image_bytes, in_bytes=True)
        folder.write_images(self._dataset, writes, self._listener)
        if is_made:
            folder.place(new / ANNOTATIONS, ANNOTATIONS)
        self._state.finish()
        return self._summary(header, plan)

    def _finished(self) -> CheckoutHeader | None:
        """The last checkout, if it was just this one and every file is as it was written."""
        headers = self._state.headers()
        if len(headers) != 1:
            return None
        (last,) = headers
        options = self._options.include_quarantined, self._options.images
        same = (last.commit, last.masks, last.include_quarantined, last.with_images) == (
            self._dataset.commit_id, self._masks, *options
        )  # fmt: skip
        is_there = same and self._known.are_as_written(self._root)
        return msgspec.structs.replace(last, ref=self._ref) if is_there else None

    def _plan_images(self) -> Iterator[ShardFiles]:
        """Names every image, so that options change no name, and decides on those wanted."""
        names, first = CheckoutNames(), 1
        for shard in self._dataset.manifest.shards():
            index = self._dataset.table(shard, IMAGE_INDEX, columns=_NAME_COLUMNS).to_pylist()
            claimed = [names.claim(NamedImage(**{name: row[name] for name in _NAMED}))
                       for row in index]  # fmt: skip
            shown = [
                row
                for row, image in enumerate(index)
                if self._options.include_quarantined or not image["quarantine"]
            ]
            shown_names = tuple(claimed[row] for row in shown)
            self._images[shard] = ShardImages(shard=shard, first=first, names=shown_names)
            first += len(shown)
            self._num_quarantined += len(index) - len(shown)
            if self._options.images:
                yield self._files_to_write(shard, index, shown, shown_names)

    def _files_to_write(
        self, shard: str, index: Sequence[Row], rows: Sequence[int], names: Sequence[str]
    ) -> ShardFiles:
        files = [(row, f"{IMAGES_FOLDER}/{name}") for row, name in zip(rows, names, strict=True)]
        wanted = [
            (row, name)
            for row, name in files
            if self._planner.want(name, index[row]["image_id"], index[row]["size"])
        ]
        return ShardFiles(
            shard=shard, rows=[row for row, _ in wanted], names=[name for _, name in wanted]
        )

    def _make_annotations(self, path: Path, key: str) -> CheckoutHeader:
        """Writes the JSON beside its place; returns what there is to say about it."""
        layer = None if self._masks == VERDICTS else self._masks
        job = ExportJob(
            dataset=self._dataset,
            options=ExportOptions(
                layer=layer, include_quarantined=self._options.include_quarantined
            ),
            ids=plan_ids(self._dataset),
            images=self._images,
            ref=self._ref,
        )
        try:
            written = write_annotations(job, path, masks=self._masks, listener=self._listener)
        except OSError:  # and nothing else: other errors are not the disk's
            with explained(str(self._root), "file"):
                raise
        return self._header(
            num_annotations=written.num_annotations,
            num_skipped=dict(sorted(written.num_skipped.items())),
            annotations=key,
        )

    def _add_annotations(
        self, folder: CheckoutFolder, made: Path, plan: CheckoutPlan, key: str
    ) -> bool:
        """Whether the new JSON is to take the place of what is there; not if that is the same."""
        final = self._root / ANNOTATIONS
        with explained(str(self._root), "file"):
            is_same = final.is_file() and filecmp.cmp(made, final, shallow=False)
            if not is_same:
                folder.stamp(made)
            status = (final if is_same else made).stat()
        file = KnownFile(content=key, size=status.st_size, mtime_ns=status.st_mtime_ns)
        plan.after.add(ANNOTATIONS, file)
        if is_same:
            plan.num_kept += 1
        else:
            plan.num_written += 1
            plan.num_bytes += file.size
        return not is_same

    def _header_of(self, key: str) -> CheckoutHeader | None:
        """What is known about annotations that were made before, under this checkout's name."""
        found = next((one for one in self._state.headers() if one.annotations == key), None)
        if found is None:
            return None
        return self._header(
            num_annotations=found.num_annotations, num_skipped=found.num_skipped, annotations=key
        )

    def _header(
        self, *, num_annotations: int, num_skipped: dict[str, int], annotations: str
    ) -> CheckoutHeader:
        return CheckoutHeader(
            store=self._dataset.store.url,
            commit=self._dataset.commit_id,
            ref=self._ref,
            masks=self._masks,
            include_quarantined=self._options.include_quarantined,
            with_images=self._options.images,
            num_images=sum(len(shard.names) for shard in self._images.values()),
            num_annotations=num_annotations,
            num_skipped=num_skipped,
            num_quarantined=self._num_quarantined,
            annotations=annotations,
            mtime_ns=self._mtime_ns,
        )

    def _summary(self, header: CheckoutHeader, plan: CheckoutPlan) -> CheckoutSummary:
        return CheckoutSummary(
            folder=str(self._root),
            commit_id=header.commit,
            ref=header.ref,
            masks=header.masks,
            num_images=header.num_images,
            num_annotations=header.num_annotations,
            num_skipped=header.num_skipped,
            num_quarantined=header.num_quarantined,
            num_written=plan.num_written,
            num_kept=plan.num_kept,
            num_removed=len(plan.removed),
            num_bytes=plan.num_bytes,
            changed=tuple(plan.changed),
        )
