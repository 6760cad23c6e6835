import pytest
from django.test import Client

from accounts.models import User
from tests import factories
from tests.api.callers import Caller, signed_in, with_token


@pytest.fixture
def anonymous() -> Caller:
    return Caller(Client())


@pytest.fixture
def bot(db: None) -> Caller:
    return with_token(factories.person("trader"), "bot")


@pytest.fixture
def as_viewer(viewer: User) -> Caller:
    return signed_in(viewer)


@pytest.fixture
def as_operator(operator: User) -> Caller:
    return with_token(operator, "operator")


@pytest.fixture
def as_approver(approver: User) -> Caller:
    return with_token(approver, "approver")
