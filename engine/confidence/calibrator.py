"""The calibrator: from the features of an output to the IoU that it can be expected to have.

One head a teacher: a few small neural networks over standardised features, averaged, then a line
(slope and intercept, Cox 1958), then a shift for its category. What is taken because it promises
most promises too much: a last line is for the output that is taken.

Legend: N rows, F features, K networks, H hidden units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save as save_tensors

from engine.confidence.choice import Choice
from engine.confidence.outputs import Floats, Output
from manifests.digest import canonical_json
from manifests.errors import InputError, ObjectDamagedError
from manifests.store import Store

FORMAT = 1
_KEY = "maskmill.calibrator"
_MOST_DEVIATIONS = 3.0
"""Features further from their mean are taken as this far: a calibrator must not extrapolate."""
_ROWS_AT_ONCE = 2**12
"""A block of hidden units then stays in a core's own cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A monotone map, linear between its points and constant beyond them.

    Attributes:
        x, y: [P] float32, not falling; P is at least 1.
    """

    x: Floats
    y: Floats

    def __call__(self, values: Floats) -> Floats:
        """[N] to [N]."""
        return np.interp(values, self.x, self.y).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What turns one teacher's features into expected IoU.

    Attributes:
        teacher: the identity that it was fitted for: name, version, weights_sha256, config.
        features: [F] names, see `engine.confidence.features`.
        mean, scale: [F] by which features are standardised.
        weights_in, bias_in: [K, F, H] and [K, H] of the hidden layers (ReLU).
        weights_out, bias_out: [K, H] and [K].
        curve: from the networks' mean to expected IoU.
        categories: name -> what is added for it.
    """

    teacher: Mapping[str, Any]  # Any: JSON
    features: tuple[str, ...]
    mean: Floats
    scale: Floats
    weights_in: Floats
    bias_in: Floats
    weights_out: Floats
    bias_out: Floats
    curve: Curve
    categories: Mapping[str, float] = field(default_factory=dict)

    def raw(self, values: Floats) -> Floats:
        """[N] the networks' mean for [N, F] features; NaN counts as the feature's mean."""
        answers = np.empty(len(values), np.float32)
        num_nets, _, num_hidden = self.weights_in.shape
        first = self.weights_in.transpose(1, 0, 2).reshape(-1, num_nets * num_hidden)  # [F, K * H]
        last = (self.weights_out / num_nets).reshape(-1)  # [K * H]
        for start in range(0, len(values), _ROWS_AT_ONCE):
            rows = (values[start : start + _ROWS_AT_ONCE] - self.mean) / self.scale
            rows[np.isnan(rows)] = 0.0
            np.clip(rows, -_MOST_DEVIATIONS, _MOST_DEVIATIONS, out=rows)
            hidden = rows @ first
            hidden += self.bias_in.reshape(-1)
            np.maximum(hidden, 0, out=hidden)
            answers[start : start + len(rows)] = hidden @ last
        answers += self.bias_out.mean()
        return answers

    def expected_iou(self, values: Floats, shifts: Floats) -> Floats:
        """[N] in [0, 1]; `shifts` is [N] what is added for each row's category."""
        expected: Floats = np.clip(self.curve(self.raw(values)) + shifts, 0, 1)
        return expected


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrator:
    """Heads by teacher, and what is known of them.

    Attributes:
        heads: teacher -> its head.
        choice: which output of a box is taken.
        chosen: from that output's expected IoU to what it is, given that it was taken.
        certify_share: share of the images that was kept away from the fit, see
            `engine.confidence.roles`.
        figures: cross-validated figures, as JSON; see `engine.confidence.figures`.
        gold: object id of the gold that it was fitted on; None: a prior that comes with maskmill.
        origin: for people: what it was fitted on.
    """

    heads: Mapping[str, Head]
    choice: Choice
    chosen: Curve
    certify_share: float
    figures: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON
    gold: str | None = None
    origin: str = ""

    @property
    def is_prior(self) -> bool:
        """Whether it comes with maskmill, and knows nothing of the dataset."""
        return self.gold is None

    def check_teachers(self, identities: Mapping[str, Mapping[str, Any]]) -> None:  # Any: JSON
        """Refuses masks of others than those it was fitted for.

        Args:
            identities: teacher -> the identity that drew the masks.

        Raises:
            InputError: other weights, version or settings; names both digests.
        """
        for name, head in self.heads.items():
            drawn = identities.get(name)
            if drawn is None:
                continue
            for key in ("weights_sha256", "version", "config"):
                expected, found = head.teacher.get(key), drawn.get(key)
                if expected != found:
                    what = "weights" if key == "weights_sha256" else key
                    raise InputError(
                        f"calibrator ({self.origin}): fitted for {what} {_short(expected)} of "
                        f"teacher '{name}', but the masks were drawn with {_short(found)}; run "
                        "'maskmill calibrate' on a dataset with gold for these masks"
                    )

    def to_bytes(self) -> bytes:
        """safetensors with JSON in its header; a function of the content alone."""
        tensors: dict[str, Floats] = {"chosen.x": self.chosen.x, "chosen.y": self.chosen.y}
        heads = {}
        for name, head in sorted(self.heads.items()):
            tensors |= {f"{name}/{key}": getattr(head, key) for key in _ARRAYS}
            tensors |= {f"{name}/curve.x": head.curve.x, f"{name}/curve.y": head.curve.y}
            heads[name] = {
                "teacher": dict(head.teacher),
                "features": list(head.features),
                "categories": dict(sorted(head.categories.items())),
            }
        about = {
            "format": FORMAT, "heads": heads, "certify_share": self.certify_share,
            "figures": dict(self.figures), "gold": self.gold, "origin": self.origin,
            "choice": {
                "base": self.choice.base.name, "margin": self.choice.margin,
                "bases": {name: output.name for name, output in sorted(self.choice.bases.items())},
            },
        }  # fmt: skip
        plain = {name: np.ascontiguousarray(value) for name, value in sorted(tensors.items())}
        return bytes(save_tensors(plain, {_KEY: canonical_json(about).decode()}))

    @staticmethod
    def from_bytes(data: bytes, *, what: str) -> Calibrator:
        """The other way.

        Args:
            what: which object or file it is, for messages.

        Raises:
            ObjectDamagedError: the bytes are not a calibrator.
            InputError: a newer maskmill wrote it.
        """
        try:
            about, tensors = _header(data), _tensors(data)
            if about["format"] != FORMAT:
                raise InputError(
                    f"{what} has format {about['format']}, expected {FORMAT}; use the maskmill "
                    "version that wrote it, or run 'maskmill calibrate' again"
                )
            heads = {name: _head(name, fields, tensors) for name, fields in about["heads"].items()}
            return Calibrator(
                heads=heads, choice=_choice(about["choice"]), chosen=_curve(tensors, "chosen"),
                certify_share=about["certify_share"], figures=about["figures"],
                gold=about["gold"], origin=about["origin"],
            )  # fmt: skip
        except _DAMAGES as error:
            raise ObjectDamagedError(f"{what} is not a calibrator: {error}") from error

    @staticmethod
    def load(store: Store, object_id: str) -> Calibrator:
        """From a store. Raises ObjectMissingError, ObjectDamagedError, InputError."""
        data = store.get_bytes(object_id)
        return Calibrator.from_bytes(data, what=f"object {object_id[:12]}")


