"""A stub of the service on loopback for the client's tests: real HTTP, real bundles, and every kind of fault."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner

from crpbot_runtime.version import PROTOCOL
from mlcore.bundle import format as bundle_format

TOKEN = "bot-token-Zx81"
SIGNED_PATH = "/api/v1/active/signed/"
STREAM_PATH = "/api/v1/active/stream/"
KEYS_PATH = "/api/v1/active/keys/"
HEARTBEAT_PATH = "/api/v1/bots/heartbeat/"
WINDOWS_PATH = "/api/v1/bots/windows/"
PAYLOAD_TYPE = "application/vnd.crpbot.snapshot+json"
KEYS_PAYLOAD_TYPE = "application/vnd.crpbot.keys+json"
VALID_FOR = timedelta(minutes=3)
HALF = "half of the file, then silence"


@dataclass(frozen=True)
class Release:
    """What the pointer can name: one bundle's folder for each coin."""

    number: int
    line: str
    folders: dict[str, Path]

    def file(self, coin: str, name: str) -> bytes:
        return (self.folders[coin] / name).read_bytes()

    def sha256(self, coin: str, name: str) -> str:
        return hashlib.sha256(self.file(coin, name)).hexdigest()


@dataclass
class ReceivedRequest:
    """One request as received."""

    path: str
    headers: dict[str, str]


