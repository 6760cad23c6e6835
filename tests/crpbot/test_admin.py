"""The admin is read-only."""

import pytest
from django.test import Client

from accounts.models import User
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def root() -> User:
    root = factories.person("root")
    root.is_staff = root.is_superuser = True
    root.save()
    return root


@pytest.mark.parametrize(
    "path",
    [
        "/admin/password_change/",
        "/admin/auth/group/add/",
        "/admin/accounts/user/add/",
        "/admin/audit/auditevent/add/",
    ],
)
def test_even_a_superuser_finds_no_form_that_changes_anything(client: Client, root: User, path: str) -> None:
    client.force_login(root)
    assert client.get(path).status_code in (403, 404)


def test_a_superuser_cannot_delete_or_change_a_row(client: Client, root: User) -> None:
    client.force_login(root)
    assert client.post(f"/admin/accounts/user/{root.pk}/delete/", {"post": "yes"}).status_code == 403
    assert client.post(f"/admin/accounts/user/{root.pk}/change/", {"username": "other"}).status_code == 403
    assert User.objects.get().username == "root"
