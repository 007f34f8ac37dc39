"""Text encoders to test with: MiniLM where it lies, a CLIP of random weights, and hashed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from student.config import TextConfig
from student.text.encoder import TextEncoder, build_text_encoder
from student.text.hashed import HashedTextEncoder
from student.text.minilm import TOKENIZER, WEIGHTS
from teachers import weights


@pytest.fixture(scope="session")
def hashed() -> TextEncoder:
    """Letters only."""
    return HashedTextEncoder()


@pytest.fixture(scope="session")
def minilm() -> TextEncoder:
    """The real one; downloads nothing."""
    lacking = [name for name in (WEIGHTS, TOKENIZER) if weights.find(name) is None]
    if lacking:
        pytest.skip(f"needs weights: run 'maskmill weights fetch {lacking[0]}'")
    return build_text_encoder(TextConfig(encoder="minilm"))


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    """A small CLIP of random weights."""
    folder = clip_folder(tmp_path_factory.mktemp("clip"))
    return build_text_encoder(TextConfig(encoder="clip", weights=str(folder)))


def clip_folder(folder: Path) -> Path:
    """Writes a small CLIP text tower of random weights, and a tokenizer that knows letters."""
    letters = [*map(chr, range(33, 127)), "Ġ", "Ã", "©", "±", "ç", "Ĭ", "¬", "ä", "å"]
    special = ["<|startoftext|>", "<|endoftext|>"]
    words = [*letters, *(f"{letter}</w>" for letter in letters), *special]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[])
    config = CLIPTextConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=64, projection_dim=24,
        num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=40,
        bos_token_id=vocabulary[special[0]], eos_token_id=vocabulary[special[1]],
        pad_token_id=vocabulary[special[1]],
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = CLIPTextModelWithProjection(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
