"""A time limit for a whole request. The HTTP library bounds each wait alone, and a byte now and then has no end."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet


@dataclass
class Deadline:
    is_over: bool = False


class Connections:
    """The open sockets of one HTTP client.

    A request that takes too long ends as all of them are shut down, since it is not known which one it uses. Other requests
    of the same bot then fail too, and are repeated.
    """

    def __init__(self) -> None:
        self._sockets: WeakSet[socket.socket] = WeakSet()

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """Remember each new connection (https://www.encode.io/httpcore/extensions/#trace)."""
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self._sockets.add(info["return_value"].get_extra_info("socket"))

    @contextmanager
    def limit(self, seconds: float) -> Iterator[Deadline]:
        """The block's waits for the network end with an error after this time."""
        deadline = Deadline()

        def end() -> None:
            deadline.is_over = True
            for connection in list(self._sockets):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            yield deadline
        finally:
            timer.cancel()
