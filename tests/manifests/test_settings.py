"""Settings: TOML and KEY=VALUE words become dataclasses, and every mistake is named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from manifests.errors import InputError, SourceSyntaxError
from manifests.settings import did_you_mean, from_mapping, read_toml, with_overrides


@dataclass(frozen=True, kw_only=True)
class Engine:
    power_kw: float = 50.0
    fuel: Literal["petrol", "diesel"] = "petrol"


@dataclass(frozen=True, kw_only=True)
class Car:
    name: str
    engine: Engine = Engine()
    spare: Engine | None = None
    wheels: tuple[Engine, ...] = ()


def test_nested_dataclasses_and_defaults() -> None:
    values = {"name": "x", "engine": {"power_kw": 7}, "wheels": [{}, {"fuel": "diesel"}]}
    assert from_mapping(Car, values, where="car") == Car(
        name="x", engine=Engine(power_kw=7.0), wheels=(Engine(), Engine(fuel="diesel"))
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nam": "x"}, r"^car: unknown key 'nam'; did you mean 'name'\? known: name, engine"),
        ({"name": "x", "engine": {"powerkw": 1}}, "'powerkw' in engine; did you mean 'power_kw'"),
        ({"name": "x", "wheels": [{}, {"a": 1}]}, r"unknown key 'a' in wheels\.1; known: power"),
        ({"name": "x", "spare": {"b": 1}}, r"unknown key 'b' in spare"),
        ({}, "^car: object missing required field 'name'"),
        ({"name": True}, "^car: name: expected 'str', got 'bool'"),
        (
            {"name": "x", "engine": {"power_kw": "1"}},
            "power_kw: expected 'float', got 'str'",
        ),
        ({"name": "x", "wheels": {}}, "^car: wheels: expected 'array', got 'object'"),
        ({"name": "x", "engine": {"fuel": "gas"}}, "engine.fuel: expected one of petrol, diesel"),
        ([], "^car: expected 'object', got 'array'"),
    ],
)
def test_mistakes_are_named(values: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_mapping(Car, values, where="car")


def test_words_override_toml_and_leave_it_alone() -> None:
    values = {"a": 1, "deep": {"er": {"x": 1}}, "list": [{"t": "old"}, {"t": "old"}]}
    words = ["a=2", "deep.er.x=[1, 2]", "deep.new.y=true", "list.1.t=new", "s=a=b", "empty="]
    assert with_overrides(values, words) == {
        "a": 2,
        "deep": {"er": {"x": [1, 2]}, "new": {"y": True}},
        "list": [{"t": "old"}, {"t": "new"}],
        "s": "a=b",
        "empty": "",
    }
    assert values["a"] == 1
    assert values["list"] == [{"t": "old"}, {"t": "old"}]


@pytest.mark.parametrize("word", ["a", "=1", ".a=1", "a..b=1", "a.=1"])
def test_words_that_are_no_key_and_value(word: str) -> None:
    with pytest.raises(InputError, match=r"^--option .*expected KEY=VALUE"):
        with_overrides({}, [word], option="--option")


@pytest.mark.parametrize(
    ("word", "place"),
    [
        ("a.b=1", "b"),
        ("list.2=1", "2"),
        ("list.x=1", "x"),
        ("list.-1=1", "-1"),
        ("list.0.t.u=1", "u"),
    ],
)
def test_words_that_lead_nowhere(word: str, place: str) -> None:
    with pytest.raises(InputError, match=f"nothing to set at '{place}'"):
        with_overrides({"a": 1, "list": [{"t": "x"}]}, [word])


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [("a = 1\nb = \n", 2, 5), ("a = [1,\n 2", 2, 3), ("[x\n", 1, 3), ("a = 1\na = 2\n", 2, 6)],
)
def test_broken_toml_gives_line_and_column(
    tmp_path: Path, text: str, line: int, column: int
) -> None:
    path = tmp_path / "broken.toml"
    path.write_text(text)
    with pytest.raises(SourceSyntaxError) as caught:
        read_toml(path, what="job file")
    assert (caught.value.line, caught.value.column) == (line, column)
    assert str(path) in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"policy .*No such file"):
        read_toml(tmp_path / "nope.toml", what="policy")
    (tmp_path / "latin.toml").write_bytes("name = 'é'".encode("latin-1"))
    with pytest.raises(InputError, match="expected TOML in UTF-8, got other bytes at 8"):
        read_toml(tmp_path / "latin.toml", what="policy")


def test_the_nearest_word_is_only_named_if_it_is_near() -> None:
    assert did_you_mean("lable", ["label", "run"]) == "did you mean 'label'? known: label, run"
    assert did_you_mean("xyz", ["label"]) == "known: label"
    assert did_you_mean("xyz", []) == "known: none"
