"""Configurations: sizes, files over them, words over those, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifests.errors import InputError
from student.config import StudentConfig
from student.config_files import SIZES, config_from_values, config_values, load_config


@pytest.mark.parametrize("size", SIZES)
def test_every_size_is_whole_and_survives_a_round_trip(size: str) -> None:
    config = load_config(None, size=size)
    assert config_from_values(config_values(config), where="x") == config
    assert config.train.batch % config.train.micro_batch == 0


def test_base_has_the_papers_shape() -> None:
    config = load_config(None, size="base")
    transformer, loss = config.model.transformer, config.loss
    assert (transformer.learnable_queries, transformer.conditional_queries) == (100, 300)
    assert (transformer.encoder_layers, transformer.decoder_layers) == (6, 9)
    assert (transformer.dim, transformer.heads) == (256, 8)
    assert (loss.classes, loss.boxes_l1, loss.boxes_giou) == (4, 5, 2)
    assert (loss.masks_dice, loss.masks_bce, loss.points) == (5, 5, 12544)


def test_words_win_over_the_file_which_wins_over_its_size(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('size = "small"\nname = "mine"\n[train]\nsteps = 7\nbatch = 4\n')
    config = load_config(path, ["train.steps=9"])
    assert (config.name, config.train.steps, config.train.batch) == ("mine", 9, 4)
    assert config.data.image_side == load_config(None, size="small").data.image_side
    assert load_config(path, size="tiny").data.image_side == 256


def test_without_anything_it_is_the_smallest() -> None:
    assert load_config(None) == load_config(None, size="tiny")
    assert isinstance(load_config(None), StudentConfig)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("train.stps=1", "unknown key 'stps' in train; did you mean 'steps'"),
        ("train.steps=0", "train.steps: expected at least 1, got 0"),
        ("model.transformer.dim=130", "model.transformer.dim: expected a multiple of 4"),
        ("model.backbone.drop_path=2", "model.backbone.drop_path: expected from 0 to 0.9"),
        ("model.text.template=a", "model.text.template: expected {} in it"),
        ("model.text.encoder=elmo", "expected one of minilm, clip, hashed"),
        ("data.image_side=100", "data.image_side: expected a positive multiple of 32"),
        ("data.scale_min=3", "data.scale_min: expected from 0.05 to 1.6"),
        ("train.learning_rate=nan", "train.learning_rate: expected"),
        ("loss.importance=2", "loss.importance: expected from 0 to 1"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_expected(word: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_config(None, [word], size="tiny")
    assert message in str(caught.value)


def test_a_student_without_queries_or_of_no_size_is_refused() -> None:
    none = ["model.transformer.learnable_queries=0", "model.transformer.conditional_queries=0"]
    with pytest.raises(InputError, match="at least one query"):
        load_config(None, none)
    with pytest.raises(InputError, match="did you mean 'tiny'"):
        load_config(None, size="tiniest")
