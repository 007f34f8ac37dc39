"""Digests and canonical JSON: the same value has the same bytes on every machine."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec


def sha256_hex(data: bytes | memoryview) -> str:
    """64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: Any) -> bytes:  # Any: whatever JSON can say
    """UTF-8, keys sorted, no white space, no NaN. Dataclasses are written as their fields.

    Raises:
        ValueError: a NaN or an infinity, which JSON has no word for.
    """
    text = json.dumps(
        msgspec.to_builtins(value),
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )
    return text.encode()


def digest_of(value: Any) -> str:  # Any: whatever JSON can say
    """SHA-256 of the canonical JSON of `value`."""
    return sha256_hex(canonical_json(value))


def content_id(*parts: str | bytes) -> str:
    """128-bit id as 32 hex digits, from parts that are length-prefixed so that none can merge.

    Never all zeros: a zero id is misread as "none" by too many tools (roboflow/supervision#1895).
    """
    hasher = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        hasher.update(len(raw).to_bytes(8, "little"))
        hasher.update(raw)
    digest = hasher.hexdigest()[:32]
    return digest if int(digest, 16) else "0" * 31 + "1"
