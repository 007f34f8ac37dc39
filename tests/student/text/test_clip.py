"""CLIP from a folder: it is transformers' own answer, and a bad folder is told from a good one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from manifests.errors import InputError
from student.config import TextConfig
from student.text.encoder import TextEncoder, build_text_encoder
from tests.student.text.conftest import clip_folder


def _build(folder: Path) -> TextEncoder:
    return build_text_encoder(TextConfig(encoder="clip", weights=str(folder)))


def test_it_is_the_projection_of_transformers(tmp_path: Path) -> None:
    folder = clip_folder(tmp_path)
    tokens = CLIPTokenizer.from_pretrained(folder)(["red bag"], return_tensors="pt")
    with torch.no_grad():
        wanted = CLIPTextModelWithProjection.from_pretrained(folder)(**tokens).text_embeds
    got = _build(folder).encode(["red bag"])
    torch.testing.assert_close(got, wanted / wanted.norm(dim=1, keepdim=True))


def test_long_texts_are_cut(tmp_path: Path) -> None:
    encoder = _build(clip_folder(tmp_path))
    long = encoder.encode(["abc " * 40, "abc " * 41])
    torch.testing.assert_close(long[0], long[1])


def test_a_whole_clip_is_read_without_its_image_tower(tmp_path: Path) -> None:
    folder = clip_folder(tmp_path)
    wanted = _build(folder).encode(["red bag"])
    file = folder / "model.safetensors"
    save_file(
        {**load_file(file), "visual_projection.weight": torch.zeros(2, 2)}, file, {"format": "pt"}
    )
    torch.testing.assert_close(_build(folder).encode(["red bag"]), wanted)


def test_the_identity_follows_the_files(tmp_path: Path) -> None:
    folder = clip_folder(tmp_path)
    before = _build(folder).identity
    assert _build(folder).identity == before
    file = folder / "model.safetensors"
    state = load_file(file)
    state["text_projection.weight"] += 1
    save_file(state, file, {"format": "pt"})
    assert _build(folder).identity != before


def test_weights_that_lack_a_tensor_are_refused(tmp_path: Path) -> None:
    folder = clip_folder(tmp_path)
    file = folder / "model.safetensors"
    state = load_file(file)
    del state["text_projection.weight"]
    save_file(state, file, {"format": "pt"})
    with pytest.raises(InputError, match=r"it lacks text_projection\.weight"):
        _build(folder)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    folder = clip_folder(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "projection_dim": 12}))
    with pytest.raises(InputError, match=r"text\.weights: .* is no CLIP"):
        _build(folder)


@pytest.mark.parametrize("lost", ["config.json", "model.safetensors", "tokenizer.json"])
def test_an_incomplete_folder_is_refused(tmp_path: Path, lost: str) -> None:
    folder = clip_folder(tmp_path)
    (folder / lost).unlink()
    with pytest.raises(InputError, match=r"expected a folder with config\.json"):
        _build(folder)


def test_a_pickle_is_not_read(tmp_path: Path) -> None:
    folder = clip_folder(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"\*\.safetensors"):
        _build(folder)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    folder = clip_folder(tmp_path)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match="is no CLIP in transformers' format"):
        _build(folder)


def test_no_folder_says_what_to_do() -> None:
    with pytest.raises(InputError, match=r"got nothing; save one with .*save_pretrained"):
        build_text_encoder(TextConfig(encoder="clip"))
