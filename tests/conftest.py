from collections.abc import Iterator

import pytest
from django.core.cache import cache

from accounts.models import User
from audit import triggers
from tests import factories

pytest_plugins = ["tests.processes"]


@pytest.fixture(autouse=True)
def _empty_cache() -> None:
    cache.clear()


@pytest.fixture
def committed(transactional_db: None) -> Iterator[None]:
    """A database whose transactions really commit, for races and processes.

    The triggers come out before the tables are emptied (they refuse it), and `flush` puts them back.
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
