"""Tokens end by themselves, say when they were last used, and end with the password and the account."""

from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection
from django.db.models import QuerySet
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import services, tokens
from accounts.models import ApiToken
from accounts.roles import Scope
from audit.models import AuditEvent
from common.errors import InvalidInput
from deploy.alarms.detect import list_alarms
from deploy.rules import AlarmName, Severity
from tests import factories, scenarios
from tests.api.callers import Caller

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql]


@pytest.fixture(autouse=True)
def nothing_noted() -> None:
    tokens.store_uses()


def issue(name: str = "bot", **more: Any) -> tuple[ApiToken, str]:
    return services.issue_token(factories.person(name), Scope.BOT, name="the desk", actor="admin", **more)


def test_a_token_expires_after_ninety_days_unless_never_is_asked_for() -> None:
    token, _ = issue()
    assert token.expires_at is not None
    assert abs(token.expires_at - timezone.now() - timedelta(days=90)) < timedelta(minutes=1)
    endless, raw = issue("other", lifetime=None)
    assert endless.expires_at is None
    assert services.authenticate(raw)
    assert '"expires_at":null' in AuditEvent.objects.latest("seq").body


@pytest.mark.parametrize(("days", "expected"), [(None, 90), ("30", 30), ("never", None)])
def test_the_command_issues_for_ninety_days_unless_told_otherwise(
    days: str | None, expected: int | None
) -> None:
    factories.person("bot")
    call_command("people", user="bot", token="bot", stdout=StringIO(), **({"days": days} if days else {}))
    expires_at = ApiToken.objects.get().expires_at
    found = None if expires_at is None else round((expires_at - timezone.now()) / timedelta(days=1))
    assert found == expected


def test_a_token_says_when_it_was_last_used() -> None:
    token, raw = issue()
    with CaptureQueriesContext(connection) as queries:
        assert services.authenticate(raw)
    assert not [query for query in queries if query["sql"].startswith("UPDATE")], "no request waits for it"
    tokens.store_uses()
    token.refresh_from_db()
    assert token.last_used_at is not None
    first = token.last_used_at
    services.authenticate(raw)
    tokens.store_uses()
    token.refresh_from_db()
    assert token.last_used_at == first, "stored about once a minute at most"


def test_a_refused_token_was_not_used() -> None:
    token, raw = issue()
    services.revoke_token(token, actor="admin")
    assert services.authenticate(raw) is None
    assert not tokens.has_unstored_uses()


def test_a_new_password_ends_every_token_of_the_person_and_no_other() -> None:
    anna = factories.person("anna", "approver")
    _, person = services.issue_token(anna, Scope.APPROVER, name="laptop", actor="admin")
    _, bot = services.issue_token(anna, Scope.BOT, name="desk", actor="admin")
    _, other = issue("other")
    services.set_password(anna, "another long sentence", actor="admin")
    assert services.authenticate(person) is None
    assert services.authenticate(bot) is None
    assert services.authenticate(other) is not None
    ended = AuditEvent.objects.filter(kind="token.revoked")
    assert [event.reason for event in ended] == ["the password was changed"] * 2


def test_a_closed_account_ends_its_tokens_for_good() -> None:
    token, raw = issue()
    services.close_account(token.user, actor="admin")
    token.user.is_active = True  # by hand, later
    token.user.save()
    assert services.authenticate(raw) is None


@pytest.mark.parametrize("name", ["", " ", "desk\u200b", "\u202eksed", "x" * 101])
def test_a_token_whose_name_hides_something_is_not_issued(name: str) -> None:
    with pytest.raises(InvalidInput, match="all of them drawn"):
        services.issue_token(factories.person("bot"), Scope.BOT, name=name, actor="admin")


def test_the_command_lists_expiry_and_last_use() -> None:
    token, raw = issue()
    issue("other", lifetime=None)
    services.authenticate(raw)
    tokens.store_uses()
    out = StringIO()
    call_command("people", tokens=True, stdout=out)
    said = out.getvalue()
    assert f"until {token.expires_at:%Y-%m-%d}, last used {timezone.now():%Y-%m-%d}" in said
    assert "never expires, not used yet" in said


def test_the_api_and_the_page_show_expiry_and_last_use_and_no_secret() -> None:
    viewer = factories.person("victor", "viewer")
    token, raw = issue()
    services.authenticate(raw)
    tokens.store_uses()
    issue("late", lifetime=timedelta(days=3))
    issue("gone", lifetime=-timedelta(days=1))
    issue("endless", lifetime=None)
    browser = Client()
    browser.force_login(viewer)
    answer = Caller(browser).get("tokens/?owner=bot").json()
    (row,) = answer["results"]
    assert row["number"] == token.pk
    assert row["expires_at"] and row["last_used_at"]
    assert {"digest", "secret"} & set(row) == set()
    page = browser.get("/tokens/").content.decode()
    for said in ("expired", "soon", "never", "not yet", f"{token.expires_at:%Y-%m-%d}"):
        assert said in page
    assert token.digest not in page and raw not in page


@pytest.mark.slow
def test_a_bots_token_that_ends_soon_is_an_alarm_until_it_is_revoked() -> None:
    scenarios.service_in_use()

    def raised() -> list[tuple[str, str]]:
        return [(a.severity, a.sentence) for a in list_alarms() if a.name == AlarmName.TOKENS]

    issue("fresh")
    issue("endless", lifetime=None)
    person = factories.person("olivia2", "operator")
    services.issue_token(person, Scope.OPERATOR, name="x", actor="admin", lifetime=timedelta(days=1))
    issue("long-gone", lifetime=-timedelta(days=15))
    assert raised() == []
    soon, _ = issue("soon", lifetime=timedelta(days=13))
    ended, _ = issue("ended", lifetime=-timedelta(days=1))
    (critical, warning) = raised()
    assert critical[0] == Severity.CRITICAL and f"ended's token {ended.pk}" in critical[1]
    assert warning[0] == Severity.WARNING and f"soon's token {soon.pk}" in warning[1]
    for token in (soon, ended):
        services.revoke_token(token, actor="admin")
    assert raised() == []


def test_uses_that_could_not_be_stored_are_stored_later(monkeypatch: pytest.MonkeyPatch) -> None:
    token, _ = issue()
    tokens.note_use(token.digest)

    def fail(*arguments: object, **values: object) -> int:
        raise OperationalError("the database went away")

    with monkeypatch.context() as patched:
        patched.setattr(QuerySet, "update", fail)
        with pytest.raises(OperationalError):
            tokens.store_uses()
    assert tokens.has_unstored_uses()
    tokens.store_uses()
    token.refresh_from_db()
    assert token.last_used_at is not None
