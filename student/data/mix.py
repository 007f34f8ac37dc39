"""The commits of a mix: found once, and looked through before any work is begun."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from manifests.dataset import Dataset
from manifests.errors import InputError, RefError
from manifests.schemas import BOXES, MASKS_HUMAN, VERDICTS, masks_layer
from manifests.store import Store
from student.config import SourceConfig
from student.data.patience import Patience


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedDataset:
    """One dataset of the mix."""

    dataset: Dataset
    source: SourceConfig


def open_mix(
    store: Store, ref: str, sources: Sequence[SourceConfig], *, patience: Patience
) -> tuple[MixedDataset, ...]:
    """Resolves every ref to the commit that it means now.

    Args:
        store, ref: of sources that do not say.
        sources: empty: one that says nothing.

    Raises:
        RefError: there is no such ref.
        StoreError: there is no such store, or it cannot be read.
    """

    def opened(place: int, source: SourceConfig) -> MixedDataset:
        where = Store(source.store) if source.store else store
        name = source.ref or ref
        try:
            dataset = patience.ask(lambda: Dataset.open(where, name), what=f"opening '{name}'")
        except RefError as error:
            raise RefError(
                f"data.mix, dataset {place + 1}: {error}" if sources else str(error)
            ) from error
        return MixedDataset(dataset=dataset, source=source)

    return tuple(opened(place, one) for place, one in enumerate(sources or [SourceConfig()]))


def categories_of(datasets: Sequence[Dataset]) -> tuple[str, ...]:
    """The names of all commits' categories, each once, in their order.

    Raises:
        InputError: a name is empty, which no text encoder can make anything of.
    """
    for dataset in datasets:
        blank = [one for one in dataset.commit.categories if not one.name.strip(" _\t\n")]
        if blank:
            raise InputError(
                f"commit {dataset.commit_id[:12]} has a category without a name; name it in the "
                "source and ingest it again"
            )
    return tuple(dict.fromkeys(c.name for one in datasets for c in one.commit.categories))


def check_masks(dataset: Dataset, masks: str) -> None:
    """Looks in the manifest whether every shard with boxes has what masks are chosen by.

    Raises:
        InputError: none has boxes, `masks` is no choice, or shards lack it; says what to run.
    """
    here = f"commit {dataset.commit_id[:12]}"
    cells = [cell for cell in dataset.manifest.of_layer(BOXES) if cell.num_rows]
    if not cells:
        raise InputError(f"{here} has no boxes to train on; ingest annotations first")
    layers = [name for name in dataset.manifest.layers() if name.startswith(masks_layer(""))]
    if masks != VERDICTS and masks not in layers:
        choices = ", ".join([VERDICTS, *layers])
        raise InputError(
            f"data.masks: {here} has no layer '{masks}'; expected one of: {choices}; a teacher's "
            "layer is made by 'maskmill label'"
        )
    lacking = [cell.shard for cell in cells if dataset.manifest.get(cell.shard, masks) is None]
    if lacking and masks != MASKS_HUMAN:  # many a source has no human masks
        raise InputError(
            f"{here} has no '{masks}' for {len(lacking)} of {len(cells)} shards, the first is "
            f"{lacking[0][:12]}; {_advice(masks, layers)}"
        )


def _advice(masks: str, layers: Sequence[str]) -> str:
    if masks != VERDICTS:
        return f"run 'maskmill label' with the teacher '{masks.removeprefix(masks_layer(''))}'"
    if not layers:
        return "run 'maskmill label', then 'maskmill filter'"
    return f"run 'maskmill filter', or train on a layer as it is: data.masks={layers[0]}"
