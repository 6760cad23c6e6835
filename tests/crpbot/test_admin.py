"""The admin is read-only."""

import html
import re

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import reverse

from accounts.models import User
from deploy.releases import decide
from tests import factories, scenarios
from tests.long_tests import long_except
from tests.scenarios import APPROVER

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


LISTS = [
    f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist" for model in admin.site._registry
]


@pytest.mark.slow
@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize(
    "lookup",
    long_except(
        ["regex", "iregex", "startswith", "contains", "password__startswith"],
        lambda lookup: lookup in ("regex", "password__startswith"),
    ),
)
def test_a_list_is_filtered_by_nothing_but_its_own_filters(
    client: Client, root: User, name: str, lookup: str
) -> None:
    """Every column with patterns, and columns of related rows: Django ignores what it cannot look up."""
    client.force_login(root)
    model = next(
        model for model in admin.site._registry if name.endswith(f"_{model._meta.model_name}_changelist")
    )
    for field in model._meta.get_fields():
        answer = client.get(reverse(name), {f"{field.name}__{lookup}": "x"})
        assert answer.status_code in (302, 400), field.name


def test_a_password_hash_cannot_be_read_out_by_patterns(client: Client, root: User) -> None:
    client.force_login(root)
    answers = {
        client.get("/admin/accounts/user/", {"password__regex": pattern}).status_code
        for pattern in ("^md5", "^x", "(a+)+$")
    }
    assert answers == {400}


def test_the_audit_link_of_a_release_shows_its_approval(client: Client, viewer: User) -> None:
    User.objects.filter(pk=viewer.pk).update(is_staff=True)
    scenarios.service_in_use()
    release = scenarios.awaiting_approval()
    decide.approve(release, actor=APPROVER, reason="it passed all of them", revision=1)
    client.force_login(viewer)
    page = client.get(f"/releases/{release.pk}/").content.decode()
    address = re.search(r'href="(/admin/audit/auditevent/[^"]*)"', page)
    assert address
    events = client.get(html.unescape(address[1])).content.decode()
    assert "releasestatus.live" in events
    assert "it passed all of them" in events
