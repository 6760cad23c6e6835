import gc
import re
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.cache import cache
from django.core.management.color import Style
from django.db import connection
from pytest_django import DjangoDbBlocker

from accounts.models import User
from audit import triggers
from deploy.alarms import clock
from tests import factories, scenarios

pytest_plugins = ["tests.processes", "tests.backups", "tests.xdist_groups"]


MARKED = {"postgresql": r"\bmark\.postgresql\b", "long": r"\bmark\.long\b|\blong_except\b"}
"""How a module with such tests is recognized: marks are written in it, or made by `long_except`."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A run of tests with a mark imports no module without them, which would take it longer than many tests."""
    marked = MARKED.get(config.option.markexpr.split(" ")[0])
    if marked and collection_path.name.startswith("test_") and collection_path.suffix == ".py":
        return re.search(marked, collection_path.read_text()) is None or None
    return None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Thousands of tests are made here and stay: nothing among them is garbage, then or later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True)
def _forget_earlier_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process remembers: its cache, and that an earlier test shifted the clock."""
    cache.clear()
    monkeypatch.setattr(clock, "_jumps", clock.JumpDetector())


@pytest.fixture(autouse=True)
def _lease_outlasts_a_transaction(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is committed, the renewal of a lease would wait for the test's own transaction."""
    if "transactional_db" not in request.fixturenames:
        monkeypatch.setattr(settings, "LEASE_SECONDS", 600.0)


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> None:
    """The database that pytest-django makes, to be emptied in a way of our own; and the rows that many tests begin with."""
    connection.ops.sql_flush = _emptying  # type: ignore[method-assign]
    with django_db_blocker.unblock():
        scenarios.record_first_day()


def _emptying(style: Style, tables: Sequence[str], **options: Any) -> list[str]:
    """Rows out, where there are any, and the keys start over: what comes after finds a fresh database.

    Django would truncate, for which PostgreSQL makes every table and index a new file.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT " + ", ".join(f'EXISTS (SELECT 1 FROM "{table}")' for table in tables))
        filled = [table for table, has_rows in zip(tables, cursor.fetchone(), strict=True) if has_rows]
    sequences = connection.introspection.sequence_list()
    return [f'DELETE FROM "{table}"' for table in filled] + connection.ops.sequence_reset_by_name_sql(
        style, sequences
    )


@pytest.fixture
def committed(transactional_db: None) -> Iterator[None]:
    """A database whose transactions really commit, for races and processes.

    The triggers come out before the tables are emptied (they refuse it), and `flush` puts them back, with the rows that
    every database begins with.
    """
    yield
    triggers.drop()


@pytest.fixture
def viewer(db: None) -> User:
    return factories.person("victor", "viewer")


@pytest.fixture
def operator(db: None) -> User:
    return factories.person("olivia", "operator")


@pytest.fixture
def approver(db: None) -> User:
    return factories.person("anna", "approver")


@pytest.fixture
def second_approver(db: None) -> User:
    return factories.person("arthur", "approver")
