"""Who may ask what: one row for every operation of the API. A new operation without a row fails here."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import NoReverseMatch, URLPattern, URLResolver, reverse
from django.utils import timezone

from accounts import services as accounts
from accounts.authentication import IsBot
from accounts.models import ApiToken, User
from accounts.rules import Actor, Role
from audit.models import AuditEvent
from crpbot.api import urls
from deploy import services
from deploy.models import PointerMove
from deploy.pointer import pointer
from deploy.rules import Purpose
from gates.services import policy_in_force, propose_policy
from tests import factories, model_files, scenarios
from tests.api.callers import Caller, assert_problem, csrf_token, signed_in, with_token
from training import services as training
from training.models import Artifact, TrainingRun
from training.rules import JobState

pytestmark = pytest.mark.django_db

# What a caller without credentials, a bot's token, a viewer's session, an operator's and an approver's token get.
CALLERS = ("anonymous", "bot", "viewer", "operator", "approver")
# Who is nobody, whatever they were: each gets what a caller without credentials gets.
NOBODY = ("a revoked token", "an expired token", "a made-up token", "a token of a closed account")
Statuses = tuple[int, int, int, int, int]
SERVED: Statuses = (401, 200, 200, 200, 200)
READ: Statuses = (401, 403, 200, 200, 200)
OPERATED: Statuses = (401, 403, 403, 200, 403)
STARTED: Statuses = (401, 403, 403, 201, 403)
DECIDED: Statuses = (401, 403, 403, 403, 200)
OPERATED_OR_DECIDED: Statuses = (401, 403, 403, 200, 200)
ONCE: Statuses = (401, 403, 403, 200, 409)  # for both; what the operator did, the approver finds done
PROPOSED: Statuses = (401, 403, 403, 403, 201)
SAID_BY_A_BOT: Statuses = (401, 200, 403, 403, 403)
COUNTED_BY_A_BOT: Statuses = (401, 201, 403, 403, 403)

SAYS_WHY = {"reason": "figures checked"}


@dataclass
class Request:
    """A sound request: what of it is refused is refused for who asks."""

    path: str
    body: Any = None
    make_file: Callable[[], dict[str, Any]] | None = None

    def send(self, caller: Caller, method: str) -> Any:
        if self.make_file:
            return caller.upload(self.path, **self.make_file())
        if method == "PATCH":
            return caller.patch(self.path, self.body)
        return caller.get(self.path) if method == "GET" else caller.post(self.path, self.body)


def plain(path: str) -> Callable[[], Request]:
    return lambda: Request(path)


def artifact() -> Request:
    scenarios.awaiting_approval()
    first = Artifact.objects.first()
    assert first is not None
    return Request(f"artifacts/{first.sha256}")


def snapshot() -> Request:
    scenarios.service_in_use()
    return Request("active/")


def signed_snapshot() -> Request:
    scenarios.service_in_use()
    return Request("active/signed/")


def streamed_snapshot() -> Request:
    scenarios.service_in_use()
    return Request("active/stream/")


def one_release() -> Request:
    return Request(f"releases/{scenarios.awaiting_approval().pk}/")


def in_use() -> PointerMove:
    """Where the pointer stands, of a service that more than one row may have put in use."""
    return pointer.get_current() or scenarios.service_in_use()


def report() -> Request:
    in_use()
    return Request(f"releases/{scenarios.awaiting_approval().pk}/report/?against=2")


def one_diagnosis() -> Request:
    release_coin = scenarios.awaiting_approval().coins.get(coin__symbol="BTC")
    return Request(f"diagnoses/{release_coin.diagnosis_id}/")


def judge_again() -> Request:
    return Request(f"{one_diagnosis().path}judge/", {"policy": 1})


def queued_run() -> TrainingRun:
    btc = scenarios.coins()[0]
    return training.launch_run(
        coin=btc,
        dataset=scenarios.dataset(btc),
        line="v7_fixed",
        parameters={"epochs": 5},
        seed=1,
        budget=training.open_budget(),
        actor=scenarios.LAUNCHER,
    )


def of_run(path: str, body: Any = None) -> Callable[[], Request]:
    return lambda: Request(f"runs/{queued_run().pk}/{path}", body)


def failed_run() -> Request:
    run = queued_run()
    TrainingRun.objects.filter(pk=run.pk).update(state=JobState.FAILED)
    return Request(f"runs/{run.pk}/relaunch/", {"batch_size": 32})


def upload() -> Request:
    coin = scenarios.coins()[0]
    lines = [f"{1_700_000_000_000 + hour * 3_600_000},10,11,9,10,5" for hour in range(100)]
    candles = "\n".join(["timestamp,open,high,low,close,volume", *lines]).encode()
    return Request(
        "datasets/", make_file=lambda: {"coin": coin.symbol, "file": SimpleUploadedFile("btc.csv", candles)}
    )


def withdraw_dataset() -> Request:
    return Request(f"datasets/{scenarios.dataset(scenarios.coins()[0]).pk}/withdraw/", SAYS_WHY)


def drop_a_coin() -> Request:
    scenarios.service_in_use()
    return Request("coins/SOL/", {"is_required": False, "confirmed": True, **SAYS_WHY})


def import_model() -> Request:
    coin = scenarios.coins()[0]
    said = {"coin": coin.symbol, "line": "v5", "schema": "relative72"}
    file = model_files.onnx_file([model_files.LINEAR], model_files.linear_tensors())
    return Request("bundles/", make_file=lambda: {**said, "file": SimpleUploadedFile("v5.onnx", file)})


def launch() -> Request:
    for coin in scenarios.coins():
        scenarios.dataset(coin)
    return Request("releases/", {"line": "v7_fixed"})


def approve() -> Request:
    revision = scenarios.service_in_use().revision
    return Request(
        f"releases/{scenarios.awaiting_approval().pk}/approve/", {**SAYS_WHY, "revision": revision}
    )


def restore() -> Request:
    scenarios.service_in_use()
    first, second = scenarios.awaiting_approval(1), scenarios.awaiting_approval(2)
    for revision, release in enumerate((first, second), start=1):
        services.approve(release, actor=scenarios.APPROVER, reason="passed", revision=revision)
    return Request(f"releases/{first.pk}/restore/", {**SAYS_WHY, "revision": 3})


def decline() -> Request:
    scenarios.service_in_use()
    return Request(f"releases/{scenarios.awaiting_approval().pk}/decline/", SAYS_WHY)


def cancel() -> Request:
    scenarios.service_in_use()
    return Request(f"releases/{scenarios.Build(seed=3).release().pk}/cancel/", SAYS_WHY)


def register() -> Request:
    release = scenarios.Build(line="v5", purpose=Purpose.FALLBACK, seed=9).settled()
    return Request(f"releases/{release.pk}/register/", SAYS_WHY)


def stricter() -> dict[str, Any]:
    document: dict[str, Any] = policy_in_force().document
    document["gates"]["accuracy"]["above"] = 0.7
    return document


def propose() -> Request:
    return Request("policies/", {**SAYS_WHY, "document": stricter()})


def adopt() -> Request:
    proposed = propose_policy(stricter(), actor=scenarios.SECOND_APPROVER, reason="more is needed")
    return Request(f"policies/{proposed.number}/adopt/", SAYS_WHY)


def pin() -> Request:
    scenarios.service_in_use()
    return Request("pointer/pin/", SAYS_WHY)


def heartbeat() -> Request:
    return Request("bots/heartbeat/", scenarios.heartbeat_fields(scenarios.service_in_use()))


def window() -> Request:
    """Of the bot in the cast, which has sent a heartbeat."""
    now = scenarios.service_in_use()
    services.receive_heartbeat(scenarios.heartbeat(now), actor=Actor("trader", is_bot=True))
    return Request("bots/windows/", scenarios.live_window(now))


def of_move(path: str = "") -> Callable[[], Request]:
    def request() -> Request:
        return Request(f"moves/{in_use().revision}/{path}")

    return request


MATRIX: dict[tuple[str, str], tuple[Statuses, Callable[[], Request]]] = {
    ("GET", "active"): (SERVED, snapshot),
    ("GET", "active-signed"): (SERVED, signed_snapshot),
    ("GET", "active-stream"): (SERVED, streamed_snapshot),
    ("GET", "alarms"): (READ, plain("alarms/")),
    ("GET", "artifact"): (SERVED, artifact),
    ("GET", "audit"): (READ, plain("audit/")),
    ("GET", "bots"): (READ, plain("bots/")),
    ("POST", "heartbeat"): (SAID_BY_A_BOT, heartbeat),
    ("POST", "windows"): (COUNTED_BY_A_BOT, window),
    ("GET", "bundles"): (READ, plain("bundles/")),
    ("POST", "bundles"): (STARTED, import_model),
    ("GET", "coins"): (READ, plain("coins/")),
    ("POST", "coins"): (STARTED, lambda: Request("coins/", {"symbol": "DOT", **SAYS_WHY})),
    ("PATCH", "coin"): (DECIDED, drop_a_coin),
    ("GET", "datasets"): (READ, plain("datasets/")),
    ("POST", "datasets"): (STARTED, upload),
    ("POST", "withdraw-dataset"): (ONCE, withdraw_dataset),
    ("GET", "diagnoses"): (READ, plain("diagnoses/")),
    ("GET", "diagnosis"): (READ, one_diagnosis),
    ("GET", "keys"): (READ, plain("keys/")),
    ("GET", "moves"): (READ, plain("moves/")),
    ("GET", "move"): (READ, of_move()),
    ("GET", "acknowledgements"): (READ, of_move("acknowledgements/")),
    ("POST", "pin"): (DECIDED, pin),
    ("GET", "policies"): (READ, plain("policies/")),
    ("POST", "policies"): (PROPOSED, propose),
    ("GET", "policy"): (READ, plain("policies/1/")),
    ("POST", "adopt-policy"): (DECIDED, adopt),
    ("GET", "releases"): (READ, plain("releases/")),
    ("POST", "releases"): (STARTED, launch),
    ("GET", "release"): (READ, one_release),
    ("GET", "report"): (READ, report),
    ("POST", "judge-again"): (OPERATED_OR_DECIDED, judge_again),
    ("POST", "approve"): (DECIDED, approve),
    ("POST", "cancel"): (OPERATED, cancel),
    ("POST", "decline"): (DECIDED, decline),
    ("POST", "register"): (DECIDED, register),
    ("POST", "restore"): (DECIDED, restore),
    ("GET", "runs"): (READ, plain("runs/")),
    ("GET", "run"): (READ, of_run("")),
    ("POST", "cancel-run"): (OPERATED, of_run("cancel/", SAYS_WHY)),
    ("GET", "epochs"): (READ, of_run("epochs/")),
    ("GET", "log"): (READ, of_run("log/")),
    ("POST", "relaunch-run"): (STARTED, failed_run),
    ("GET", "workers"): (READ, plain("workers/")),
    ("GET", "schema"): (READ, plain("/api/schema/")),
}
# A page, for people: a visitor who is not signed in is sent to sign in.
PAGES = {"docs"}
CATCH_ALL = {"nowhere"}


METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"}


def endpoints() -> Iterator[tuple[str, Any]]:
    """The name and view class of every address below api/."""
    entries = list(urls.urlpatterns)
    while entries:
        entry = entries.pop()
        if isinstance(entry, URLResolver):
            entries += entry.url_patterns
        elif isinstance(entry, URLPattern):
            view: Any = entry.callback
            yield str(entry.name), getattr(view, "view_class", None) or view.cls


def operations() -> set[tuple[str, str]]:
    return {
        (method.upper(), name)
        for name, view in endpoints()
        if name not in PAGES | CATCH_ALL
        for method in ("get", "post", "put", "patch", "delete")
        if hasattr(view, method)
    }


def test_every_operation_has_its_row() -> None:
    assert operations() == set(MATRIX)


@pytest.fixture
def cast(
    anonymous: Caller, bot: Caller, viewer: User, as_operator: Caller, as_approver: Caller
) -> dict[str, Caller]:
    browser = signed_in(viewer)
    browser.csrf_token = csrf_token(browser)
    return dict(zip(CALLERS, (anonymous, bot, browser, as_operator, as_approver), strict=True))


@pytest.fixture
def nobodies(db: None) -> dict[str, Caller]:
    """Those whose token held once, or never; all of them were approvers."""
    was = factories.person("paula", "approver")
    callers = {who: with_token(was, "approver") for who in NOBODY[:2]}
    revoked, expired = ApiToken.objects.filter(user=was).order_by("id")
    accounts.revoke_token(revoked, actor="the tests")
    ApiToken.objects.filter(pk=expired.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    closed = factories.person("carl", "approver")
    made_up, of_closed = Caller(Client(), "crp_approver_made-up"), with_token(closed, "approver")
    accounts.close_account(closed, actor="the tests")
    return {**callers, **dict(zip(NOBODY[2:], (made_up, of_closed), strict=True))}


@pytest.mark.slow
@pytest.mark.parametrize(("method", "name"), MATRIX, ids=lambda value: str(value))
def test_an_operation_answers_only_those_it_is_for(
    method: str, name: str, cast: dict[str, Caller], nobodies: dict[str, Caller]
) -> None:
    statuses, prepare = MATRIX[method, name]
    request = prepare()
    for who, caller in nobodies.items():
        response = request.send(caller, method)
        assert (who, response.status_code) == (who, 401), response.content
        assert_problem(response, 401)
        assert response["WWW-Authenticate"].startswith("Bearer")
    newcomer = signed_in(factories.person("nina"))
    newcomer.csrf_token = csrf_token(newcomer)
    assert_problem(request.send(newcomer, method), 403)
    for (who, caller), status in zip(cast.items(), statuses, strict=True):
        response = request.send(caller, method)
        assert (who, response.status_code) == (who, status), response.content
        if status >= 400:
            assert_problem(response, status)


def test_somebody_without_any_role_is_told_to_ask_for_one(db: None) -> None:
    assert_problem(signed_in(factories.person("nina")).get("coins/"), 403, "needs a role")


def test_a_refused_decision_leaves_the_pointer_and_an_event(
    as_operator: Caller, operator: User, approver: User
) -> None:
    request = approve()
    assert_problem(
        request.send(as_operator, "POST"), 403, "olivia may not approve a release", "approver role"
    )
    now = pointer.get_current()
    assert now is not None
    assert now.revision == 1
    event = AuditEvent.objects.get(kind="release.approve.refused")
    assert (event.actor, event.reason) == ("olivia", "figures checked")


def test_a_role_that_was_withdrawn_is_gone_from_its_tokens_at_once(
    approver: User, as_approver: Caller
) -> None:
    assert as_approver.get("coins/").status_code == 200
    accounts.withdraw(approver, Role.APPROVER, actor="the tests")
    assert_problem(as_approver.get("coins/"), 403)


def test_a_revoked_and_an_expired_and_a_made_up_token_are_refused_alike(nobodies: dict[str, Caller]) -> None:
    said = [
        assert_problem(caller.get("coins/"), 401, "unknown, expired or revoked")
        for caller in nobodies.values()
    ]
    assert said == [said[0]] * len(NOBODY)


def test_a_persons_post_needs_the_csrf_token_of_their_browser(viewer: User, operator: User) -> None:
    request = launch()
    browser = signed_in(operator)
    assert_problem(request.send(browser, "POST"), 403, "CSRF")
    browser.csrf_token = csrf_token(browser)
    assert request.send(browser, "POST").status_code == 201


def test_an_upload_from_a_browser_needs_it_too(operator: User) -> None:
    request = upload()
    browser = signed_in(operator)
    assert_problem(request.send(browser, "POST"), 403, "CSRF")
    browser.csrf_token = csrf_token(browser)
    assert request.send(browser, "POST").status_code == 201


def test_no_address_has_a_method_that_it_does_not_name(
    anonymous: Caller, bot: Caller, as_approver: Caller, settings: Any
) -> None:
    unlimited = dict.fromkeys(settings.REST_FRAMEWORK["DEFAULT_THROTTLE_RATES"], "")
    settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, "DEFAULT_THROTTLE_RATES": unlimited}
    for name, view in endpoints():
        named = {method for method, of in MATRIX if of == name}
        for method in METHODS - named if named else ():
            assert_problem(anonymous.ask(method, _address_of(name)), 401)
            allowed = bot if IsBot in view.permission_classes else as_approver
            response = allowed.ask(method, _address_of(name))
            assert_problem(response, 405, method)
            assert set(response["Allow"].split(", ")) - {"HEAD", "OPTIONS"} == named, name


def _address_of(name: str) -> str:
    """Of anything: a method is refused before the thing is looked for."""
    for given in ({}, {"id": 1}, {"number": 1}, {"revision": 1}, {"symbol": "BTC"}, {"sha256": "0" * 64}):
        with suppress(NoReverseMatch):
            return reverse(f"api:{name}", kwargs=given)
    raise AssertionError(f"what does the address of {name} take?")
