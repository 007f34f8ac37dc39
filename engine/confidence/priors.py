"""Calibrators that come with maskmill, for datasets that have no gold yet.

They were fitted by `benchmarks/fit_priors.py` on maskmill's own development photos. They know
nothing of the dataset at hand, so whatever shows their confidence says whose it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.confidence.calibrator import Calibrator
from manifests.errors import InputError

FOLDER = Path(__file__).parent / "priors"


def load_prior(
    identities: Mapping[str, Mapping[str, Any]],  # Any: JSON
    *,
    certify_share: float,
) -> Calibrator:
    """The prior for masks of these teachers; heads of teachers that are not among them are left.

    Raises:
        InputError: there is none for any of them.
    """
    prior = Calibrator.from_bytes((FOLDER / "default.safetensors").read_bytes(), what="the prior")
    usable = {name: head for name, head in prior.heads.items() if name in identities}
    if not usable:
        raise InputError(
            f"calibrate: there is no gold in this dataset, and no prior for {_all(identities)} "
            f"(there is one for {_all(prior.heads)}); import human masks with "
            "'maskmill gold import', or ingest them"
        )
    return replace(prior, heads=usable, certify_share=certify_share)


def _all(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
