"""People, roles and tokens: what they give, and that every change is in the audit."""

from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection

from accounts import services, tokens
from accounts.models import ApiToken
from accounts.roles import Actor, Role, Scope, limit_roles
from audit import services as audit
from audit.models import AuditEvent
from common.errors import Conflict, InvalidInput, NotAllowed, NotFound
from tests import factories

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql]


def kinds() -> list[str]:
    return list(AuditEvent.objects.order_by("seq").values_list("kind", flat=True))


@pytest.mark.parametrize(
    ("scope", "held", "counts"),
    [
        (Scope.BOT, {Role.OPERATOR, Role.APPROVER}, set()),
        (Scope.OPERATOR, {Role.OPERATOR, Role.APPROVER}, {Role.VIEWER, Role.OPERATOR}),
        (Scope.APPROVER, {Role.OPERATOR}, set()),
        (Scope.APPROVER, {Role.APPROVER}, {Role.VIEWER, Role.APPROVER}),
    ],
    ids=["a bot's token", "an operator's", "an approver's without the role", "an approver's"],
)
def test_a_token_gives_what_its_scope_and_its_person_both_allow(
    scope: Scope, held: set[Role], counts: set[Role]
) -> None:
    assert limit_roles(scope, held) == counts


def test_a_refusal_names_the_role_that_is_missing() -> None:
    with pytest.raises(
        NotAllowed, match=r"victor may not approve a release: that needs the approver role \(held: viewer\)"
    ):
        Actor("victor", frozenset({Role.VIEWER})).require(Role.APPROVER, "approve a release")


def test_a_new_person_is_in_the_audit_with_every_role() -> None:
    factories.person("olivia", "operator", "viewer")
    assert kinds()[-3:] == ["user.created", "role.granted", "role.granted"]
    assert audit.verify() == []


