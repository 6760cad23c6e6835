"""The demo scenario, run through the same services, tokens and addresses that people and bots use.

The bot runs a broken model. The service inherits it, measures it and trains a candidate. The candidate goes live only if
every coin passes every gate and a second person approves; otherwise the bot stays on its fallback.
"""

import math
import secrets
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from django.db import close_old_connections

from accounts import services as accounts
from accounts.roles import Actor, Role, Scope
from audit import services as audit
from audit.models import AuditEvent
from crpbot.demo.errors import DemoFailed
from crpbot.demo.preflight import COINS
from crpbot.demo.terminal import Terminal
from crpbot_runtime import Client, Decision
from deploy.api.releases import serialize_release
from deploy.models import PointerMove, Release
from deploy.outcomes import list_release_coins
from deploy.pointer import pointer
from deploy.releases import decide
from deploy.releases.launch import launch
from deploy.releases.presentation import format_gate_table, format_progress
from deploy.rules import READY_GATES, Purpose, ReleaseState
from deploy.serving import keys
from mlcore.data import candles
from mlcore.data.simulate import DEFAULT_DRIFT
from mlcore.features.indicators import SCHEMAS
from training import artifact_store
from training.jobs.worker_registry import list_alive_workers
from training.models import Dataset
from training.services import coins, datasets

FALLBACK, INHERITED, CANDIDATE = "v5", "v6_enhanced", "v7_fixed"
MARKET_SEED = 10
"""With this seed the broken recipe fails for every coin as it did in production: one direction with high confidence in
every bar. With other seeds one coin may alternate between two directions.
"""
HISTORY_ROWS = max(schema.lookback for schema in SCHEMAS.values()) + 100
"""Rows of each market that are kept for predictions."""

PEOPLE: Mapping[str, tuple[Role, ...]] = {
    "operator": (Role.OPERATOR, Role.VIEWER),
    "approver": (Role.APPROVER, Role.VIEWER),
    "viewer": (Role.VIEWER,),
    "admin": (Role.VIEWER,),
}


@dataclass(frozen=True)
class DemoOptions:
    """The options of the demo."""

    url: str
    state: Path
    bars: int
    drift: float
    candles: Mapping[str, Path] | None
    """Each coin's file of real candles; None to simulate."""
    epochs: int | None
    """Maximum per network; None for the recipe's."""

    @property
    def expected_line(self) -> str | None:
        """The line that must be live at the end; None when it depends on the market."""
        if self.candles is not None or 0 < self.drift < DEFAULT_DRIFT:
            return None
        return CANDIDATE if self.drift else FALLBACK


@dataclass
class Outcome:
    """The result, for the summary at the end."""

    passwords: dict[str, str] = field(default_factory=dict)
    bot_token: str = ""
    public_key: str = ""
    history: dict[str, Path] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    """Unexpected results."""


