"""In production, people, roles and tokens are changed by an administrator only, also from a shell."""

import io
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from accounts import services
from accounts.identity.people import count_as_one, list_other_names
from accounts.models import ApiToken, User
from accounts.roles import Role
from audit import services as audit
from audit.models import AuditEvent
from common.errors import Conflict, InvalidInput
from tests import factories
from tests.accounts import second_factors as app
from tests.deploy.commands import run

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql]


@pytest.fixture(autouse=True)
def in_production(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.IS_EMBEDDED, settings.REQUIRE_SECOND_FACTOR = False, True
    for name in ("CRPBOT_TOKEN", "CRPBOT_SECOND_FACTOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{factories.PASSWORD}\n"))


@pytest.fixture
def ada() -> User:
    return factories.person("ada", "administrator")


CHANGES: dict[str, dict[str, Any]] = {
    "a person": {"add": "eve"},
    "a service account": {"add": "eve", "service": True},
    "an administrator": {"add": "eve", "role": ["administrator"]},
    "a role": {"user": "victor", "role": ["approver"]},
    "a withdrawn role": {"user": "ada", "withdraw": ["administrator"]},
    "a token": {"user": "victor", "token": "bot"},
    "a password": {"user": "victor", "new_password": True},
    "a closed account": {"close": "victor"},
    "a revoked token": {"revoke": 1},
    "a link": {"user": "victor", "counts_as": "ada"},
    "an identity": {"user": "victor", "subject": "s-1"},
    "removed factors": {"user": "ada", "remove_factors": True},
}


