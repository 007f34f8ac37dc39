"""Calibrators: the same bytes for the same content, and nothing damaged or of others is used."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save as save_tensors

from engine.confidence.calibrator import Calibrator, Curve, Head
from engine.confidence.choice import Choice
from engine.confidence.outputs import Floats, Output
from manifests.errors import InputError, MaskmillError, ObjectDamagedError
from manifests.store import Store

KEY = "maskmill.calibrator"
IDENTITY = {
    "name": "a", "version": 3, "weights_sha256": "12ab" * 16, "config": {"multimask": True},
}  # fmt: skip


def floats(*values: Any) -> Floats:
    return np.array(values, np.float32)


def head(*, features: int = 3, nets: int = 2, hidden: int = 4, seed: int = 0) -> Head:
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> Floats:
        return rng.normal(size=shape).astype(np.float32)

    return Head(
        teacher=IDENTITY, features=tuple(f"f{number}" for number in range(features)),
        mean=draw(features), scale=np.abs(draw(features)) + 0.1,
        weights_in=draw(nets, features, hidden), bias_in=draw(nets, hidden),
        weights_out=draw(nets, hidden), bias_out=draw(nets),
        curve=Curve(x=floats(-1, 0, 2), y=floats(0.1, 0.4, 0.9)),
        categories={"shoe": 0.05, "bag": -0.1},
    )  # fmt: skip


def calibrator(**fields: Any) -> Calibrator:
    made: dict[str, Any] = {
        "heads": {"a": head(), "b": head(features=5, seed=1)},
        "choice": Choice(
            base=Output.of("a"), margin=0.05, bases={"hat": Output.of("b.1")}
        ),
        "chosen": Curve(x=floats(0, 1), y=floats(0.1, 0.95)), "certify_share": 0.5,
        "figures": {"auroc": 0.9, "by_source": {}}, "gold": "34cd" * 16, "origin": "of a test",
    }  # fmt: skip
    return Calibrator(**{**made, **fields})


def back(data: bytes) -> Calibrator:
    return Calibrator.from_bytes(data, what="object 123")


# -- what it says --------------------------------------------------------------------------------


def test_a_head_is_what_loops_over_its_networks_say() -> None:
    made = head()
    values = np.random.default_rng(3).normal(size=(40, 3)).astype(np.float32)
    values[4, 1], values[5] = np.nan, np.nan
    values[6] = 1e6
    expected = []
    for row in values:
        inputs = np.nan_to_num(np.clip((row - made.mean) / made.scale, -3, 3), nan=0.0)
        answers = [
            np.maximum(inputs @ made.weights_in[k] + made.bias_in[k], 0) @ made.weights_out[k]
            + made.bias_out[k]
            for k in range(2)
        ]
        expected.append(np.mean(answers))
    found = made.raw(values)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found[:7], made.raw(values[:7]))  # a row at a time or many
    assert len(made.raw(values[:0])) == 0


def test_missing_values_leave_the_callers_features_alone() -> None:
    values = floats([np.nan, 1, 2])
    before = values.copy()
    head().raw(values)
    np.testing.assert_array_equal(values, before)


def test_expected_iou_is_the_curve_and_the_shift_within_0_and_1() -> None:
    made, values = head(), np.zeros((3, 3), np.float32)
    middle = made.curve(made.raw(values))
    found = made.expected_iou(values, floats(0.0, 5.0, -5.0))
    assert found.tolist() == [middle[0], 1.0, 0.0]


def test_a_curve_is_linear_between_its_points_and_flat_beyond_them() -> None:
    curve = Curve(x=floats(0, 1), y=floats(0.2, 0.8))
    assert curve(floats(-5, 0, 0.5, 1, 7)).tolist() == pytest.approx([0.2, 0.2, 0.5, 0.8, 0.8])
    assert Curve(x=floats(3), y=floats(0.4))(floats(0, 9)).tolist() == pytest.approx([0.4, 0.4])


# -- bytes ---------------------------------------------------------------------------------------


def test_the_round_trip_keeps_everything_and_its_bytes() -> None:
    made = calibrator()
    data = made.to_bytes()
    found = back(data)
    assert found.to_bytes() == data
    values = np.random.default_rng(5).normal(size=(20, 3)).astype(np.float32)
    np.testing.assert_array_equal(found.heads["a"].raw(values), made.heads["a"].raw(values))
    for name in ("choice", "certify_share", "figures", "gold", "origin"):
        assert getattr(found, name) == getattr(made, name)
    assert dict(found.heads["b"].categories) == {"bag": -0.1, "shoe": 0.05}
    assert found.heads["b"].teacher == IDENTITY
    assert found.heads["b"].features == made.heads["b"].features
    assert not found.is_prior
    assert back(calibrator(gold=None).to_bytes()).is_prior


def test_bytes_are_a_function_of_the_content_alone() -> None:
    made = calibrator()
    swapped = dict(reversed(list(made.heads.items())))
    turned = replace(head(), weights_in=np.asfortranarray(head().weights_in))
    other_order = replace(
        made, heads={**swapped, "a": replace(turned, categories={"bag": -0.1, "shoe": 0.05})}
    )
    assert other_order.to_bytes() == made.to_bytes()
    assert replace(made, origin="another").to_bytes() != made.to_bytes()
    assert replace(made, certify_share=0.4).to_bytes() != made.to_bytes()


def test_from_a_store() -> None:
    store = Store("memory://calibrators")
    object_id = store.put_bytes(calibrator().to_bytes()).object_id
    assert Calibrator.load(store, object_id).origin == "of a test"
    other = store.put_bytes(b"masks").object_id
    with pytest.raises(ObjectDamagedError, match=f"object {other[:12]} is not a calibrator"):
        Calibrator.load(store, other)


# -- damage --------------------------------------------------------------------------------------


def changed(**about: Any) -> bytes:
    """The bytes of a calibrator, but for fields of its header; None takes one away."""
    data = calibrator().to_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    fields = json.loads(header["__metadata__"][KEY]) | about
    kept = {name: value for name, value in fields.items() if value is not None}
    header["__metadata__"] = {KEY: json.dumps(kept)}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def with_tensors(**tensors: Any) -> bytes:
    """The bytes of a calibrator with other arrays; None takes one away, `__` stands for `/`."""
    data = calibrator().to_bytes()
    from safetensors.numpy import load

    size = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + size])["__metadata__"]
    arrays = load(data)
    for name, value in tensors.items():
        del arrays[name.replace("__", "/")]
        if value is not None:
            arrays[name.replace("__", "/")] = value
    return bytes(save_tensors(arrays, metadata))


WRONG = {
    "nothing": b"",
    "a few bytes": b"\0\0\0",
    "other text": b"not a calibrator at all, but long enough for a header",
    "a header longer than the file": (2**60).to_bytes(8, "little") + b"{}",
    "safetensors of something else": bytes(save_tensors({"x": np.zeros(3, np.float32)})),
    "other metadata": bytes(save_tensors({"x": np.zeros(3, np.float32)}, {"format": "pt"})),
    "no format": changed(format=None),
    "no heads": changed(heads=None),
    "heads that are a list": changed(heads=[1]),
    "a head without features": changed(heads={"a": {"teacher": {}, "categories": {}}}),
    "a head without arrays": changed(
        heads={"z": {"teacher": {}, "features": ["f"], "categories": {}}}
    ),
    "a choice that is none": changed(choice={"base": 3, "margin": 0.1}),
    "a margin that is no number": changed(choice={"base": "a", "margin": "much"}),
    "no mean": with_tensors(a__mean=None),
    "another dtype": with_tensors(a__mean=np.zeros(3)),
    "too few means": with_tensors(a__mean=np.zeros(2, np.float32)),
    "a scale of 0": with_tensors(a__scale=np.zeros(3, np.float32)),
    "a scale below 0": with_tensors(a__scale=-np.ones(3, np.float32)),
    "not a number": with_tensors(b__bias_in=np.full((2, 4), np.nan, np.float32)),
    "infinity": with_tensors(b__bias_out=np.full(2, np.inf, np.float32)),
    "weights of two dimensions": with_tensors(a__weights_in=np.zeros((3, 4), np.float32)),
    "weights of other features": with_tensors(a__weights_in=np.zeros((2, 5, 4), np.float32)),
    "hidden units that differ": with_tensors(a__weights_out=np.zeros((2, 5), np.float32)),
    "no networks": with_tensors(
        a__weights_in=np.zeros((0, 3, 4), np.float32), a__bias_in=np.zeros((0, 4), np.float32),
        a__weights_out=np.zeros((0, 4), np.float32), a__bias_out=np.zeros(0, np.float32),
    ),
    "a curve without points": with_tensors(
        **{"chosen.x": np.zeros(0, np.float32), "chosen.y": np.zeros(0, np.float32)}
    ),
    "a curve of two lengths": with_tensors(**{"chosen.x": floats(0, 1, 2)}),
    "a curve that goes back": with_tensors(**{"chosen.x": floats(1, 0)}),
    "a curve that falls": with_tensors(**{"chosen.y": floats(0.9, 0.1)}),
    "a curve of two dimensions": with_tensors(
        **{"chosen.x": floats([0, 1]), "chosen.y": floats([0, 1])}
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", WRONG)
def test_every_kind_of_damage_is_refused(damage: str) -> None:
    with pytest.raises(ObjectDamagedError, match=r"object 123 is not a calibrator: ."):
        back(WRONG[damage])


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_cut_or_changed_bytes_raise_errors_of_maskmill_alone(data: st.DataObject) -> None:
    whole = calibrator().to_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    if cut < len(whole):
        with pytest.raises(ObjectDamagedError):
            back(whole[:cut])
    place = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[place] ^= data.draw(st.integers(1, 255))
    try:
        found = back(bytes(flipped))
    except MaskmillError:
        return
    assert found.to_bytes() != whole  # what can be read says something else


def test_a_newer_format_says_what_to_do() -> None:
    with pytest.raises(InputError, match=r"object 123 has format 2, expected 1; .*calibrate"):
        back(changed(format=2))


# -- whose masks ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("weights_sha256", "ffff" * 16, r"weights 12ab12ab12ab of teacher 'a'.*with ffffffffffff"),
        ("weights_sha256", None, r"weights 12ab12ab12ab of teacher 'a'.*drawn with None"),
        ("version", 4, r"version 3 of teacher 'a'.*with 4"),
        ("config", {"multimask": False}, r"config .*True.*'a'.*False"),
    ],
)
def test_masks_of_another_teacher_are_refused(key: str, value: object, message: str) -> None:
    made = calibrator(heads={"a": head()})
    made.check_teachers({"a": IDENTITY})
    made.check_teachers({"a": {**IDENTITY, "extra": 1}})
    made.check_teachers({"b": {"weights_sha256": "0"}})  # not one of its teachers
    with pytest.raises(InputError, match=message) as caught:
        made.check_teachers({"b": IDENTITY, "a": {**IDENTITY, key: value}})
    assert "maskmill calibrate" in str(caught.value)
    assert "of a test" in str(caught.value)
