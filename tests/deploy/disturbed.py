"""A process that dies, or is overtaken, between two of its statements; and a database brought back for each trial."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.cache import cache
from django.db import connection

from audit.errors import DomainError


class Killed(BaseException):
    """As SIGKILL: no code of ours catches it, the transaction under way is gone, and so is what was to follow a commit."""


@dataclass(frozen=True)
class Kill:
    """The process dies at this statement of its act; at none where the act has fewer."""

    at: int


@dataclass(frozen=True)
class Overtake:
    """Another process does `by` at this statement outside of a transaction: where one waits for its lock, or reads ahead."""

    at: int
    by: str


Disturbance = Kill | Overtake | None


@contextmanager
def at_statement(number: int, happening: Callable[[], None], *, between: bool = False) -> Iterator[None]:
    """Have something happen before the statement of this number, counting those `between` transactions alone."""
    seen = 0

    def count(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        nonlocal seen
        if not (between and connection.in_atomic_block):
            seen += 1
            if seen == number:
                happening()
        return execute(sql, params, many, context)

    with connection.execute_wrapper(count):
        yield


def kill() -> None:
    raise Killed


def act(do: Callable[[], object], disturbed: Disturbance, others: Callable[[str], object]) -> object:
    """What `do` answers; None where it was refused, or its process died. `others` does what overtakes it."""
    try:
        match disturbed:
            case Kill(at):
                with at_statement(at, kill):
                    return do()
            case Overtake(at, by):
                with at_statement(at, lambda: _quietly(lambda: others(by)), between=True):
                    return do()
        return do()
    except DomainError:
        return None
    except Killed:
        assert not connection.in_atomic_block
        connection.close()
        cache.clear()  # the embedded profile's lives in the process
        return None


def _quietly(do: Callable[[], object]) -> None:
    try:
        do()
    except DomainError:
        return


class Ground:
    """SQLite's test database and the folder of the signing keys as they are now, to come back to in some milliseconds."""

    def __init__(self) -> None:
        self._folder = Path(settings.SIGNING_KEYS_DIR)
        self._files = {path: path.read_bytes() for path in self._folder.iterdir()}
        self._copy = sqlite3.connect(":memory:")
        connection.ensure_connection()
        connection.connection.backup(self._copy)

    def restore(self) -> None:
        connection.close()
        connection.ensure_connection()
        self._copy.backup(connection.connection)
        connection.close()
        for path in self._folder.iterdir():
            path.unlink()
        for path, content in self._files.items():
            path.write_bytes(content)
        cache.clear()

    def close(self) -> None:
        self._copy.close()
