"""Tells the code of a request when its client disconnects, so that work nobody waits for can end."""

import threading
from collections.abc import MutableMapping
from typing import Any

from common.deadlines import client_left
from crpbot.web.limits import App, Receive, Scope, Send


class NoticeDisconnects:
    """An ASGI application around Django, which runs views in threads that it cannot end.

    Django listens for the disconnect while a view runs, and passes the context of the request on to its thread.
    """

    def __init__(self, inner: App) -> None:
        self.inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        left = threading.Event()

        async def receive_and_notice() -> MutableMapping[str, Any]:
            message = await receive()
            if message["type"] == "http.disconnect":
                left.set()
            return message

        client_left.set(left)
        await self.inner(scope, receive_and_notice, send)
