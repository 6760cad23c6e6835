"""Every operation of the API: a valid request for it, and the status that each caller gets."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import URLPattern, URLResolver
from django.utils import timezone

from accounts.roles import Actor, Role
from crpbot.api import urls
from deploy.bots import key_decisions
from deploy.bots.heartbeats import receive_heartbeat
from deploy.models import Bot, PointerMove, SigningKey
from deploy.pointer import pointer
from deploy.releases import decide
from deploy.rules import Purpose
from deploy.serving import keys
from gates.services.policies import policy_in_force, propose_policy
from machines.configuration import Configuration
from machines.control import lives
from machines.rules import Market
from studies.services import launch as studies
from tests import factories, model_files, scenarios
from tests.api.callers import Caller
from training.models import Artifact, TrainingRun
from training.rules import JobState
from training.services import runs

# What a caller without credentials, a bot's token, a viewer's session, an operator's and an approver's token get.
CALLERS = ("anonymous", "bot", "viewer", "operator", "approver")
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

ADMINISTERED: Statuses = (
    401,
    403,
    403,
    403,
    403,
)  # tests/crpbot/test_backup_schedule.py has an administrator
NOT_CONFIGURED: Statuses = (401, 403, 403, 409, 403)  # a test of its own starts one that is configured

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


def statement() -> Request:
    release_coin = scenarios.awaiting_approval().coins.get(coin__symbol="BTC")
    assert release_coin.bundle is not None
    scenarios.sign_statement(release_coin.bundle)
    return Request(f"bundles/{release_coin.bundle.digest}/statement/")


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
    return runs.launch_run(
        coin=btc,
        dataset=scenarios.dataset(btc),
        line="v7_fixed",
        parameters={"epochs": 5},
        seed=1,
        budget=runs.open_budget(),
        actor=scenarios.LAUNCHER,
    )


def of_run(path: str, body: Any = None) -> Callable[[], Request]:
    return lambda: Request(f"runs/{queued_run().pk}/{path}", body)


def compare_runs() -> Request:
    return Request(f"runs/compare/?runs={queued_run().pk},{queued_run().pk}")


def launch_study() -> Request:
    dataset = scenarios.dataset(scenarios.coins()[0])
    ranges = {"learning_rate": {"kind": "log", "low": 0.0001, "high": 0.01}}
    return Request("studies/", {"line": "v7_fixed", "dataset": dataset.pk, "ranges": ranges})


def of_study(path: str, body: Any = None) -> Callable[[], Request]:
    def build() -> Request:
        study = studies.launch(
            dataset=scenarios.dataset(scenarios.coins()[0]),
            line="v7_fixed",
            ranges={"epochs": {"kind": "int", "low": 2, "high": 9}},
            actor=scenarios.LAUNCHER,
        )
        return Request(f"studies/{study.pk}/{path}", body)

    return build


def failed_run() -> Request:
    run = queued_run()
    TrainingRun.objects.filter(pk=run.pk).update(state=JobState.FAILED)
    return Request(f"runs/{run.pk}/relaunch/", {"batch_size": 32})


def upload(path: str = "datasets/") -> Request:
    coin = scenarios.coins()[0]
    lines = [f"{1_699_999_200_000 + hour * 3_600_000},10,11,9,10,5" for hour in range(100)]
    candles = "\n".join(["timestamp,open,high,low,close,volume", *lines]).encode()
    return Request(
        path, make_file=lambda: {"coin": coin.symbol, "file": SimpleUploadedFile("btc.csv", candles)}
    )


def check_upload() -> Request:
    return upload("datasets/check/")


def download() -> Request:
    scenarios.coins()
    dataset = factories.market(bars=300)
    return Request(f"datasets/{dataset.pk}/candles.csv")


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
        decide.approve(release, actor=scenarios.APPROVER, reason="passed", revision=revision)
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


def retire_bot() -> Request:
    """Of the bot in the cast, which fell silent."""
    receive_heartbeat(scenarios.heartbeat(scenarios.service_in_use()), actor=Actor("trader", is_bot=True))
    Bot.objects.update(last_heard_at=timezone.now() - timedelta(hours=1))
    bot = Bot.objects.get()
    return Request("bots/retire/", {**SAYS_WHY, "name": bot.name, "instance": bot.instance})


def window() -> Request:
    """Of the bot in the cast, which has sent a heartbeat."""
    now = scenarios.service_in_use()
    receive_heartbeat(scenarios.heartbeat(now), actor=Actor("trader", is_bot=True))
    return Request("bots/windows/", scenarios.live_window(now))


def of_key(verb: str, **fields: Any) -> Callable[[], Request]:
    """Two keys sign; the request is about the older one."""

    def request() -> Request:
        for _ in range(2):
            key = key_decisions.create_key(actor=scenarios.APPROVER, reason="yearly")
            if verb != "activate" or not keys.list_active():
                key_decisions.activate_key(key, actor=scenarios.APPROVER, reason="yearly")
        key = SigningKey.objects.all()[0 if verb == "activate" else 1]
        if verb == "approve":
            other = Actor("amelie", roles=frozenset({Role.APPROVER}))
            key_decisions.propose_retirement(key, actor=other, reason="stolen")
        return Request(f"keys/{key.key_id}/{verb}/", {**SAYS_WHY, **fields})

    return request


def stop_machine() -> Request:
    machine = lives.request(
        Configuration("us-east-1", "", "worker", "g5.xlarge", (Market.SPOT,), 300, 600, 10),
        market=Market.SPOT,
        usd_per_hour=Decimal("0.45"),
        allowed_seconds=5400,
        actor=scenarios.LAUNCHER,
        reason="a rehearsal",
    )
    return Request(f"machines/{machine.pk}/stop/", SAYS_WHY)


def set_price() -> Request:
    body = {"instance_type": "g5.xlarge", "region": "us-east-1", "market": "spot", "usd_per_hour": 0.45}
    return Request("machines/prices/", {**SAYS_WHY, **body})


def of_move(path: str = "") -> Callable[[], Request]:
    def request() -> Request:
        return Request(f"moves/{in_use().revision}/{path}")

    return request


MATRIX: dict[tuple[str, str], tuple[Statuses, Callable[[], Request]]] = {
    ("GET", "active"): (SERVED, snapshot),
    ("GET", "active-signed"): (SERVED, signed_snapshot),
    ("GET", "active-keys"): (SERVED, plain("active/keys/")),
    ("GET", "active-stream"): (SERVED, streamed_snapshot),
    ("GET", "alarms"): (READ, plain("alarms/")),
    ("GET", "artifact"): (SERVED, artifact),
    ("GET", "statement"): (SERVED, statement),
    ("GET", "audit"): (READ, plain("audit/")),
    ("GET", "bots"): (READ, plain("bots/")),
    ("POST", "retire-bot"): (ONCE, retire_bot),
    ("GET", "backups"): (READ, plain("backups/")),
    ("POST", "backups"): (ADMINISTERED, lambda: Request("backups/", {**SAYS_WHY, "kind": "backup"})),
    ("POST", "heartbeat"): (SAID_BY_A_BOT, heartbeat),
    ("POST", "windows"): (COUNTED_BY_A_BOT, window),
    ("GET", "bundles"): (READ, plain("bundles/")),
    ("POST", "bundles"): (STARTED, import_model),
    ("GET", "coins"): (READ, plain("coins/")),
    ("POST", "coins"): (STARTED, lambda: Request("coins/", {"symbol": "DOT", **SAYS_WHY})),
    ("PATCH", "coin"): (DECIDED, drop_a_coin),
    ("GET", "datasets"): (READ, plain("datasets/")),
    ("POST", "datasets"): (STARTED, upload),
    ("POST", "check-upload"): (OPERATED, check_upload),
    ("GET", "candles"): (READ, download),
    ("POST", "withdraw-dataset"): (ONCE, withdraw_dataset),
    ("GET", "diagnoses"): (READ, plain("diagnoses/")),
    ("GET", "diagnosis"): (READ, one_diagnosis),
    ("GET", "keys"): (READ, plain("keys/")),
    ("POST", "keys"): (PROPOSED, lambda: Request("keys/", SAYS_WHY)),
    ("POST", "activate-key"): (DECIDED, of_key("activate")),
    ("POST", "retire-key"): (DECIDED, of_key("retire")),
    ("POST", "propose-key-retirement"): (DECIDED, of_key("propose")),
    ("POST", "approve-key-retirement"): (DECIDED, of_key("approve", cut_off=0)),
    ("GET", "lines"): (READ, plain("lines/")),
    ("POST", "lines"): (STARTED, lambda: Request("lines/", {"name": "mine", "recipe": "v5", **SAYS_WHY})),
    ("GET", "machines"): (READ, plain("machines/")),
    ("POST", "machines"): (NOT_CONFIGURED, lambda: Request("machines/", SAYS_WHY)),
    ("POST", "stop-machine"): (ONCE, stop_machine),
    ("GET", "machine-prices"): (READ, plain("machines/prices/")),
    ("POST", "machine-prices"): (PROPOSED, set_price),
    ("GET", "monthly-limits"): (READ, plain("machines/limits/")),
    ("POST", "monthly-limits"): (PROPOSED, lambda: Request("machines/limits/", {**SAYS_WHY, "usd": 40})),
    ("GET", "moves"): (READ, plain("moves/")),
    ("GET", "move"): (READ, of_move()),
    ("GET", "acknowledgements"): (READ, of_move("acknowledgements/")),
    ("POST", "pin"): (DECIDED, pin),
    ("GET", "policies"): (READ, plain("policies/")),
    ("POST", "policies"): (PROPOSED, propose),
    ("GET", "policy-drafts"): (READ, plain("policies/drafts/")),
    ("GET", "policy"): (READ, plain("policies/1/")),
    ("POST", "adopt-policy"): (DECIDED, adopt),
    ("GET", "recipes"): (READ, plain("recipes/")),
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
    ("POST", "annotate-run"): (OPERATED, of_run("annotate/", {"tags": ["wide"], "notes": "a wider network"})),
    ("GET", "compare-runs"): (READ, compare_runs),
    ("POST", "cancel-run"): (OPERATED, of_run("cancel/", SAYS_WHY)),
    ("GET", "epochs"): (READ, of_run("epochs/")),
    ("GET", "log"): (READ, of_run("log/")),
    ("POST", "relaunch-run"): (STARTED, failed_run),
    ("GET", "studies"): (READ, plain("studies/")),
    ("POST", "studies"): (STARTED, launch_study),
    ("GET", "study"): (READ, of_study("")),
    ("GET", "trials"): (READ, of_study("trials/")),
    ("POST", "cancel-study"): (OPERATED, of_study("cancel/", SAYS_WHY)),
    ("GET", "tokens"): (READ, plain("tokens/")),
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
