"""all-MiniLM-L6-v2: sentences to 384 channels, small enough for any CPU.

The model is sentence-transformers/all-MiniLM-L6-v2, a six-layer BERT (MiniLM, arXiv 2002.10957)
trained so that the cosine of mean-pooled token embeddings says how near two sentences are
(Sentence-BERT, arXiv 1908.10084, section 3). Weights and tokenizer are pinned files of
`teachers/weights.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from student.config import TextConfig
from student.text.in_batches import in_batches
from teachers import weights

if TYPE_CHECKING:
    from transformers import BertModel

WEIGHTS, TOKENIZER = "minilm", "minilm_tokenizer"
_DIM = 384
_VERSION = 1
_MAX_TOKENS = 256  # as the model's authors set it; what is longer is cut
_UNUSED = ("pooler.", "embeddings.position_ids")  # in the file, but mean pooling needs neither


class MiniLMTextEncoder:
    """See `TextEncoder`."""

    def __init__(self, model: BertModel, tokenizer: Tokenizer) -> None:
        self._model, self._tokenizer = model, tokenizer

    @property
    def dim(self) -> int:
        """See `TextEncoder.dim`."""
        return _DIM

    @property
    def identity(self) -> Mapping[str, str]:
        """See `TextEncoder.identity`."""
        return {
            "encoder": "minilm",
            "version": str(_VERSION),
            "weights_sha256": weights.TABLE[WEIGHTS].sha256,
            "tokenizer_sha256": weights.TABLE[TOKENIZER].sha256,
        }

    def encode(self, texts: Sequence[str]) -> Tensor:
        """See `TextEncoder.encode`."""
        return in_batches(texts, self._encode_batch, dim=_DIM)

    def _encode_batch(self, texts: Sequence[str]) -> Tensor:
        encoded = self._tokenizer.encode_batch(list(texts))
        ids = torch.tensor([one.ids for one in encoded])  # [N, T]
        is_token = torch.tensor([one.attention_mask for one in encoded])  # [N, T]
        answer = self._model(input_ids=ids, attention_mask=is_token)
        return mean_of_tokens(answer.last_hidden_state, is_token)


def build(_config: TextConfig) -> MiniLMTextEncoder:
    """See `build_text_encoder`."""
    return MiniLMTextEncoder(_model(weights.fetch(WEIGHTS)), _tokenizer(weights.fetch(TOKENIZER)))


def mean_of_tokens(embeddings: Tensor, is_token: Tensor) -> Tensor:
    """[N, T, E] and [N, T], 1 for a token and 0 for padding, to [N, E] of unit length."""
    kept = is_token.unsqueeze(-1).to(embeddings.dtype)  # [N, T, 1]
    return F.normalize((embeddings * kept).sum(1) / kept.sum(1), dim=1)


def _model(path: Path) -> BertModel:
    from transformers import BertConfig, BertModel

    shape = BertConfig(
        vocab_size=30_522,
        hidden_size=_DIM,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        max_position_embeddings=512,
        layer_norm_eps=1e-12,
    )
    with torch.random.fork_rng(devices=[]):  # a new BERT draws weights that are replaced at once
        model = BertModel(shape, add_pooling_layer=False)
    state = load_file(path)
    model.load_state_dict({key: state[key] for key in state if not key.startswith(_UNUSED)})
    model.requires_grad_(False).train(False)
    return model


def _tokenizer(path: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(max_length=_MAX_TOKENS)
    tokenizer.enable_padding()  # to the longest of a batch, not to the file's fixed 128
    return tokenizer
