"""Vectors of category names and of referring phrases, each text encoded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from manifests.errors import InputError
from student.text.encoder import TextEncoder

_MAX_CACHED = 200_000  # texts; at MiniLM's 384 channels 300 MB


class TextTable:
    """Names and phrases to embeddings; remembers them, so only new texts cost anything."""

    def __init__(self, encoder: TextEncoder, template: str = "{}") -> None:
        if "{}" not in template:
            raise InputError(f"text.template: expected {{}} in it, got {template!r}")
        self._encoder, self._template = encoder, template
        self._known: dict[str, Tensor] = {}

    @property
    def dim(self) -> int:
        """Channels of a vector."""
        return self._encoder.dim

    @property
    def identity(self) -> Mapping[str, str]:
        """What decides the vectors: the encoder's identity and the template."""
        return {**self._encoder.identity, "template": self._template}

    def vectors(self, names: Sequence[str]) -> Tensor:
        """[K, dim] float32 of unit length: of category names, each put into the template.

        Names are read as people write them: `shopping_bag` counts as "shopping bag".

        Raises:
            InputError: a name is empty or blank.
        """
        return self._of([self._template.replace("{}", spoken(name)) for name in _given(names)])

    def phrase_vectors(self, phrases: Sequence[str]) -> Tensor:
        """[K, dim] float32 of unit length: of referring phrases, as they stand.

        Raises:
            InputError: a phrase is empty or blank.
        """
        return self._of([" ".join(phrase.split()) for phrase in _given(phrases, "phrases")])

    def _of(self, texts: Sequence[str]) -> Tensor:
        new = list(dict.fromkeys(text for text in texts if text not in self._known))
        if new:
            # Rows are copied, or one row that is kept would keep its whole batch in memory.
            self._known.update(zip(new, map(torch.clone, self._encoder.encode(new)), strict=True))
        if not texts:
            return torch.empty(0, self.dim)
        vectors = torch.stack([self._known[text] for text in texts])  # [K, dim]
        for oldest in list(self._known)[: max(0, len(self._known) - _MAX_CACHED)]:
            del self._known[oldest]
        return vectors


def spoken(name: str) -> str:
    """A category name as people would say it: no underscores, single spaces."""
    return " ".join(name.replace("_", " ").split())


def _given(texts: Sequence[str], what: str = "categories") -> Sequence[str]:
    blank = [row for row, text in enumerate(texts) if not spoken(text)]
    if blank:
        raise InputError(
            f"{what} without text: expected a name or phrase each, got {len(blank)} blank of "
            f"{len(texts)}, the first in place {blank[0] + 1}; leave them out, or name them in the "
            "source and ingest it again"
        )
    return texts