def with_nothing(ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """No token, and no terminal to be asked at."""


def with_an_approvers_token(ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    anna = factories.person("anna", "approver")
    monkeypatch.setenv("CRPBOT_TOKEN", factories.token(anna, "approver"))
    monkeypatch.setenv("CRPBOT_SECOND_FACTOR", app.show_code(app.set_up_app(anna)))


def with_a_token_of_a_lesser_scope(ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRPBOT_TOKEN", factories.token(ada, "bot"))
    monkeypatch.setenv("CRPBOT_SECOND_FACTOR", app.show_code(app.set_up_app(ada)))


def with_a_token_and_no_code(ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    app.set_up_app(ada)
    monkeypatch.setenv("CRPBOT_TOKEN", factories.token(ada, "administrator"))


def with_a_token_and_a_wrong_code(ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    with_a_token_and_no_code(ada, monkeypatch)
    monkeypatch.setenv("CRPBOT_SECOND_FACTOR", "000000")


def with_a_used_code(ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    code = app.show_code(app.set_up_app(ada))
    app.sign_in(ada, code)
    monkeypatch.setenv("CRPBOT_TOKEN", factories.token(ada, "administrator"))
    monkeypatch.setenv("CRPBOT_SECOND_FACTOR", code)


def with_a_made_up_token(ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRPBOT_TOKEN", "crp_administrator_made-up")


WAYS: list[Callable[[User, pytest.MonkeyPatch], None]] = [
    with_nothing,
    with_an_approvers_token,
    with_a_token_of_a_lesser_scope,
    with_a_token_and_no_code,
    with_a_token_and_a_wrong_code,
    with_a_used_code,
    with_a_made_up_token,
]


def list_accounts() -> list[Any]:
    columns = ("username", "password", "is_active", "counts_as", "grants__role", "tokens__revoked_at")
    return list(User.objects.order_by("username", "grants__role").values(*columns))


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_nothing_is_changed(way: Any, ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    factories.token(factories.person("victor", "viewer"), "bot")
    way(ada, monkeypatch)
    before = list_accounts()
    assert {what: run("people", **options)[0] for what, options in CHANGES.items()} == dict.fromkeys(
        CHANGES, 1
    )
    assert list_accounts() == before


def test_a_refused_change_by_somebody_known_is_an_event(ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    with_an_approvers_token(ada, monkeypatch)
    run("people", add="eve")
    event = AuditEvent.objects.get(kind="people.change.refused")
    assert event.actor == "anna"


def test_an_administrator_with_a_code_changes_people_and_is_in_the_event(
    ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRPBOT_TOKEN", factories.token(ada, "administrator"))
    monkeypatch.setenv("CRPBOT_SECOND_FACTOR", app.show_code(app.set_up_app(ada)))
    status, said = run("people", add="eve", role=["viewer"])
    assert status == 0, said
    last = AuditEvent.objects.order_by("seq").last()
    assert last is not None
    assert (last.kind, last.actor, last.object_name) == ("role.granted", "ada", "eve")


def test_at_a_terminal_an_administrator_gives_name_password_and_code(
    ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = app.set_up_app(ada)
    typed = {"Administrator: ": "ada", "Code: ": app.show_code(secret)}
    passwords = {"Password: ": factories.PASSWORD, "Again: ": factories.PASSWORD}
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", typed.__getitem__)
    monkeypatch.setattr("getpass.getpass", passwords.__getitem__)
    assert run("people", add="eve")[0] == 0
    assert run("people", add="eva")[0] == 1, "the code was used"
    passwords["Password: "] = "a guess"
    typed["Code: "] = app.show_code(secret, 1)
    assert run("people", add="eva")[0] == 1


def test_the_first_administrator_is_created_without_one_and_no_second() -> None:
    status, said = run("people", add="ada", role=["administrator"], token="administrator")
    assert status == 0, said
    assert services.has_administrator()
    sys.stdin = io.StringIO(f"{factories.PASSWORD}\n")
    assert run("people", add="eve", role=["administrator"])[0] == 1


@pytest.mark.parametrize(
    "options",
    [
        {"add": "eve"},
        {"add": "eve", "role": ["administrator", "approver"]},
        {"add": "eve", "role": ["administrator"], "token": "approver"},
        {"add": "eve", "role": ["administrator"], "service": True},
        {"add": "eve", "role": ["administrator"], "close": "victor"},
        {"user": "victor", "role": ["administrator"]},
    ],
)
def test_before_the_first_administrator_nothing_else_is_done(options: dict[str, Any]) -> None:
    factories.person("victor", "viewer")
    before = list_accounts()
    status, said = run("people", **options)
    assert (status, "Create the first one" in said) == (1, True)
    assert list_accounts() == before


def test_listing_takes_nobody(ada: User) -> None:
    assert run("people", tokens=True)[0] == 0


def test_the_last_administrator_stays(ada: User) -> None:
    with pytest.raises(Conflict, match="last administrator"):
        services.close_account(ada, actor="admin")
    with pytest.raises(Conflict, match="last administrator"):
        services.withdraw(ada, Role.ADMINISTRATOR, actor="admin")
    factories.person("eve", "administrator")
    services.close_account(ada, actor="admin")
    assert services.has_administrator()


class TestAccountsOfOnePerson:
    def test_are_found_from_each_of_them_and_verified_with_the_chain(self) -> None:
        anna, annie, ann = (factories.person(name) for name in ("anna", "annie", "ann-lee"))
        count_as_one(annie, anna, actor="admin")
        count_as_one(anna, ann, actor="admin")
        assert {name: set(list_other_names(name)) for name in ("anna", "annie", "ann-lee")} == {
            "anna": {"annie", "ann-lee"},
            "annie": {"anna", "ann-lee"},
            "ann-lee": {"anna", "annie"},
        }
        assert audit.verify() == []
        assert AuditEvent.objects.filter(kind="user.linked").count() == 3

    def test_repeating_a_link_in_either_direction_changes_nothing(self) -> None:
        anna, annie = factories.person("anna"), factories.person("annie")
        count_as_one(annie, anna, actor="admin")
        before = AuditEvent.objects.count()
        count_as_one(annie, anna, actor="admin")
        count_as_one(anna, annie, actor="admin")
        assert AuditEvent.objects.count() == before

    def test_a_link_that_is_undone_in_the_table_is_found(self) -> None:
        anna, annie = factories.person("anna"), factories.person("annie")
        count_as_one(annie, anna, actor="admin")
        User.objects.update(counts_as=None)
        assert any("counts as" in sentence for sentence in audit.verify())

    def test_a_service_account_made_a_person_in_the_table_is_found(self) -> None:
        services.create_user("robot", password=None, roles=[], actor="admin", is_service=True)
        User.objects.update(is_service=False)
        assert any("service" in sentence for sentence in audit.verify())

    def test_the_responsible_person_of_a_service_account_does_not_change(self) -> None:
        anna, arthur = factories.person("anna"), factories.person("arthur")
        robot = services.create_user("robot", password=None, roles=[], actor="admin", is_service=True)
        count_as_one(robot, anna, actor="admin")
        with pytest.raises(Conflict, match="responsible for robot already"):
            count_as_one(robot, arthur, actor="admin")
        for other in (robot, anna):
            with pytest.raises(InvalidInput):
                count_as_one(anna, other, actor="admin")
        assert list_other_names("arthur") == []


def test_no_token_is_left_by_refused_commands(ada: User) -> None:
    run("people", user="ada", token="administrator")
    assert not ApiToken.objects.exists()


def test_every_command_of_the_operations_page_works_in_its_order(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(settings.BASE_DIR) / "docs" / "operations" / "identity.md").read_text()
    first, *others = [shlex.split(words) for words in re.findall(r"manage\.py (people --[^`\n]+)", page)]
    status, said = run(*first)
    assert status == 0, said
    monkeypatch.setenv("CRPBOT_TOKEN", factories.token(User.objects.get(username="ada"), "administrator"))
    settings.REQUIRE_SECOND_FACTOR = False  # the page has more commands than an app has codes within a minute
    settings.OIDC_ISSUER = "https://id.example.com"
    for name in ("anna", "anna-admin"):
        factories.person(name)
    assert len(others) > 4
    for command in others:
        status, said = run(*command)
        assert status == 0, (command, said)
