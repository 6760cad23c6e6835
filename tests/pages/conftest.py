from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import transaction
from django.test import Client

from accounts.models import User
from tests.pages import example_data
from tests.pages.example_data import ExampleData

SignedIn = Callable[[str], Client]


@pytest.fixture(scope="module")
def examples(django_db_setup: None, django_db_blocker: Any) -> Iterator[ExampleData]:
    """The example data and its people, created once per module. Every test leaves them unchanged."""
    with django_db_blocker.unblock(), transaction.atomic():
        example_data.create_people()
        yield example_data.create_examples()
        transaction.set_rollback(True)


@pytest.fixture
def signed_in(examples: ExampleData, db: None) -> Callable[[str], Client]:
    """A browser session of one of the example people."""

    def as_person(name: str) -> Client:
        client = Client()
        client.force_login(User.objects.get(username=name))
        return client

    return as_person
