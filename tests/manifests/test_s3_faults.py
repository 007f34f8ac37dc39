"""What the store says and does when an S3 server is absent, refuses, lies, or falls silent.

The server here is a real HTTP server of a few dozen lines, because no good S3 server can be asked
to misbehave; where refusing is enough, it is the real one.
"""

from __future__ import annotations

import socket
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

import pytest

from manifests.dataset import Dataset, init
from manifests.errors import CommitStateUnknownError, ObjectMissingError, StoreError
from manifests.refs import Refs
from manifests.store import NameTakenError, Store, WriteStateUnknownError

_SECRET = "never-show-this-secret"


@dataclass
class Faults:
    """What the server does wrong; counts go down with each request they spoil."""

    ignores_conditions: bool = False
    puts_done_then_dropped: int = 0
    puts_answered: list[int] = field(default_factory=list)  # statuses, used up from the front
    gets_dropped: bool = False
    gets_cut: bool = False


class FaultyS3:
    """Objects by path, and the faults to apply to requests for them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.faults = Faults()
        self.objects: dict[str, bytes] = {}
        self.lock = threading.Lock()

    def put(self, path: str, data: bytes, *, only_if_absent: bool) -> int:
        """The status to answer; 0 to drop the connection."""
        with self.lock:
            if self.faults.puts_answered:
                return self.faults.puts_answered.pop(0)
            refused = only_if_absent and path in self.objects
            if refused and not self.faults.ignores_conditions:
                return 412
            self.objects[path] = data
            self.faults.puts_done_then_dropped -= 1
            return 0 if self.faults.puts_done_then_dropped >= 0 else 200


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    s3: ClassVar[FaultyS3]

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        absent = self.headers.get("If-None-Match") == "*"
        status = self.s3.put(urlsplit(self.path).path, data, only_if_absent=absent)
        if status:
            self._answer(status)
        else:
            self._drop()

    def do_GET(self) -> None:
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        if self.s3.faults.gets_dropped:
            self._drop()
        elif "list-type" in query:
            self._answer(200, self._listing(path, query))
        elif path not in self.s3.objects:
            self._answer(404, b"<Error><Code>NoSuchKey</Code><Message>gone</Message></Error>")
        elif self.s3.faults.gets_cut:
            self._answer(200, self.s3.objects[path][:1], claimed=1000)
            self._drop()
        else:
            self._answer(200, self.s3.objects[path])

    def do_HEAD(self) -> None:
        data = self.s3.objects.get(urlsplit(self.path).path)
        self._answer(404 if data is None else 200, claimed=len(data or b""))

    def do_DELETE(self) -> None:
        self.s3.objects.pop(urlsplit(self.path).path, None)
        self._answer(204)

    def _listing(self, bucket: str, query: dict[str, list[str]]) -> bytes:
        prefix = query.get("prefix", [""])[0]
        keys = [path.removeprefix(f"{bucket.rstrip('/')}/") for path in sorted(self.s3.objects)]
        below = {key[len(prefix) :].partition("/") for key in keys if key.startswith(prefix)}
        folders = {name for name, slash, _ in below if slash}
        files = {name for name, slash, _ in below if not slash}
        text = "".join(
            f"<Contents><Key>{escape(prefix + name)}</Key><Size>1</Size>"
            "<LastModified>2026-11-23T20:00:00.000Z</LastModified></Contents>"
            for name in sorted(files)
        ) + "".join(
            f"<CommonPrefixes><Prefix>{escape(prefix + name)}/</Prefix></CommonPrefixes>"
            for name in sorted(folders)
        )
        head = f"<IsTruncated>false</IsTruncated><KeyCount>{len(files) + len(folders)}</KeyCount>"
        return f"<ListBucketResult>{head}{text}</ListBucketResult>".encode()

    def _answer(self, status: int, body: bytes = b"", *, claimed: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if claimed is None else claimed))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def _drop(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing."""


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment with credentials and no address, apart from the user's own."""
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", _SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return monkeypatch


