"""Sends one request to an ASGI application, without a server."""

import asyncio
import json
from typing import Any

from deploy.edge.application import ACTIVE_PATH


class Answer:
    def __init__(self, messages: list[Any]) -> None:
        self.status: int = messages[0]["status"]
        self.headers = {name.decode().lower(): value.decode() for name, value in messages[0]["headers"]}
        self.body = b"".join(message.get("body", b"") for message in messages[1:])

    def json(self) -> Any:
        return json.loads(self.body)


async def ask(
    application: Any, *, method: str = "GET", path: str = ACTIVE_PATH, body: bytes = b"", **headers: str
) -> Answer:
    sent: list[Any] = []
    middle = len(body) // 2  # in two pieces: the network decides how many there are
    messages = iter(
        [
            {"type": "http.request", "body": body[:middle], "more_body": True},
            {"type": "http.request", "body": body[middle:], "more_body": False},
        ]
    )

    async def receive() -> Any:
        message = next(messages, None)
        if message is None:
            await asyncio.sleep(60)  # the client waits for its answer
        return message

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.replace("_", "-").lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [*raw, (b"host", b"localhost")],
        "query_string": b"",
        "http_version": "1.1",
        "scheme": "http",
        "server": ("localhost", 80),
    }
    await application(scope, receive, send)
    return Answer(sent)
