"""What a text encoder is, and which there are.

Class scores are similarities to text embeddings (MQ-Former, CVPR 2025, section 3), so a student
knows exactly the texts its encoder can tell apart. Encoders are frozen: nothing here is trained.

Category names and referring phrases go through the same encoder. A name is put into the template
first ("a photo of a {}"); a phrase is a sentence of its own and is encoded as it stands
(`student/text/table.py`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, cast

from manifests.errors import InputError
from student.config import TextConfig

if TYPE_CHECKING:
    from torch import Tensor


class TextEncoder(Protocol):
    """Texts to embeddings; the same text gives the same embedding, whatever stands beside it."""

    @property
    def dim(self) -> int:
        """Channels of an embedding."""
        ...

    @property
    def identity(self) -> Mapping[str, str]:
        """What decides the embeddings: the encoder, its version, digests of its files.

        Embeddings of two encoders can be compared exactly if their identities are equal.
        """
        ...

    def encode(self, texts: Sequence[str]) -> Tensor:
        """[N, dim] float32 on the CPU, of unit length; N may be 0. No gradients flow into it."""
        ...


_ENCODERS: Mapping[str, str] = {
    "minilm": "student.text.minilm:build",
    "clip": "student.text.clip:build",
    "hashed": "student.text.hashed:build",
}
"""Name -> module and function; they are imported when asked for, transformers takes seconds."""


def build_text_encoder(config: TextConfig) -> TextEncoder:
    """The encoder of a configuration; downloads MiniLM's weights if they are not on this machine.

    Raises:
        InputError: no such encoder, or its folder has no usable weights.
        WeightsError: MiniLM's weights cannot be had.
    """
    if config.encoder not in _ENCODERS:
        raise InputError(
            f"text.encoder: expected one of {', '.join(_ENCODERS)}, got {config.encoder!r}"
        )
    module, function = _ENCODERS[config.encoder].split(":")
    build = cast(
        "Callable[[TextConfig], TextEncoder]", getattr(importlib.import_module(module), function)
    )
    return build(config)
