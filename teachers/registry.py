"""The teachers by name: what each is, needs and can be set to, and how one is built.

Adding a teacher is one new file and one line here. Importing this file imports no torch, cv2 or
onnxruntime; `build` does.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from manifests.errors import InputError, WeightsError
from teachers import weights
from teachers.protocol import Teacher, TeacherIdentity
from teachers.settings import GrabCutSettings, SamSettings, Settings, U2NetpSettings

Config = Mapping[str, str | int | float | bool]
Builder = Callable[[TeacherIdentity, Settings, Path | None], Teacher]
FALLBACK = "grabcut"
"""The best teacher that needs no weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherSpec:
    """One line of the registry.

    Attributes:
        description: one line for `maskmill teachers`.
        builder: `module:function` of a `Builder`.
        version: raised by hand when the teacher's masks or signals change.
        weights: name in `teachers.weights.TABLE`, or None.
        settings: what can be set, with the defaults.
        packages: distributions that shape its masks, beside those that shape every mask layer.
    """

    description: str
    builder: str
    version: int
    weights: str | None = None
    settings: type[Settings] = Settings
    packages: tuple[str, ...] = ()


def _sam(description: str, weights_name: str) -> TeacherSpec:
    return TeacherSpec(
        description=description,
        builder="teachers.sam:build",
        version=2,
        weights=weights_name,
        settings=SamSettings,
        packages=("torch", "segment-anything"),
    )


REGISTRY: Mapping[str, TeacherSpec] = {
    "box": TeacherSpec(
        description="the filled box, the floor for every other",
        builder="teachers.box:build",
        version=1,
    ),
    "grabcut": TeacherSpec(
        description="GrabCut (OpenCV): the best without weights",
        builder="teachers.grabcut:build",
        version=1,
        settings=GrabCutSettings,
    ),
    "u2netp": TeacherSpec(
        description="U-2-Netp saliency (onnxruntime): small and weak, errs unlike the others",
        builder="teachers.u2netp:build",
        version=1,
        weights="u2netp",
        settings=U2NetpSettings,
        packages=("onnxruntime",),
    ),
    "sam_vit_h": _sam("Segment Anything, ViT-H: best masks, needs a GPU", "sam_vit_h"),
    "sam_vit_l": _sam("Segment Anything, ViT-L", "sam_vit_l"),
    "sam_vit_b": _sam("Segment Anything, ViT-B", "sam_vit_b"),
    "sam_vit_t": _sam("MobileSAM (TinyViT encoder): good masks without a GPU", "mobile_sam"),
}
ALIASES: Mapping[str, str] = {"mobile_sam": "sam_vit_t"}


def spec(name: str) -> TeacherSpec:
    """The registry's line for a name or alias.

    Raises:
        InputError: no such teacher; names the nearest.
    """
    return REGISTRY[canonical(name)]


def canonical(name: str) -> str:
    """The registry name behind a name or alias.

    Raises:
        InputError: no such teacher; names the nearest.
    """
    found = ALIASES.get(name, name)
    if found in REGISTRY:
        return found
    known = [*REGISTRY, *ALIASES]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise InputError(f"no teacher is called '{name}'; {hint}known: {', '.join(known)}")


def identity(name: str, config: Config | None = None) -> TeacherIdentity:
    """What `build` with the same arguments would report, without weights in memory or on disk.

    Raises:
        InputError: no such teacher, or a setting is unknown or has a wrong value.
    """
    chosen = spec(name)
    return TeacherIdentity(
        name=canonical(name),
        version=chosen.version,
        weights_sha256=weights.TABLE[chosen.weights].sha256 if chosen.weights else None,
        config=_settings(name, config).changing_output(),
    )


def build(name: str, config: Config | None = None) -> Teacher:
    """A ready teacher; downloads its weights if they are not on this machine.

    Raises:
        InputError: no such teacher, or a setting is unknown or has a wrong value.
        WeightsError: its weights cannot be had.
    """
    chosen, settings = spec(name), _settings(name, config)
    path = weights.fetch(chosen.weights) if chosen.weights else None
    module, function = chosen.builder.split(":")
    builder = cast(Builder, getattr(importlib.import_module(module), function))
    return builder(identity(name, config), settings, path)


def resolve_available(
    name: str, *, fetch: Callable[[str], Path] = weights.fetch
) -> tuple[str, str | None]:
    """The teacher to use: the one asked for, or the fallback when its weights cannot be had.

    Returns:
        (registry name, warning to show loudly or None).

    Raises:
        InputError: no such teacher.
    """
    wanted = canonical(name)
    needed = REGISTRY[wanted].weights
    if needed is None:
        return wanted, None
    try:
        fetch(needed)
    except WeightsError as error:
        warning = f"{wanted} is not available, using {FALLBACK} (much weaker masks): {error}"
        return FALLBACK, warning
    return wanted, None


def _settings(name: str, config: Config | None) -> Settings:
    kind = spec(name).settings
    known = {entry.name: entry for entry in dataclasses.fields(kind)}
    for key, value in (config or {}).items():
        if key not in known:
            listed = ", ".join(known) or "none"
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise InputError(f"teacher '{name}' has no setting '{key}'; {hint}known: {listed}")
        _require_type(f"setting '{key}' of teacher '{name}'", value, known[key].default)
    return kind(**(config or {}))


def _require_type(what: str, value: object, default: object) -> None:
    wanted: tuple[type, ...] = (type(default),)
    if wanted == (float,):
        wanted = (float, int)
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        raise InputError(f"{what}: expected {wanted[0].__name__}, got {value!r}")
