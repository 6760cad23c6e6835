from collections.abc import Iterator

import pytest
from django.core.cache import cache
from django.core.management.color import no_style
from django.db import connection

from accounts.models import User
from audit import triggers
from tests import factories

pytest_plugins = ["tests.processes", "tests.sharing"]


@pytest.fixture(autouse=True)
def _empty_cache() -> None:
    cache.clear()


@pytest.fixture
def committed(transactional_db: None) -> Iterator[None]:
    """A database whose transactions really commit, for races and processes.

    The triggers come out before the tables are emptied (they refuse it), and `flush` puts them back, with the rows that
    every database begins with: under the same keys, whatever ran before.
    """
    yield
    triggers.drop()
    with connection.cursor() as cursor:
        sequences = connection.introspection.sequence_list()
        for statement in connection.ops.sequence_reset_by_name_sql(no_style(), sequences):
            cursor.execute(statement)


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
