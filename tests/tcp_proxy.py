"""A TCP proxy before a real server, which can be slow, freeze, or cut answers: as another system fails in production."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from typing import Self

SLOW_SECONDS = 0.3
"""For each part of an answer."""


class Fault(StrEnum):
    NONE = "none"
    SLOW = "slow"
    FREEZE = "hangs"  # connections are accepted, and nothing is answered
    CUT = "cuts answers"  # half of a part is sent, then the connection is reset
    DOWN = "is down"  # connections are reset at once


class Proxy:
    """Listens on a port of its own and passes everything on to one server. As a context manager it stops at the end."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._changed = threading.Condition()
        self._fault = Fault.NONE
        self._open: set[socket.socket] = set()
        self._server = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self._server.getsockname()[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.close()
        self.set(Fault.NONE)
        self.cut_connections()

    def set(self, fault: Fault) -> None:
        """Behave like this from now on, on open connections too."""
        with self._changed:
            self._fault = fault
            self._changed.notify_all()
        if fault == Fault.DOWN:
            self.cut_connections()

    @contextmanager
    def failing(self, fault: Fault) -> Iterator[None]:
        self.set(fault)
        try:
            yield
        finally:
            self.set(Fault.NONE)

    def cut_connections(self) -> None:
        """Reset every open connection, as a restarted server does."""
        with self._changed:
            connections, self._open = self._open, set()
        for connection in connections:
            _reset(connection)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            if self._wait_while_frozen() == Fault.DOWN:
                raise ConnectionResetError
            server = self._connect()
        except OSError:
            _reset(client)
            return
        with self._changed:
            self._open |= {client, server}
        threading.Thread(target=self._pump, args=(client, server, False), daemon=True).start()
        self._pump(server, client, True)

    def _pump(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        try:
            while data := source.recv(65_536):
                fault = self._wait_while_frozen()
                if is_answer and fault == Fault.SLOW:
                    time.sleep(SLOW_SECONDS)
                if is_answer and fault == Fault.CUT:
                    target.sendall(data[: len(data) // 2])
                    break
                target.sendall(data)
        except OSError:
            pass
        with self._changed:
            self._open -= {source, target}
        _reset(source)
        _reset(target)

    def _wait_while_frozen(self) -> Fault:
        with self._changed:
            self._changed.wait_for(lambda: self._fault != Fault.FREEZE)
            return self._fault


def connect_to(address: tuple[str, int] | str) -> Callable[[], socket.socket]:
    """How to reach a server: host and port, or the path of its Unix socket."""

    def connect() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        try:
            connection.connect(address)
        except OSError:
            connection.close()
            raise
        return connection

    return connect


def _reset(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
