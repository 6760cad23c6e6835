"""A bot's end of a stream, without a network: what the edge was asked to send, and a socket that can be full."""

import asyncio
import json
from itertools import groupby
from types import TracebackType
from typing import Any

from crpbot_runtime.protocol.envelope import SignedSnapshot, verify_envelope
from crpbot_runtime.protocol.public_keys import PublicKeys
from deploy.edge.application import STREAM_PATH, Edge
from deploy.serving import keys

PATIENCE_SECONDS = 20.0
"""Of a test on a busy machine; nothing here is a measurement."""


class Stream:
    """One open stream. Use as a context: leaving it is the bot going away."""

    def __init__(self, application: Edge, token: str, *, method: str = "GET") -> None:
        self._application, self._token, self._method = application, token, method
        self._gone = asyncio.Event()
        self.bodies: list[bytes] = []
        self.start: dict[str, Any] = {}
        self.has_room = asyncio.Event()
        self.has_room.set()
        self.is_complete = False

    async def __aenter__(self) -> "Stream":
        self.task = asyncio.create_task(self._application(self._scope(), self._receive, self._send))
        await self.until(lambda: self.start, "the beginning of an answer")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gone.set()
        self.has_room.set()
        await asyncio.wait_for(self.task, PATIENCE_SECONDS)

    @property
    def status(self) -> int:
        return int(self.start["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.start["headers"]}

    @property
    def events(self) -> list[bytes]:
        return [body for body in self.bodies if b"event: snapshot" in body]

    @property
    def revisions(self) -> list[int]:
        return [int(event.split(b"\n")[0].removeprefix(b"id: ")) for event in self.events]

    @property
    def moves(self) -> list[int]:
        """The revisions in order, each once in a row: an envelope is signed and sent again every minute."""
        return [revision for revision, _ in groupby(self.revisions)]

    @property
    def problem(self) -> Any:
        return json.loads(b"".join(self.bodies))

    def signed(self) -> SignedSnapshot:
        """The newest envelope, as the bot's own verifier reads it."""
        (data,) = [line for line in self.events[-1].split(b"\n") if line.startswith(b"data: ")]
        return verify_envelope(
            data.removeprefix(b"data: "), PublicKeys([key.public_hex for key in keys.list_active()])
        )

    async def until(self, condition: Any, what: str) -> None:
        for _ in range(int(PATIENCE_SECONDS / 0.01)):
            if condition():
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"waited in vain for {what}; came: {self.revisions}")

    async def hears(self, revision: int) -> None:
        await self.until(lambda: self.revisions and self.revisions[-1] == revision, f"revision {revision}")

    async def _receive(self) -> Any:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        await self.has_room.wait()
        if message["type"] == "http.response.start":
            self.start = message
        elif message.get("body"):
            self.bodies.append(message["body"])
        self.is_complete = message["type"] == "http.response.body" and not message.get("more_body", False)

    def _scope(self) -> dict[str, Any]:
        return {
            "type": "http",
            "method": self._method,
            "path": STREAM_PATH,
            "headers": [(b"host", b"localhost"), (b"authorization", f"Bearer {self._token}".encode())],
            "query_string": b"",
            "http_version": "1.1",
            "scheme": "http",
            "server": ("localhost", 80),
        }
