from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import transaction
from django.test import Client

from accounts.models import User
from tests.pages import scene

SignedIn = Callable[[str], Client]


@pytest.fixture(scope="module")
def desk(django_db_setup: None, django_db_blocker: Any) -> Iterator[scene.Scene]:
    """The scene with its people, made once for a module: each of its tests leaves it as it found it."""
    with django_db_blocker.unblock(), transaction.atomic():
        scene.people()
        yield scene.desk()
        transaction.set_rollback(True)


@pytest.fixture
def signed_in(desk: scene.Scene, db: None) -> Callable[[str], Client]:
    """A browser session of one of the scene's people."""

    def as_person(name: str) -> Client:
        client = Client()
        client.force_login(User.objects.get(username=name))
        return client

    return as_person