_DAMAGES = (
    SafetensorError, KeyError, TypeError, ValueError, AttributeError, msgspec.MsgspecError
)  # fmt: skip
_ARRAYS = ("mean", "scale", "weights_in", "bias_in", "weights_out", "bias_out")


def _header(data: bytes) -> dict[str, Any]:  # Any: JSON
    size = int.from_bytes(data[:8], "little")
    if size > len(data) - 8:
        raise ValueError("the header is longer than the file")
    metadata = msgspec.json.decode(data[8 : 8 + size])["__metadata__"]
    found: dict[str, Any] = msgspec.json.decode(metadata[_KEY])
    return found


def _tensors(data: bytes) -> dict[str, Floats]:
    found = {}
    for name, entry in deserialize(data):  # type: ignore[no-untyped-call]  # it has no types
        if entry["dtype"] != "F32":
            raise ValueError(f"expected float32, got {entry['dtype']} for {name}")
        values = np.frombuffer(entry["data"], dtype="<f4").reshape(entry["shape"])
        if not np.isfinite(values).all():
            raise ValueError(f"{name} is not finite")
        found[name] = values
    return found


def _head(name: str, fields: Mapping[str, Any], tensors: Mapping[str, Floats]) -> Head:  # Any: JSON
    features: Sequence[str] = fields["features"]
    arrays = {key: tensors[f"{name}/{key}"] for key in _ARRAYS}
    nets, width, hidden = arrays["weights_in"].shape
    shapes = {
        "mean": (width,), "scale": (width,), "weights_in": (nets, width, hidden),
        "bias_in": (nets, hidden), "weights_out": (nets, hidden), "bias_out": (nets,),
    }  # fmt: skip
    if width != len(features) or any(arrays[key].shape != shapes[key] for key in shapes):
        raise ValueError(f"the arrays of '{name}' do not fit its {len(features)} features")
    if not nets or (arrays["scale"] <= 0).any():
        raise ValueError(f"'{name}' has no networks, or a scale that is not above 0")
    return Head(
        teacher=fields["teacher"], features=tuple(features), curve=_curve(tensors, f"{name}/curve"),
        categories=fields["categories"], **arrays,
    )  # fmt: skip


def _curve(tensors: Mapping[str, Floats], name: str) -> Curve:
    x, y = tensors[f"{name}.x"], tensors[f"{name}.y"]
    is_falling = any((np.diff(values) < 0).any() for values in (x, y))
    if x.shape != y.shape or x.ndim != 1 or not len(x) or is_falling:
        raise ValueError(f"'{name}' is no curve")
    return Curve(x=x, y=y)


def _choice(fields: Mapping[str, Any]) -> Choice:  # Any: JSON
    bases = {name: Output.of(output) for name, output in fields.get("bases", {}).items()}
    return Choice(base=Output.of(fields["base"]), margin=float(fields["margin"]), bases=bases)


def _short(value: object) -> str:
    return value[:12] if isinstance(value, str) else str(value)
