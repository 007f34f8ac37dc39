"""Opening a file system by its address, and saying its errors in one sentence."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec

from manifests.errors import MaskmillError, ObjectMissingError, StoreError

_SAME_PROTOCOL = {"local": "file", "s3a": "s3"}
_PASSWORD_IN_URL = re.compile(r"^[^/]+://[^/@]*:[^/@]*@")
# Rounds of s3fs around botocore's own attempts, for what botocore does not retry (a body that
# breaks off, "reduce your request rate" once its attempts are used up: fsspec/s3fs#865).
_S3FS_ROUNDS = 3
# Every S3 client of this process; fsspec keeps them as well, until the process forks. A child that
# let go of an inherited client would close its connections, and its parent would wait 30 s for an
# answer that cannot come.
_clients: dict[int, Any] = {}


class NoAnswerError(StoreError):
    """The store did not answer, or said that it failed: a write may or may not have happened."""


def holds_password(url: str) -> bool:
    """Whether an address has `user:password@` in front of its host."""
    return _PASSWORD_IN_URL.match(url) is not None


def full_url(url: str) -> str:
    """An absolute address without a final slash, the same in every process.

    Raises:
        StoreError: it names no place, or holds a password, which would end up in logs.
    """
    if holds_password(url):
        raise StoreError(
            "the store's address holds a password; put it where the client looks for it "
            "(for S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile)"
        )
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", str(Path(url).absolute()) if url else ""
    if not rest.strip("/"):
        raise StoreError(
            f"store address {url!r} names no place: give a folder, or a URL such as "
            "s3://bucket/prefix"
        )
    return f"{scheme}{separator}{rest.rstrip('/')}"


def protocol_of(url: str) -> str:
    """`file`, `s3`, `memory` ...; other spellings of these are brought to one."""
    protocol = str(fsspec.utils.get_protocol(url))
    return _SAME_PROTOCOL.get(protocol, protocol)


def open_file_system(url: str) -> tuple[Any, str]:
    """fsspec's file system (which is untyped) and the path inside it; makes no request."""
    protocol = protocol_of(url)
    with explained(url, protocol):
        options = _s3_options() if protocol == "s3" else {}
        files, root = fsspec.core.url_to_fs(url, **options)
    if protocol == "s3":
        files.retries = _S3FS_ROUNDS
        _clients[id(files)] = files
    return files, str(root).rstrip("/")


def _s3_options() -> dict[str, Any]:
    """What s3fs is opened with.

    Listings are never cached: a reader must see the newest commit. A refused connection is
    reported after about 3 s, a silent server after some minutes. Address and credentials are
    botocore's own business; they are given here only because fsspec shares one client among all
    openings with equal options, and a changed environment must not get the old client.
    """
    names = {
        "endpoint_url": os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"),
        "key": os.environ.get("AWS_ACCESS_KEY_ID"),
        "secret": os.environ.get("AWS_SECRET_ACCESS_KEY"),
        "token": os.environ.get("AWS_SESSION_TOKEN"),
    }
    return {
        "use_listings_cache": False,
        "config_kwargs": {
            "retries": {"mode": "adaptive", "max_attempts": 3},
            "connect_timeout": 5,
            "read_timeout": 30,
        },
        **{name: value for name, value in names.items() if value},
    }


@contextmanager
def explained(url: str, protocol: str) -> Iterator[None]:
    """Turns a file system's errors into one sentence; no secret is ever repeated.

    Raises:
        ObjectMissingError: a file is not there.
        NoAnswerError: the other side did not answer, or failed.
        StoreError: everything else.
    """
    expected: tuple[type[Exception], ...] = (OSError, ImportError, ValueError)
    if protocol == "s3":
        expected += _client_errors()
    try:
        yield
    except MaskmillError:
        raise
    except expected as error:
        raise _explanation(url, protocol, error) from error


def http_status(error: OSError) -> int | None:
    """The status of the S3 answer that s3fs translated into `error`, if it was one."""
    response = getattr(error.__cause__, "response", None) or {}
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return int(status) if status else None


def _explanation(url: str, protocol: str, error: Exception) -> StoreError:
    if isinstance(error, FileNotFoundError):
        if _s3_code(error) == "NoSuchBucket":
            return StoreError(f"{url}: the bucket does not exist; create it first")
        return ObjectMissingError(f"{url}: not found: {error.filename or error}")
    if isinstance(error, PermissionError):
        if protocol == "s3":
            return StoreError(
                f"{url}: access denied; check the credentials and the bucket's policy"
            )
        return StoreError(f"{url}: not permitted{_at(error)}; check its owner and rights")
    if isinstance(error, TimeoutError | ConnectionError) or (
        protocol == "s3" and _is_silence(error)
    ):
        return NoAnswerError(
            f"{url}: no answer ({type(error).__name__}); check the address and the network"
        )
    if isinstance(error, OSError):
        return _os_explanation(url, error)
    if "Credentials" in type(error).__name__ or "Token" in type(error).__name__:  # botocore's own
        return StoreError(f"{url}: no usable credentials ({type(error).__name__})")
    return StoreError(f"{url}: cannot be opened: {error}")


def _os_explanation(url: str, error: OSError) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(f"{url}: the disk is full; free some space and run again")
    reason = (error.strerror or str(error) or type(error).__name__).rstrip(".")
    return StoreError(f"{url}: {reason}{_at(error)}; see to it and run again")


def _at(error: OSError) -> str:
    return f" at {error.filename}" if error.filename else ""


def _s3_code(error: OSError) -> str:
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def _client_errors() -> tuple[type[Exception], ...]:
    """Exceptions of the S3 client that are no OSError."""
    import aiohttp  # 60 ms with botocore, which only S3 users pay
    from botocore import exceptions as boto

    return boto.BotoCoreError, aiohttp.ClientError


def _is_silence(error: Exception) -> bool:
    """Whether the server may have done what it was asked without our knowing."""
    import aiohttp
    from botocore import exceptions as boto

    if isinstance(error, OSError) and (http_status(error) or 0) >= 500:
        return True
    return isinstance(error, boto.HTTPClientError | boto.ConnectionError | aiohttp.ClientError)