@dataclass
class StubService:
    """The service. Tests move its pointer, edit its document, replace its files, or stop it."""

    service_name: str = "service-under-test"
    signers: list[CryptoSigner] = field(default_factory=lambda: [CryptoSigner.generate_ed25519()])
    issued_at: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    tamper: Callable[[dict[str, Any]], None] = lambda envelope: None
    revision: int = 0
    release: Release | None = None
    edit: Callable[[dict[str, Any]], None] = lambda document: None
    files: dict[str, bytes | str] = field(default_factory=dict)
    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    raw_answers: dict[str, Callable[[], Iterator[bytes]]] = field(default_factory=dict)
    """Whole answers as they go over the wire, piece by piece, until the client goes away."""
    requests: list[ReceivedRequest] = field(default_factory=list)
    before_snapshot: Callable[[], None] = lambda: None
    is_away: bool = False
    streams: bool = True
    announced: Release | None = None
    fallback: Release | None = None
    key_sets: list[dict[str, Any]] = field(default_factory=list)
    """Signed sets of keys, the oldest first; none is what a service without a change of keys has."""
    heartbeats: list[dict[str, Any]] = field(default_factory=list)
    windows: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        handler = type("Handler", (_Handler,), {"stub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.released = threading.Event()
        self._moving = threading.RLock()  # no answer is made of two releases
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def public_key(self) -> str:
        return ",".join(signer.public_key.keyval["public"] for signer in self.signers)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def point_at(self, release: Release | None, *, revision: int | None = None) -> None:
        """Move the pointer; None is offline. The revision is the next one unless given."""
        self._add_files(release)
        with self._moving:
            self.revision = self.revision + 1 if revision is None else revision
            self.release = release
            if self.announced is release:
                self.announced = None

    def announce(self, release: Release | None) -> None:
        """Announce what awaits approval."""
        self._add_files(release)
        self.announced = release

    def register(self, release: Release | None) -> None:
        """Announce what a pin leads to."""
        self._add_files(release)
        self.fallback = release

    def _add_files(self, release: Release | None) -> None:
        for folder in release.folders.values() if release else ():
            for path in folder.iterdir():
                content = path.read_bytes()
                self.files.setdefault(hashlib.sha256(content).hexdigest(), content)

    def document(self) -> dict[str, Any]:
        with self._moving:
            return self._build_document()

    def _build_document(self) -> dict[str, Any]:
        models = (
            {coin: _describe_model(folder) for coin, folder in self.release.folders.items()}
            if self.release
            else {}
        )
        document = {
            "protocol": {"version": PROTOCOL, "oldest_reader": 1},
            "service": self.service_name,
            "revision": self.revision,
            "line": self.release.line if self.release else None,
            "interval_seconds": 3600 if self.release else None,
            "release": self.release.number if self.release else None,
            "moved_at": "2026-11-22T08:00:00Z",
            "reason": "a test moved it",
            "simulated": True,
            "policy": {"number": 1, "weaker_than_baseline": []},
            "audit": {"seq": self.revision, "hash": "00"},
            "models": models,
            "issued_at": self.issued_at.isoformat(),
            "expires_at": (self.issued_at + VALID_FOR).isoformat(),
            "audit_head": {"seq": self.revision, "hash": "00" * 32},
            "key_version": len(self.key_sets),
            "coins": list(models),
            "next": _describe_release(self.announced) if self.announced else None,
            "fallback": _describe_release(self.fallback) if self.fallback else None,
        }
        self.edit(document)
        return document

    def envelope(self) -> bytes:
        """The document of this moment, signed by every key; `tamper` then changes what is sent."""
        sealed = Envelope(json.dumps(self.document()).encode(), PAYLOAD_TYPE, {})
        for signer in self.signers:
            sealed.sign(signer)
        sent = sealed.to_dict()
        self.tamper(sent)
        return json.dumps(sent).encode()

    def publish_keys(
        self,
        *signers: CryptoSigner,
        by: Sequence[CryptoSigner],
        version: int | None = None,
        service: str = "",
    ) -> dict[str, Any]:
        """Add a set of these keys, signed by those; its version is the next unless given."""
        document = {
            "service": service or self.service_name,
            "version": len(self.key_sets) + 1 if version is None else version,
            "keys": [signer.public_key.keyval["public"] for signer in signers],
        }
        sealed = Envelope(json.dumps(document).encode(), KEYS_PAYLOAD_TYPE, {})
        for signer in by:
            sealed.sign(signer)
        self.key_sets.append(sealed.to_dict())
        return self.key_sets[-1]

    def downloads(self) -> list[str]:
        """The digests asked for so far, in order."""
        return [request.path.rpartition("/")[2] for request in self.requests if "/artifacts/" in request.path]

    def stop(self) -> None:
        """Nothing listens at the address any more."""
        self.released.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


def _describe_release(release: Release) -> dict[str, Any]:
    models = {coin: _describe_model(folder) for coin, folder in release.folders.items()}
    return {
        "release": release.number,
        "line": release.line,
        "interval_seconds": 3600,
        "simulated": True,
        "models": models,
    }


def _describe_model(folder: Path) -> dict[str, Any]:
    read = bundle_format.read(folder)
    files = {}
    for path in sorted(folder.iterdir()):
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        files[path.name] = {
            "sha256": sha256,
            "size": path.stat().st_size,
            "url": f"/api/v1/artifacts/{sha256}",
        }
    return {
        "bundle": read.digest,
        "feature_schema": read.manifest.schema_name,
        "schema_digest": read.manifest.schema_digest,
        "classes": list(read.manifest.classes),
        "files": files,
    }


class _Handler(BaseHTTPRequestHandler):
    stub: StubService
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms for the client's delayed acknowledgement

    def log_message(self, format: str, *args: object) -> None:
        """Tests read `stub.requests` instead."""

    def do_GET(self) -> None:
        stub = self.stub
        stub.requests.append(ReceivedRequest(self.path, dict(self.headers)))
        if stub.is_away:
            self.close_connection = True
            return
        if self.path in stub.raw_answers:
            self._send_raw(stub.raw_answers[self.path]())
        elif self.path in stub.answers:
            self._send(*stub.answers[self.path])
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._send_problem(401, f"{self.headers.get('Authorization')} is not a token of this service")
        elif self.path == SIGNED_PATH:
            self._send_snapshot()
        elif self.path == KEYS_PATH:
            self._send_json({"key_sets": stub.key_sets}, 200)
        elif self.path == STREAM_PATH and stub.streams:
            self._stream()
        elif (sha256 := self.path.removeprefix("/api/v1/artifacts/")) in stub.files:
            self._send_file(stub.files[sha256])
        else:
            self._send_problem(404, "there is no such page")

    def do_POST(self) -> None:
        stub = self.stub
        body = self.rfile.read(int(self.headers["Content-Length"]))
        stub.requests.append(ReceivedRequest(self.path, dict(self.headers)))
        if stub.is_away:
            self.close_connection = True
        elif self.path in stub.raw_answers:
            self._send_raw(stub.raw_answers[self.path]())
        elif self.path in stub.answers:
            self._send(*stub.answers[self.path])
        elif self.path == HEARTBEAT_PATH:
            stub.heartbeats.append(json.loads(body))
            self._send_json({"heartbeat_seconds": 1, "revision": stub.revision, "next": None}, 200)
        elif self.path == WINDOWS_PATH:
            stub.windows.append(json.loads(body))
            self._send_json({"accepted": True}, 201)
        else:
            self._send_problem(404, "there is no such page")

    def _send_json(self, document: dict[str, Any], status: int) -> None:
        self._send(status, {"Content-Type": "application/json"}, json.dumps(document).encode())

    def _stream(self) -> None:
        """Each new state as an event, until the service goes away or stops."""
        stub, sent = self.stub, None
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"retry: 2000\n\n")
        self.close_connection = True
        while not (stub.is_away or stub.released.wait(0.005)):
            state = stub.revision, stub.release, stub.announced, stub.fallback, stub.issued_at
            if stub.revision and state != sent:
                sent = state
                with suppress(OSError):
                    self.wfile.write(
                        b"id: %d\nevent: snapshot\ndata: %b\n\n" % (stub.revision, stub.envelope())
                    )

    def _send_snapshot(self) -> None:
        self.stub.before_snapshot()
        if self.stub.revision == 0:
            self._send_problem(503, "no pointer yet")
            return
        body = self.stub.envelope()
        etag = f'"{hashlib.sha256(body).hexdigest()}"'
        if self.headers.get("If-None-Match") == etag:
            self._send(304, {"ETag": etag}, b"")
        else:
            self._send(200, {"ETag": etag, "Content-Type": "application/json"}, body)

    def _send_file(self, content: bytes | str) -> None:
        if isinstance(content, bytes):
            self._send(200, {"Content-Type": "application/octet-stream"}, content)
            return
        # Half of the file and then silence, until the test releases it.
        whole = bytes(100_000)
        self.send_response(200)
        self.send_header("Content-Length", str(len(whole)))
        self.end_headers()
        self.wfile.write(whole[:50_000])
        self.wfile.flush()
        self.stub.released.wait(30)
        self.close_connection = True

    def _send_raw(self, pieces: Iterator[bytes]) -> None:
        self.close_connection = True
        with suppress(OSError):
            for piece in pieces:
                if self.stub.released.is_set():
                    break
                self.wfile.write(piece)

    def _send_problem(self, status: int, detail: str) -> None:
        body = json.dumps({"title": "problem", "status": status, "detail": detail}).encode()
        self._send(status, {"Content-Type": "application/problem+json"}, body)

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