def test_a_flood_of_invalid_tokens_never_makes_a_query_large() -> None:
    _, raw = services.issue_token(factories.person("bot"), Scope.BOT, name="a", actor="admin")
    genuine, held = services.hash_token(raw), list[int]()

    def count(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        held.append(len(params))
        return execute(sql, params, many, context)

    made_up = [f"{number:064x}" for number in range(2 * tokens.PER_QUERY)]
    with connection.execute_wrapper(count):
        assert list(services.find_owners([*made_up, genuine])) == [genuine]
    assert tokens.PER_QUERY < max(held) < tokens.PER_QUERY + 10
    assert services.find_owners([]) == {}


def test_a_name_is_taken_once() -> None:
    factories.person("olivia")
    with pytest.raises(Conflict, match="already"):
        factories.person("olivia")


def test_granting_what_is_held_and_withdrawing_what_is_not_leave_no_event() -> None:
    olivia = factories.person("olivia", "operator")
    before = kinds()
    services.grant(olivia, Role.OPERATOR, actor="admin")
    services.withdraw(olivia, Role.APPROVER, actor="admin")
    assert kinds() == before
    services.withdraw(olivia, Role.OPERATOR, actor="admin")
    assert kinds()[-1] == "role.withdrawn"


def test_a_superuser_holds_no_role_by_that() -> None:
    root = factories.person("root")
    root.is_superuser = True
    root.save()
    assert services.build_actor(root).roles == frozenset()


def test_a_token_is_shown_once_and_stored_hashed() -> None:
    olivia = factories.person("olivia", "operator")
    token, raw = services.issue_token(olivia, Scope.OPERATOR, name="laptop", actor="admin")
    assert raw not in str(token.__dict__)
    assert raw not in "".join(AuditEvent.objects.values_list("body", flat=True))
    found = services.authenticate(raw)
    assert found is not None
    assert found[1].has(Role.OPERATOR)
    assert not found[1].has(Role.APPROVER)


def test_a_scope_beyond_the_persons_roles_is_not_issued() -> None:
    with pytest.raises(InvalidInput, match="is not an approver"):
        services.issue_token(factories.person("olivia", "operator"), Scope.APPROVER, name="x", actor="admin")
    assert not ApiToken.objects.exists()


def test_revoked_expired_unknown_and_inactive_tokens_name_nobody() -> None:
    olivia = factories.person("olivia", "operator")
    revoked, raw = services.issue_token(olivia, Scope.BOT, name="a", actor="admin")
    services.revoke_token(revoked, actor="admin")
    _, expired = services.issue_token(olivia, Scope.BOT, name="b", actor="admin", lifetime=timedelta(0))
    _, current = services.issue_token(olivia, Scope.BOT, name="c", actor="admin", lifetime=timedelta(hours=1))
    assert services.authenticate(raw) is None
    assert services.authenticate(expired) is None
    assert services.authenticate("crp_bot_made_up") is None
    assert services.authenticate(current) is not None
    olivia.is_active = False
    olivia.save()
    assert services.authenticate(current) is None


def test_withdrawing_a_role_ends_what_a_token_may_do_at_once() -> None:
    anna = factories.person("anna", "approver")
    _, raw = services.issue_token(anna, Scope.APPROVER, name="a", actor="admin")
    services.withdraw(anna, Role.APPROVER, actor="admin")
    found = services.authenticate(raw)
    assert found is not None
    assert found[1].roles == frozenset()


def test_the_people_command_adds_grants_and_issues(monkeypatch: pytest.MonkeyPatch) -> None:
    out = StringIO()
    monkeypatch.setattr("sys.stdin", StringIO(f"{factories.PASSWORD}\n"))
    call_command("people", add="olivia", role=["operator"], token="operator", stdout=out)
    raw = out.getvalue().rsplit(" ", 1)[-1].strip()
    found = services.authenticate(raw)
    assert found is not None
    assert found[1].has(Role.OPERATOR)


def test_an_unknown_person_is_said_so() -> None:
    with pytest.raises(NotFound, match="no active user 'nobody'"):
        services.find_user("nobody")


def test_the_people_command_lists_and_revokes_tokens_and_closes_accounts() -> None:
    _, raw = services.issue_token(factories.person("bot"), Scope.BOT, name="a", actor="admin")
    out = StringIO()
    call_command("people", tokens=True, stdout=out)
    number = ApiToken.objects.get().pk
    assert f"token {number}: bot's bot token a" in out.getvalue()
    call_command("people", revoke=number, stdout=out)
    assert services.authenticate(raw) is None
    call_command("people", close="bot", stdout=out)
    assert "(closed)" in out.getvalue()
    assert kinds()[-2:] == ["token.revoked", "user.closed"]


@pytest.mark.parametrize("days", [0, -3, 999_999_999])
def test_a_token_for_days_that_are_of_no_use_is_not_issued(days: int) -> None:
    factories.person("bot")
    said = StringIO()
    with pytest.raises(SystemExit):
        call_command("people", user="bot", token="bot", days=days, stderr=said)
    assert "choose from 1 to 3,650" in said.getvalue()
    assert not ApiToken.objects.exists()


@pytest.mark.parametrize(
    ("name", "password", "says"),
    [
        ("olivia", "short", "at least 12 characters"),
        ("olivia-operator", "olivia-operator1", "too similar"),
        ("the gate", None, "valid username"),
        ("Reconcile", None, "The service itself uses"),
        ("", None, "valid username"),
    ],
)
def test_a_name_or_password_that_does_not_do_is_refused_and_nobody_is_made(
    name: str, password: str | None, says: str
) -> None:
    before = kinds()
    with pytest.raises(InvalidInput, match=says):
        services.create_user(name, password=password, roles=[], actor="admin")
    assert kinds() == before


def test_a_new_password_holds_and_leaves_an_event() -> None:
    olivia = factories.person("olivia", "operator")
    services.set_password(olivia, "another long sentence", actor="admin")
    olivia.refresh_from_db()
    assert olivia.check_password("another long sentence")
    assert kinds()[-1] == "user.password_set"