@pytest.fixture
def s3(aws: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """A server that does what `faults` says, running on 127.0.0.1."""
    handler = type("Handler", (_Handler,), {"s3": FaultyS3(f"s3://bucket/{uuid.uuid4().hex}")})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    aws.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    try:
        yield handler.s3  # type: ignore[attr-defined]  # made by `type` above
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def _check_no_secret(error: BaseException) -> None:
    link: BaseException | None = error
    while link is not None:
        assert _SECRET not in f"{link} {link!r}"
        link = link.__cause__ or link.__context__


class TestFaultyServer:
    def test_serves_a_store_when_it_behaves(self, s3: FaultyS3) -> None:
        commit_id = init(Store(s3.url))
        assert Dataset.open(Store(s3.url)).commit_id == commit_id

    def test_that_ignores_conditions_is_refused(self, s3: FaultyS3) -> None:
        s3.faults.ignores_conditions = True
        with pytest.raises(StoreError, match=r"ignores conditional writes \(If-None-Match\)"):
            init(Store(s3.url))
        assert s3.objects == {}

    def test_lost_answer_counts_as_done(self, s3: FaultyS3) -> None:
        # The client tries again by itself and is told "taken": by its own bytes.
        s3.faults.puts_done_then_dropped = 1
        Store(s3.url).create_if_absent("key", b"mine")
        assert list(s3.objects.values()) == [b"mine"]

    @pytest.mark.slow
    def test_lost_answers_count_as_done_when_read_back(self, s3: FaultyS3) -> None:
        s3.faults.ignores_conditions = True
        s3.faults.puts_done_then_dropped = 1000
        Store(s3.url).create_if_absent("key", b"mine")
        assert list(s3.objects.values()) == [b"mine"]

    def test_lost_answer_of_a_loser(self, s3: FaultyS3) -> None:
        Store(s3.url).create_if_absent("key", b"theirs")
        s3.faults.puts_answered = [500] * 1000
        with pytest.raises(NameTakenError) as caught:
            Store(s3.url).create_if_absent("key", b"mine")
        assert caught.value.found == b"theirs"

    def test_nothing_there_after_an_error_is_unknown(self, s3: FaultyS3) -> None:
        s3.faults.puts_answered = [500] * 1000
        with pytest.raises(WriteStateUnknownError, match="it may or may not be there"):
            Store(s3.url).create_if_absent("key", b"mine")

    @pytest.mark.slow
    def test_silence_while_a_branch_moves(self, s3: FaultyS3) -> None:
        refs = Refs(Store(s3.url))
        s3.faults.ignores_conditions = True
        s3.faults.puts_done_then_dropped = 1000
        s3.faults.gets_dropped = True
        with pytest.raises(CommitStateUnknownError, match=r"repeat .* only if commit cccccccccccc"):
            refs.advance("main", expected=None, commit="c" * 64, reason="test")

    def test_conflict_without_an_object_is_tried_again(self, s3: FaultyS3) -> None:
        s3.faults.puts_answered = [409, 412]
        Store(s3.url).create_if_absent("key", b"mine")
        assert list(s3.objects.values()) == [b"mine"]

    @pytest.mark.slow
    def test_conflict_for_ever_ends(self, s3: FaultyS3) -> None:
        s3.faults.puts_answered = [409] * 1000
        with pytest.raises(StoreError, match="as if it existed, but it does not"):
            Store(s3.url).create_if_absent("key", b"mine")

    def test_body_that_breaks_off(self, s3: FaultyS3) -> None:
        store = Store(s3.url)
        store.create_if_absent("key", b"mine")
        s3.faults.gets_cut = True
        with pytest.raises(StoreError, match="no answer"):
            store.read_optional("key")

    def test_object_that_goes_away(self, s3: FaultyS3) -> None:
        store = Store(s3.url)
        object_id = store.put_bytes(b"1").object_id
        s3.objects.clear()
        with pytest.raises(ObjectMissingError, match="is missing in"):
            store.get_bytes(object_id)


class TestAbsentOrRefusing:
    def test_closed_port_is_reported_soon(self, aws: pytest.MonkeyPatch) -> None:
        with socket.socket() as taken:  # bound and not listening: nobody else can open it
            taken.bind(("127.0.0.1", 0))
            aws.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
            with pytest.raises(StoreError, match=r"^s3://bucket/x: no answer \(Endpoint") as caught:
                init(Store("s3://bucket/x"))
            _check_no_secret(caught.value)

    @pytest.mark.parametrize("key_is_known", [True, False])
    def test_wrong_credentials(
        self, s3_url: str, monkeypatch: pytest.MonkeyPatch, key_is_known: bool
    ) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", _SECRET)
        if not key_is_known:
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "stranger")
        with pytest.raises(StoreError, match="access denied; check the credentials") as caught:
            init(Store(s3_url))
        _check_no_secret(caught.value)

    def test_no_credentials(self, aws: pytest.MonkeyPatch, s3: FaultyS3) -> None:
        aws.delenv("AWS_ACCESS_KEY_ID")
        aws.delenv("AWS_SECRET_ACCESS_KEY")
        with pytest.raises(StoreError, match=r"no usable credentials \(NoCredentialsError\)"):
            init(Store(s3.url))

    def test_missing_bucket(self, s3_url: str) -> None:
        store = Store(s3_url.replace("s3://", "s3://no-"))
        for use in (init, Dataset.open, lambda store: store.put_bytes(b"1")):
            with pytest.raises(StoreError, match="the bucket does not exist; create it first"):
                use(store)

    def test_missing_object_below_a_folder_called_bucket(self, s3_url: str) -> None:
        assert Store(f"{s3_url}/my bucket").read_optional("key") is None

    def test_impossible_bucket_name(self, s3_url: str) -> None:
        with pytest.raises(StoreError, match=r"^s3://No_Bucket!/x: "):
            init(Store("s3://No_Bucket!/x"))

    def test_each_environment_has_its_own_client(
        self, s3: FaultyS3, aws: pytest.MonkeyPatch
    ) -> None:
        old = Store(s3.url)
        old.create_if_absent("key", b"1")
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            aws.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
            with pytest.raises(StoreError, match="no answer"):
                Store(s3.url).read_optional("key")
        assert old.read_optional("key") == b"1"