class Scenario:
    """Runs the scenario step by step. `watch` is called while waiting and raises when a process fails."""

    def __init__(self, options: DemoOptions, terminal: Terminal, watch: Callable[[], None]) -> None:
        self._options, self._terminal, self._watch = options, terminal, watch
        self._actors: dict[str, Actor] = {}
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Run all steps. Raises DemoFailed when one fails."""
        self._create_people()
        self._wait_for_workers()
        self._load_candles()
        fallback, inherited = self._train_existing_models()
        self._take_over(fallback, inherited)
        self._release_candidate()
        self._predict()
        self._check_consistency()
        return self.outcome

    def _create_people(self) -> None:
        self._terminal.step("Create people and a bot")
        for name, roles in PEOPLE.items():
            password = secrets.token_urlsafe(12)
            user = accounts.create_user(
                name, password=password, roles=list(roles), actor="the demo", is_staff=name == "admin"
            )
            self.outcome.passwords[name] = password
            self._actors[name] = accounts.build_actor(user)
        bot = accounts.create_user("bot", password=None, roles=[], actor="the demo", is_service=True)
        _, self.outcome.bot_token = accounts.issue_token(
            bot, Scope.BOT, name="the trading bot", actor="the demo"
        )
        self.outcome.public_key = keys.export_public()
        self._terminal.note(
            "operator launches, approver approves, viewer reads, admin reads the audit history"
        )
        self._terminal.note(f"the bot trusts the service's public key {self.outcome.public_key}")

    def _wait_for_workers(self) -> None:
        self._terminal.step("Wait for the workers")
        while not (list_alive_workers("training") and list_alive_workers("gates")):
            self._terminal.show_progress("waiting for the workers' first heartbeat")
            self._pause()
        for queue in ("training", "gates"):
            for worker in list_alive_workers(queue):
                self._terminal.note(f"{worker.name}: {worker.slots} slots, on {worker.device}")

    def _load_candles(self) -> None:
        self._terminal.step("Load candles")
        coins.ensure_coins()
        for symbol in COINS:
            dataset = self._load_coin(symbol)
            days = f"{dataset.first_at:%Y-%m-%d} to {dataset.last_at:%Y-%m-%d}"
            self._terminal.note(f"{symbol}: {dataset.rows:,} bars, {days} ({dataset.origin})")

    def _load_coin(self, symbol: str) -> Dataset:
        coin, operator = coins.find_coin(symbol), self._actors["operator"]
        if self._options.candles is not None:
            file = self._options.candles[symbol]
            kept = datasets.import_candles(coin, file.read_bytes(), name=file.name, actor=operator)
        else:
            kept = datasets.simulate_candles(
                coin, bars=self._options.bars, drift=self._options.drift, seed=MARKET_SEED, actor=operator
            )
        path = self._options.state / "candles" / f"{symbol}.csv"
        path.parent.mkdir(exist_ok=True)
        artifact_store.read_candles(kept.dataset).tail(HISTORY_ROWS).write_csv(path)
        self.outcome.history[symbol] = path
        return kept.dataset

    def _train_existing_models(self) -> tuple[Release, Release]:
        self._terminal.step(f"Train the current model {INHERITED} and the fallback {FALLBACK}")
        fallback = self._launch(FALLBACK, Purpose.FALLBACK)
        inherited = self._launch(INHERITED, Purpose.INHERITED)
        fallback, inherited = self._wait_until_done([fallback, inherited])
        return fallback, inherited

    def _take_over(self, fallback: Release, inherited: Release) -> None:
        self._terminal.step(f"Take over: inherit {INHERITED}, register {FALLBACK} as the fallback")
        if fallback.state != ReleaseState.STANDBY:
            raise DemoFailed(f"{fallback} is {fallback.state}: {fallback.status.reason}")
        approver = self._actors["approver"]
        decide.inherit(inherited, actor=approver, reason="the model that the bot runs")
        decide.register_fallback(
            fallback, actor=approver, reason="linear and well calibrated; its logits stay small"
        )
        self._explain_fallback(fallback)
        self._show_pointer()
        self._terminal.note(f"\nThe diagnosis of {INHERITED}, measured on the files that the bot runs:\n")
        self._show_gate_table(inherited)

    def _explain_fallback(self, fallback: Release) -> None:
        """Say why a fallback that failed gates is accepted."""
        diagnoses = [
            release_coin.diagnosis for release_coin in list_release_coins(fallback) if release_coin.diagnosis
        ]
        results = [result for diagnosis in diagnoses for result in diagnosis.results.all()]
        failed = dict.fromkeys(r.gate for r in results if r.is_required and r.verdict != "passed")
        if failed:
            text = (
                f"{fallback.line} did not pass {', '.join(failed)}, and is the fallback all the same: a fallback must load, "
                f"predict and use the bot's features ({', '.join(READY_GATES)}), and needs no skill."
            )
            self._terminal.note(textwrap.fill(text, self._terminal.width))

    def _release_candidate(self) -> None:
        self._terminal.step(f"The operator launches {CANDIDATE}")
        candidate = self._launch(CANDIDATE, Purpose.CANDIDATE)
        (candidate,) = self._wait_until_done([candidate])
        self._show_gate_table(candidate)
        if candidate.state == ReleaseState.AWAITING_APPROVAL:
            self._terminal.step("Every coin passed every gate: the approver, a second person, approves")
            seen, reason = self._load_pointer().revision, "every gate passed for every coin"
            decide.approve(candidate, actor=self._actors["approver"], reason=reason, revision=seen)
        else:
            self._terminal.step(f"{CANDIDATE} is {candidate.state}; no approval is needed")
            self._terminal.note(candidate.status.reason.replace("; ", "\n"))
        self._show_pointer()
        release, expected = self._load_pointer().release, self._options.expected_line
        line = release.line if release else "nothing"
        if expected is not None and line != expected:
            self.outcome.problems.append(f"{line} is live instead of {expected}")

    def _predict(self) -> None:
        self._terminal.step("The bot fetches the live release, verifies it and predicts")
        outcome, kept = self.outcome, self._options.state / "bot"
        credentials = (outcome.bot_token, outcome.public_key)
        # Candles of any age: these end where the market was simulated to, or its file was written.
        with Client(self._options.url, *credentials, kept, coins=COINS, max_age_s=math.inf) as client:
            active = client.refresh()
            if active.problem is not None:
                raise DemoFailed(f"The bot cannot follow the service: {active.problem}")
            for symbol, path in self.outcome.history.items():
                self._terminal.note(_format_decision(client.predict(symbol, candles.read(path))))

    def _check_consistency(self) -> None:
        """API, pointer and audit history must agree."""
        self._terminal.step("Check the audit chain, and that API, pointer and audit agree")
        broken = audit.verify()
        self.outcome.problems += [f"the audit chain is broken at {place}" for place in broken]
        move = self._load_pointer()
        event = AuditEvent.objects.get(pk=move.audit_seq)
        active = httpx.get(
            f"{self._options.url}/api/v1/active/",
            headers={"Authorization": f"Bearer {self.outcome.bot_token}"},
            trust_env=False,  # a proxy of the environment does not know this machine
        ).json()
        if not (active["revision"] == move.revision and active["reason"] == move.reason == event.reason):
            self.outcome.problems.append(
                f"the API says {active['reason']!r}, the pointer {move.reason!r}, the audit {event.reason!r}"
            )
        soundness = "broken" if broken else "sound"
        self._terminal.note(f"{AuditEvent.objects.count()} events, each bound to the one before: {soundness}")
        self._terminal.note(f"API, pointer and audit agree on revision {move.revision}")

    def _launch(self, line: str, purpose: Purpose) -> Release:
        parameters = {"epochs": self._options.epochs} if self._options.epochs and line != FALLBACK else {}
        release = launch(line, actor=self._actors["operator"], parameters=parameters, purpose=purpose)
        self._terminal.note(f"release {release.pk}: {line}, one run for each of {', '.join(COINS)}")
        return release

    def _wait_until_done(self, releases: Sequence[Release]) -> tuple[Release, ...]:
        """Wait until each release has settled; one to be inherited is done once it is measured."""
        while True:
            current = tuple(
                Release.objects.select_related("status").get(pk=release.pk) for release in releases
            )
            if all(map(_is_done, current)):
                return current
            self._terminal.show_progress(*map(format_progress, current))
            self._pause()

    def _pause(self) -> None:
        self._watch()
        close_old_connections()
        time.sleep(0.5)

    def _load_pointer(self) -> PointerMove:
        move = pointer.get_current()
        if move is None:
            raise DemoFailed("There is no pointer, although a release was inherited.")
        return move

    def _show_gate_table(self, release: Release) -> None:
        document = serialize_release(release)
        self._terminal.note(format_gate_table(document["coins"], width=self._terminal.width))

    def _show_pointer(self) -> None:
        move = self._load_pointer()
        line = move.release.line if move.release else "no release: bots answer neutral"
        self._terminal.note(f"pointer: {line}, revision {move.revision}, {move.kind} by {move.moved_by}")


def _is_done(release: Release) -> bool:
    if release.state != ReleaseState.BUILDING:
        return True
    is_measured = all(release_coin.diagnosis_id for release_coin in list_release_coins(release))
    return release.purpose == Purpose.INHERITED and is_measured


def _format_decision(decision: Decision) -> str:
    shares = "  ".join(f"{name} {share:.2f}" for name, share in decision.probabilities.items())
    return (
        f"{decision.coin}: {decision.direction:<8} {shares}   {decision.line}, release {decision.release}, revision "
        f"{decision.revision}"
    )
