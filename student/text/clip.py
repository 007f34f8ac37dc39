"""CLIP's text tower (arXiv 2103.00020) from a folder in transformers' format.

The folder has `config.json`, `model.safetensors` and the tokenizer's files, as `save_pretrained`
writes them; a whole CLIP does, its image tower is left out. Nothing is downloaded and no pickle is
read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F

from manifests.errors import InputError
from student.config import TextConfig
from student.text.in_batches import in_batches

if TYPE_CHECKING:
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer

_VERSION = 1
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json")
_WANTED = "a folder with config.json, *.safetensors and tokenizer.json (or vocab.json, merges.txt)"


class ClipTextEncoder:
    """See `TextEncoder`."""

    def __init__(
        self, model: CLIPTextModelWithProjection, tokenizer: CLIPTokenizer, sha256: str
    ) -> None:
        self._model, self._tokenizer, self._sha256 = model, tokenizer, sha256

    @property
    def dim(self) -> int:
        """See `TextEncoder.dim`."""
        return self._model.text_projection.out_features

    @property
    def identity(self) -> Mapping[str, str]:
        """See `TextEncoder.identity`."""
        return {"encoder": "clip", "version": str(_VERSION), "files_sha256": self._sha256}

    def encode(self, texts: Sequence[str]) -> Tensor:
        """See `TextEncoder.encode`; of long texts the first tokens count (77 in OpenAI's)."""
        return in_batches(texts, self._encode_batch, dim=self.dim)

    def _encode_batch(self, texts: Sequence[str]) -> Tensor:
        tokens = self._tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self._model.config.max_position_embeddings,
            return_tensors="pt",
        )
        answer = self._model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        return F.normalize(answer.text_embeds, dim=1)


def build(config: TextConfig) -> ClipTextEncoder:
    """See `build_text_encoder`."""
    folder = _checked_folder(config.weights)
    model = _model(folder)
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    return ClipTextEncoder(model, tokenizer, _digest(folder))


def _checked_folder(given: str) -> Path:
    folder = Path(given).expanduser()
    has_weights = (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))
    has_tokenizer = (folder / "tokenizer.json").is_file() or all(
        (folder / name).is_file() for name in ("vocab.json", "merges.txt")
    )
    if not given or not has_weights or not has_tokenizer:
        got = f"'{given}', which lacks some of it" if given else "nothing"
        raise InputError(
            f"text.weights: for the encoder 'clip' expected {_WANTED}, got {got}; save one with "
            'transformers\' save_pretrained(), or use text.encoder = "minilm"'
        )
    return folder


def _model(folder: Path) -> CLIPTextModelWithProjection:
    from transformers import CLIPTextModelWithProjection

    try:
        with torch.random.fork_rng(devices=[]):
            loaded: Any = CLIPTextModelWithProjection.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True,
                dtype=torch.float32,
            )  # fmt: skip
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"text.weights: {folder} is no CLIP in transformers' format: {error}"
        ) from error
    model, report = loaded  # with `output_loading_info` it is a pair, which its hints do not say
    if report["missing_keys"] or report["mismatched_keys"]:
        lacking = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
        raise InputError(
            f"text.weights: {folder} is no CLIP with a projection: it lacks {lacking[0]} and "
            f"{len(lacking) - 1} more tensors, which would be random"
        )
    text_tower: CLIPTextModelWithProjection = model.requires_grad_(False).eval()
    return text_tower


def _digest(folder: Path) -> str:
    """Of names and contents of all files that decide the embeddings."""
    digest = hashlib.sha256()
    names = {path.name for path in folder.glob("*.safetensors")} | {"config.json"}
    for name in sorted(names.union(_TOKENIZER_FILES)):
        if (folder / name).is_file():
            with (folder / name).open("rb") as stream:
                digest.update(
                    f"{name} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode()
                )
    return digest.hexdigest()
