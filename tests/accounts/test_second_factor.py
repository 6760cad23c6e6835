"""Decisions of approvers need a second factor, given a short time ago; and no way around it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from django.test import Client

from accounts import services
from accounts.identity import factors
from accounts.identity.people import count_as_one
from accounts.models import FailedCode, RoleGrant, User
from accounts.roles import Role
from audit.models import AuditEvent
from common.errors import InvalidInput
from deploy.pointer import pointer
from gates.services import policies
from tests import factories, scenarios
from tests.accounts import second_factors as app
from tests.api.callers import Caller, csrf_token
from tests.api.operations import stricter
from tests.deploy.commands import run
from tests.pages.document import Document

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

WHY = {"reason": "figures checked"}


@dataclass
class Situation:
    """A service in use with a candidate and a proposed policy; anna, an approver, has an authenticator app."""

    anna: User
    secret: str
    release: int
    policy: int

    def find_state(self) -> tuple[Any, ...]:
        """What a decision would change."""
        now = pointer.get_current()
        assert now is not None
        return now.revision, policies.policy_in_force().number


@pytest.fixture
def now(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Situation:
    monkeypatch.delenv("CRPBOT_SECOND_FACTOR", raising=False)
    scenarios.service_in_use()
    release = scenarios.awaiting_approval()
    proposed = policies.propose_policy(stricter(), actor=scenarios.SECOND_APPROVER, reason="more is needed")
    settings.REQUIRE_SECOND_FACTOR = True
    anna = factories.person("anna", "approver")
    return Situation(anna, app.set_up_app(anna), release.pk, proposed.number)


PAGES: dict[str, Callable[[Situation], tuple[str, dict[str, Any]]]] = {
    "approve": lambda now: (f"/releases/{now.release}/approve/", {**WHY, "revision": now.find_state()[0]}),
    "pin": lambda now: ("/pin/", WHY),
    "adopt": lambda now: (f"/policies/{now.policy}/adopt/", WHY),
}
API: dict[str, Callable[[Situation], tuple[str, dict[str, Any]]]] = {
    "approve": lambda now: (f"releases/{now.release}/approve/", {**WHY, "revision": now.find_state()[0]}),
    "pin": lambda now: ("pointer/pin/", WHY),
    "adopt": lambda now: (f"policies/{now.policy}/adopt/", WHY),
}
COMMANDS: dict[str, Callable[[Situation], tuple[str, ...]]] = {
    "approve": lambda now: ("approve", str(now.release), "--reason", "figures checked"),
    "pin": lambda now: ("pin", "--reason", "figures checked"),
    "adopt": lambda now: ("policies", "adopt", str(now.policy), "--reason", "figures checked"),
}


def count_refusals() -> int:
    return AuditEvent.objects.filter(
        kind__endswith=".refused", body__contains="gave no second factor"
    ).count()


def ask_api(caller: Caller, now: Situation, what: str, code: str | None = None) -> Any:
    path, body = API[what](now)
    if code:
        caller.http.defaults["HTTP_CRPBOT_SECOND_FACTOR"] = code
    return caller.post(path, body)


def use_session(browser: Client) -> Caller:
    caller = Caller(browser)
    caller.csrf_token = csrf_token(caller)
    return caller


@pytest.mark.parametrize("what", PAGES)
def test_a_page_asks_for_a_stale_factor_and_goes_on_with_the_decision(now: Situation, what: str) -> None:
    browser, before = app.sign_in(now.anna, app.show_code(now.secret, -1)), now.find_state()
    app.age(browser, 301)
    path, form = PAGES[what](now)
    asked = browser.post(path, form)
    assert (asked.status_code, asked["Location"]) == (
        302,
        f"/account/confirm/?next={path.replace('/', '%2F')}",
    )
    assert (now.find_state(), count_refusals()) == (before, 1)
    wrong = browser.post(asked["Location"], {"code": "000000", "next": path})
    assert "wrong or was used" in wrong.content.decode()
    assert now.find_state() == before
    browser.post(asked["Location"], {"code": app.show_code(now.secret), "next": path})
    assert now.find_state() != before


@pytest.mark.parametrize("what", PAGES)
def test_a_page_decides_at_once_with_a_fresh_factor(now: Situation, what: str) -> None:
    browser, before = app.sign_in(now.anna, app.show_code(now.secret)), now.find_state()
    path, form = PAGES[what](now)
    assert browser.post(path, form).status_code == 302
    assert now.find_state() != before


@pytest.mark.parametrize("what", PAGES)
def test_a_page_sends_who_has_no_factor_to_set_one_up(now: Situation, what: str) -> None:
    Authenticator.objects.all().delete()
    browser, before = app.give_password(now.anna), now.find_state()
    path, form = PAGES[what](now)
    assert browser.post(path, form)["Location"] == "/account/"
    assert "need a second factor" in browser.get("/").content.decode()
    assert (now.find_state(), count_refusals()) == (before, 1)


@pytest.mark.parametrize("what", API)
def test_the_api_refuses_a_session_with_a_stale_factor(now: Situation, what: str) -> None:
    browser, before = app.sign_in(now.anna, app.show_code(now.secret)), now.find_state()
    app.age(browser, 301)
    answer = ask_api(use_session(browser), now, what)
    assert (answer.status_code, answer.json()["title"]) == (403, "Second factor needed")
    assert (now.find_state(), count_refusals()) == (before, 1)


@pytest.mark.parametrize("what", API)
@pytest.mark.parametrize("code", ["", "000000"], ids=["without a code", "with a wrong code"])
def test_the_api_refuses_a_token(now: Situation, what: str, code: str) -> None:
    before = now.find_state()
    answer = ask_api(Caller(Client(), factories.token(now.anna, "approver")), now, what, code)
    assert answer.status_code == 403, answer.content
    assert now.find_state() == before


@pytest.mark.postgresql
@pytest.mark.parametrize("what", API)
def test_the_api_decides_for_a_token_with_a_code_which_counts_once(now: Situation, what: str) -> None:
    caller, before, code = (
        Caller(Client(), factories.token(now.anna, "approver")),
        now.find_state(),
        app.show_code(now.secret),
    )
    assert ask_api(caller, now, what, code).status_code == 200
    after = now.find_state()
    assert after != before
    again = ask_api(caller, now, "pin", code)
    assert (again.status_code, "used already" in again.json()["detail"]) == (403, True)
    assert now.find_state() == after


@pytest.mark.parametrize("what", COMMANDS)
@pytest.mark.parametrize("code", ["", "000000"], ids=["without a code", "with a wrong code"])
def test_a_command_refuses_a_token(
    now: Situation, what: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = now.find_state()
    monkeypatch.setenv("CRPBOT_TOKEN", factories.token(now.anna, "approver"))
    monkeypatch.setenv("CRPBOT_SECOND_FACTOR", code)
    assert run(*COMMANDS[what](now))[0] == 1
    assert now.find_state() == before


@pytest.mark.parametrize("what", COMMANDS)
def test_a_command_decides_with_a_code(now: Situation, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = now.find_state()
    monkeypatch.setenv("CRPBOT_TOKEN", factories.token(now.anna, "approver"))
    monkeypatch.setenv("CRPBOT_SECOND_FACTOR", app.show_code(now.secret))
    status, said = run(*COMMANDS[what](now))
    assert status == 0, said
    assert now.find_state() != before


@pytest.mark.postgresql
def test_a_code_counts_once_for_page_api_and_command_together(
    now: Situation, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, before = app.show_code(now.secret), now.find_state()
    app.sign_in(now.anna, code)
    assert (
        "used already" in app.give_password(now.anna).post("/sign-in/code/", {"code": code}).content.decode()
    )
    token = factories.token(now.anna, "approver")
    assert ask_api(Caller(Client(), token), now, "pin", code).status_code == 403
    monkeypatch.setenv("CRPBOT_TOKEN", token)
    monkeypatch.setenv("CRPBOT_SECOND_FACTOR", code)
    assert run("pin", "--reason", "x")[0] == 1
    assert now.find_state() == before


def test_an_earlier_code_than_the_last_used_one_does_not_count(now: Situation) -> None:
    app.sign_in(now.anna, app.show_code(now.secret))
    late = app.give_password(now.anna).post("/sign-in/code/", {"code": app.show_code(now.secret, -1)})
    assert "used already" in late.content.decode()


@pytest.mark.postgresql
def test_a_recovery_code_counts_once(now: Situation) -> None:
    code = app.set_up_recovery_codes(now.anna)[0]
    app.sign_in(now.anna, code)
    assert (
        "used already" in app.give_password(now.anna).post("/sign-in/code/", {"code": code}).content.decode()
    )


@pytest.mark.postgresql
def test_wrong_codes_end_the_guessing_in_every_browser(now: Situation) -> None:
    browsers = [app.give_password(now.anna) for _ in range(2)]
    for number in range(factors.MOST_FAILURES):
        browsers[number % 2].post("/sign-in/code/", {"code": f"{number:06}"})
    assert FailedCode.objects.count() == factors.MOST_FAILURES
    right = browsers[0].post("/sign-in/code/", {"code": app.show_code(now.secret)})
    assert "Try again in an hour" in right.content.decode()


def test_the_password_alone_opens_nothing(now: Situation) -> None:
    browser = app.give_password(now.anna)
    for path in ("/", "/account/", "/account/app/remove/", "/account/confirm/"):
        assert browser.get(path)["Location"].startswith("/sign-in/"), path
    assert browser.get("/api/v1/coins/").status_code == 401
    assert browser.post("/pin/", WHY)["Location"].startswith("/sign-in/")


def test_the_factor_of_somebody_else_in_the_same_browser_does_not_count(now: Situation) -> None:
    browser, before = app.sign_in(now.anna, app.show_code(now.secret)), now.find_state()
    arthur = factories.person("arthur", "approver")
    browser.force_login(arthur)
    assert browser.post("/pin/", WHY)["Location"] == "/account/"
    assert now.find_state() == before


def test_a_password_confirms_nothing_for_who_has_a_factor(now: Situation) -> None:
    browser, before = app.sign_in(now.anna, app.show_code(now.secret)), now.find_state()
    app.age(browser, 301)
    answer = browser.post("/account/confirm/password/", {"password": factories.PASSWORD})
    assert answer["Location"].startswith("/account/confirm/")
    browser.post("/pin/", WHY)
    assert now.find_state() == before


def test_removing_the_app_takes_the_app(now: Situation) -> None:
    browser = app.sign_in(now.anna, app.show_code(now.secret))
    app.age(browser, 301)
    assert browser.post("/account/app/remove/")["Location"].startswith("/account/confirm/")
    assert Authenticator.objects.filter(user=now.anna).exists()


@pytest.mark.postgresql
def test_an_administrator_removes_a_lost_factor_and_ends_the_sessions(now: Situation) -> None:
    browser = app.sign_in(now.anna, app.show_code(now.secret))
    assert run("people", user="anna", remove_factors=True)[0] == 0
    assert browser.get("/")["Location"].startswith("/sign-in/")
    assert not Authenticator.objects.exists()
    assert AuditEvent.objects.filter(kind="user.factors_removed").exists()


def test_setting_up_an_app_is_an_event_and_uses_up_its_code(
    now: Situation, django_capture_on_commit_callbacks: Any
) -> None:
    Authenticator.objects.all().delete()
    browser = app.give_password(now.anna)
    page = browser.get("/account/app/").content.decode()
    secret = page.split('id="app-key">')[1].split("<")[0]
    code = app.show_code(secret)
    with django_capture_on_commit_callbacks(execute=True):
        assert browser.post("/account/app/", {"code": code})["Location"] == "/account/recovery-codes/"
    added = AuditEvent.objects.filter(kind="user.factor_added").order_by("-seq")[:2]
    assert [event.actor for event in added] == ["anna", "anna"], "the app and the recovery codes"
    assert (
        "used already" in app.give_password(now.anna).post("/sign-in/code/", {"code": code}).content.decode()
    )


def test_the_pages_of_factors_keep_the_policy_of_all_pages(now: Situation) -> None:
    app.set_up_recovery_codes(now.anna)
    waiting, browser = app.give_password(now.anna), app.sign_in(now.anna, app.show_code(now.secret))
    own = ["app/remove/", "keys/add/", "recovery-codes/", "recovery-codes/new/", "confirm/"]
    visited = [("sign-in/code/", waiting)] + [(f"account/{path}", browser) for path in own]
    plain = app.give_password(factories.person("arthur", "approver"))
    visited += [("account/app/", plain), ("account/confirm/password/", plain)]
    for path, client in visited:
        answer = client.get(f"/{path}")
        assert answer.status_code == 200, path
        page = Document(answer.content.decode())
        assert page.inline == [], path
        assert {field.get("id") for field in page.fields} <= page.labelled, path
        assert len(page.ids) == len(set(page.ids)), path
        assert "'unsafe-inline'" not in answer["Content-Security-Policy"]


@pytest.mark.postgresql
def test_a_copy_of_the_database_holds_no_secret_of_an_app(now: Situation) -> None:
    app.set_up_recovery_codes(now.anna)
    stored = str(list(Authenticator.objects.values()))
    assert now.secret not in stored
    assert all(row.data.get("seed", "gAAAA").startswith("gAAAA") for row in Authenticator.objects.all())


def test_a_service_account_cannot_sign_in_or_become_an_approver(now: Situation) -> None:
    services.create_user("robot", password=None, roles=[], actor="admin", is_service=True)
    assert Client().post("/sign-in/", {"username": "robot", "password": ""}).status_code == 400
    for options in (
        {"role": ["approver"]},
        {"role": ["administrator"]},
        {"role": ["operator"]},
        {"token": "approver"},
    ):
        assert run("people", user="robot", **options)[0] == 1, options
    with pytest.raises(InvalidInput, match="cannot sign in"):
        services.set_password(User.objects.get(username="robot"), factories.PASSWORD, actor="admin")
    assert not RoleGrant.objects.filter(user__username="robot").exists()


@pytest.mark.parametrize("way", ["page", "api", "command"])
def test_a_second_account_of_the_launcher_cannot_approve(
    now: Situation, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    olivia, before = factories.person("olivia", "operator"), now.find_state()  # who launched the release
    count_as_one(now.anna, olivia, actor="admin")
    if way == "page":
        path, form = PAGES["approve"](now)
        said = app.sign_in(now.anna, app.show_code(now.secret)).post(path, form).content.decode()
    elif way == "api":
        caller = Caller(Client(), factories.token(now.anna, "approver"))
        said = ask_api(caller, now, "approve", app.show_code(now.secret)).content.decode()
    else:
        monkeypatch.setenv("CRPBOT_TOKEN", factories.token(now.anna, "approver"))
        monkeypatch.setenv("CRPBOT_SECOND_FACTOR", app.show_code(now.secret))
        said = run(*COMMANDS["approve"](now))[1]
    assert "anna is the same person as olivia, who launched" in said
    assert now.find_state() == before


def test_a_second_account_of_who_proposed_a_policy_cannot_adopt_it(now: Situation) -> None:
    before = now.find_state()
    count_as_one(factories.person("arthur", "approver"), now.anna, actor="admin")
    caller = Caller(Client(), factories.token(now.anna, "approver"))
    answer = ask_api(caller, now, "adopt", app.show_code(now.secret))
    assert "same person as arthur" in answer.json()["detail"]
    assert now.find_state() == before


@pytest.mark.postgresql
def test_what_a_service_account_launches_counts_for_who_is_responsible(now: Situation) -> None:
    robot = services.create_user("olivia", password=None, roles=[], actor="admin", is_service=True)
    count_as_one(robot, now.anna, actor="admin")
    services.grant(robot, Role.OPERATOR, actor="admin")
    caller = Caller(Client(), factories.token(now.anna, "approver"))
    answer = ask_api(caller, now, "approve", app.show_code(now.secret))
    assert "same person as olivia" in answer.json()["detail"]
