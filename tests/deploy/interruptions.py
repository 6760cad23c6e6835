"""A process that dies, or is overtaken, between two of its statements; and a database brought back for each trial."""

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, Protocol

from django.conf import settings
from django.core.cache import cache
from django.db import IntegrityError, connection

from common.errors import DomainError


class Killed(BaseException):
    """As SIGKILL: no code of ours catches it, the transaction under way is gone, and so is what was to follow a commit."""


@dataclass(frozen=True)
class Kill:
    """The process dies at this statement of its act; at none where the act has fewer."""

    at: int


@dataclass(frozen=True)
class Overtake:
    """Another process does `by` at this moment: before a statement, or as a transaction begins, where one waits for a lock.

    On PostgreSQL it has a connection of its own, and a statement may be any: what it asks for while the first holds the
    lock, it gets after it. SQLite's one writer leaves it the statements between the transactions.
    """

    at: int
    by: str
    at_a_transaction: bool = False


Disturbance = Kill | Overtake | None
Wrapper = Callable[..., Any]


class Rival:
    """Another process, in a thread: it and the first take turns, so that the same trial is the same again."""

    def __init__(self, do: Callable[[], object]) -> None:
        self._do = do
        self._thread = Thread(target=self._run)
        self._pid: int | None = None
        self._failure: BaseException | None = None

    def begin(self) -> None:
        """Until it is done, or waits for the first."""
        self._thread.start()
        self.give_way()

    def give_way(self) -> None:
        while self._thread.is_alive() and not self._waits():
            self._thread.join(0.001)

    def end(self) -> None:
        """After the first holds nothing more. Raises what went wrong other than a refusal."""
        if self._thread.ident is not None:
            self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                self._pid = cursor.fetchone()[0]
            self._do()
        except BaseException as failure:  # noqa: BLE001 - raised again by who waits for it
            self._failure = failure
        finally:
            connection.close()

    def _waits(self) -> bool:
        if self._pid is None:
            return False
        with connection._nodb_cursor() as cursor:
            cursor.execute("SELECT cardinality(pg_blocking_pids(%s)) > 0", [self._pid])
            return bool(cursor.fetchone()[0])


@contextmanager
def at_statement(number: int, happening: Callable[[], object], *, between: bool = False) -> Iterator[None]:
    """Have something happen before the statement of this number, counting those `between` transactions alone."""
    seen = 0

    def count(execute: Wrapper, sql: str, params: Any, many: bool, context: Any) -> Any:
        nonlocal seen
        if not (between and connection.in_atomic_block):
            seen += 1
            if seen == number:
                happening()
        return execute(sql, params, many, context)

    with connection.execute_wrapper(count):
        yield


@contextmanager
def at_transaction(number: int, happening: Callable[[], object]) -> Iterator[None]:
    """Have something happen as the transaction of this number begins, before it has locked anything."""
    seen, begin = 0, connection.set_autocommit

    def count(autocommit: bool, *args: Any, **named: Any) -> None:
        nonlocal seen
        if not autocommit:
            seen += 1
            if seen == number:
                happening()
        begin(autocommit, *args, **named)

    connection.set_autocommit = count  # type: ignore[method-assign]
    try:
        yield
    finally:
        del connection.set_autocommit


def kill() -> None:
    raise Killed


def act(do: Callable[[], object], disturbed: Disturbance, others: Callable[[str], object]) -> object:
    """What `do` answers; None where it was refused, or its process died. `others` does what overtakes it."""
    try:
        match disturbed:
            case Kill(at):
                with at_statement(at, kill):
                    return do()
            case Overtake(by=by):
                with _overtaken(disturbed, lambda: _unless_refused(lambda: others(by))):
                    return do()
        return do()
    except DomainError as refusal:
        _require_own(refusal)
        return None
    except Killed:
        assert not connection.in_atomic_block
        connection.close()
        cache.clear()  # the embedded profile's lives in the process
        return None


@contextmanager
def _overtaken(when: Overtake, other: Callable[[], object]) -> Iterator[None]:
    is_sqlite = connection.vendor == "sqlite"
    rival = Rival(other)
    happening = other if is_sqlite else rival.begin
    moment = (
        at_transaction(when.at, happening)
        if when.at_a_transaction
        else at_statement(when.at, happening, between=is_sqlite)
    )
    try:
        with _taking_turns(rival), moment:
            yield
    finally:
        rival.end()


@contextmanager
def _taking_turns(rival: Rival) -> Iterator[None]:
    def give_way(execute: Wrapper, sql: str, params: Any, many: bool, context: Any) -> Any:
        rival.give_way()
        return execute(sql, params, many, context)

    with connection.execute_wrapper(give_way):
        yield


def _unless_refused(do: Callable[[], object]) -> None:
    try:
        do()
    except DomainError as refusal:
        _require_own(refusal)


def _require_own(refusal: BaseException) -> None:
    """The database's guards are the last ones: where one must speak, a service has let something by."""
    assert not isinstance(refusal.__cause__, IntegrityError), f"it was left to the database: {refusal}"


class Swallowed(logging.Handler):
    """What our code logs with its traceback and goes on after: kept, for it may be as wrong as what is raised."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._loggers = [logging.getLogger(name) for name in ("audit", "training", "gates", "deploy")]
        self._wrong: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, DomainError):
            error = error.__cause__
        if error is not None:
            self._wrong.append(error)

    def look(self) -> None:
        """Raise the first that was no refusal of ours."""
        wrong, self._wrong = self._wrong, []
        for error in wrong:
            raise error

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Replaces a writer of thousands of lines that nobody reads."""
        for logger in self._loggers:
            logger.addHandler(self)
            logger.propagate = False
        try:
            yield
        finally:
            for logger in self._loggers:
                logger.removeHandler(self)
                logger.propagate = True


class _Copy(Protocol):
    def restore(self) -> None: ...

    def close(self) -> None: ...


class _Backup:
    """SQLite's, in memory."""

    def __init__(self) -> None:
        self._copy = sqlite3.connect(":memory:")
        connection.ensure_connection()
        connection.connection.backup(self._copy)

    def restore(self) -> None:
        connection.ensure_connection()
        self._copy.backup(connection.connection)
        connection.close()

    def close(self) -> None:
        self._copy.close()


class _Template:
    """PostgreSQL's: a database made from another one."""

    def __init__(self) -> None:
        self._name = connection.settings_dict["NAME"]
        self._ground = f"{self._name}_ground"
        connection.close()
        self._ask(f'CREATE DATABASE "{self._ground}" TEMPLATE "{self._name}"')

    def restore(self) -> None:
        self._ask(f'DROP DATABASE "{self._name}" WITH (FORCE)')
        self._ask(f'CREATE DATABASE "{self._name}" TEMPLATE "{self._ground}"')

    def close(self) -> None:
        self._ask(f'DROP DATABASE "{self._ground}" WITH (FORCE)')

    def _ask(self, statement: str) -> None:
        with connection._nodb_cursor() as cursor:
            cursor.execute(statement)


class Ground:
    """The test's database and the folder of the signing keys as they are now, to come back to before each trial."""

    def __init__(self) -> None:
        self._folder = Path(settings.SIGNING_KEYS_DIR)
        self._files = {path: path.read_bytes() for path in self._folder.iterdir()}
        self._copy: _Copy = _Backup() if connection.vendor == "sqlite" else _Template()

    def restore(self) -> None:
        connection.close()
        self._copy.restore()
        for path in self._folder.iterdir():
            path.unlink()
        for path, content in self._files.items():
            path.write_bytes(content)
        cache.clear()

    def close(self) -> None:
        self._copy.close()
