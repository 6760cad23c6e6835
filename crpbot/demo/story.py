"""The story the demo tells, through the same services, tokens and addresses that people and bots use.

The bot stands on a broken model. The service takes it over, measures it, trains a better one, and lets it through only
if every coin passes every gate and a second person agrees; otherwise it holds the bot on its fallback.
"""

import secrets
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import polars as pl
from django.db import close_old_connections

from accounts import services as accounts
from accounts.models import User
from accounts.rules import Actor, Role, Scope
from audit import services as audit
from audit.models import AuditEvent
from crpbot.demo.errors import DemoFailed
from crpbot.demo.ground import COINS
from crpbot.demo.screen import Screen
from deploy import services as deploy
from deploy.api.releases import serialize_release
from deploy.models import PointerMove, Release
from deploy.outcomes import list_release_coins
from deploy.pointer import pointer
from deploy.releases.presentation import format_gate_table, format_progress
from deploy.rules import READY_GATES, Purpose, ReleaseState
from deploy.serving import keys
from mlcore.data import candles
from mlcore.data.simulate import DEFAULT_DRIFT
from mlcore.features.indicators import SCHEMAS
from runtime import Client, Decision
from training import artifact_store
from training import services as training
from training.jobs.worker_registry import list_alive_workers
from training.models import Dataset

FALLBACK, INHERITED, CANDIDATE = "v5", "v6_enhanced", "v7_fixed"
MARKET_SEED = 10
"""Chosen among several, so that the broken recipe fails as it did for the desk: sure of one direction in every bar, for
all coins. On other markets it is as sure, and its logits as large, but for some coin two directions share its answers.
"""
HISTORY_ROWS = max(schema.lookback for schema in SCHEMAS.values()) + 100
"""What the demo keeps of each market for the runtime to predict from."""

PEOPLE: Mapping[str, tuple[Role, ...]] = {
    "operator": (Role.OPERATOR, Role.VIEWER),
    "approver": (Role.APPROVER, Role.VIEWER),
    "viewer": (Role.VIEWER,),
    "admin": (Role.VIEWER,),
}


@dataclass(frozen=True)
class Plan:
    """What the demo is asked to do."""

    url: str
    state: Path
    bars: int
    drift: float
    candles: Mapping[str, Path] | None
    """Each coin's file of real candles; None to simulate."""
    epochs: int | None
    """Of each network, at most; None for the recipe's own."""

    @property
    def expected_line(self) -> str | None:
        """Where the pointer must stand at the end; None where the market decides."""
        if self.candles is not None or 0 < self.drift < DEFAULT_DRIFT:
            return None
        return CANDIDATE if self.drift else FALLBACK


@dataclass
class Account:
    """What the story came to, for the person at the terminal."""

    passwords: dict[str, str] = field(default_factory=dict)
    bot_token: str = ""
    public_key: str = ""
    history: dict[str, Path] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
    events: int = 0
    surprises: list[str] = field(default_factory=list)
    """What did not end as it should."""


class Story:
    """Tells it once, step by step. `watch` is called while waiting, and raises when a process is lost."""

    def __init__(self, plan: Plan, screen: Screen, watch: Callable[[], None]) -> None:
        self._plan, self._screen, self._watch = plan, screen, watch
        self._actors: dict[str, Actor] = {}
        self.account = Account()

    def tell(self) -> Account:
        """All of it. Raises DemoFailed where it cannot go on."""
        self._make_accounts()
        self._wait_for_workers()
        self._bring_candles()
        fallback, inherited = self._train_what_exists()
        self._take_over(fallback, inherited)
        self._release_candidate()
        self._predict()
        self._compare_accounts_of_it()
        return self.account

    def _make_accounts(self) -> None:
        self._screen.step("People and a bot")
        for name, roles in PEOPLE.items():
            password = secrets.token_urlsafe(12)
            user = accounts.create_user(
                name, password=password, roles=list(roles), actor="the demo", is_staff=name == "admin"
            )
            self.account.passwords[name] = password
            self._actors[name] = accounts.build_actor(user)
        self.account.bot_token = self._issue_bot_token()
        self.account.public_key = keys.export_public()
        self._screen.note("operator launches, approver decides, viewer looks, admin reads the audit history")
        self._screen.note(f"the bot pins the service's public key, {self.account.public_key}")

    def _issue_bot_token(self) -> str:
        bot: User = accounts.create_user("bot", password=None, roles=[], actor="the demo")
        _, token = accounts.issue_token(bot, Scope.BOT, name="the trading bot", actor="the demo")
        return token

    def _wait_for_workers(self) -> None:
        self._screen.step("Workers")
        while not (list_alive_workers("training") and list_alive_workers("gates")):
            self._screen.live("waiting for the workers to say what they are")
            self._pause()
        for queue in ("training", "gates"):
            for worker in list_alive_workers(queue):
                self._screen.note(f"{worker.name}: {worker.slots} at a time, on {worker.device}")

    def _bring_candles(self) -> None:
        self._screen.step("Candles")
        training.ensure_coins()
        for symbol in COINS:
            dataset = self._bring_coin(symbol)
            days = f"{dataset.first_at:%Y-%m-%d} to {dataset.last_at:%Y-%m-%d}"
            self._screen.note(f"{symbol}: {dataset.rows:,} bars, {days} ({dataset.origin})")

    def _bring_coin(self, symbol: str) -> Dataset:
        coin, operator = training.find_coin(symbol), self._actors["operator"]
        if self._plan.candles is not None:
            path = self._plan.candles[symbol]
            self.account.history[symbol] = path
            kept = training.import_candles(coin, path.read_bytes(), name=path.name, actor=operator)
            return kept.dataset
        dataset = training.simulate_candles(
            coin, bars=self._plan.bars, drift=self._plan.drift, seed=MARKET_SEED, actor=operator
        )
        self.account.history[symbol] = self._write_history(symbol, artifact_store.read_candles(dataset))
        return dataset

    def _write_history(self, symbol: str, frame: pl.DataFrame) -> Path:
        path = self._plan.state / "candles" / f"{symbol}.csv"
        path.parent.mkdir(exist_ok=True)
        frame.tail(HISTORY_ROWS).write_csv(path)
        return path

    def _train_what_exists(self) -> tuple[Release, Release]:
        self._screen.step(
            f"What the bot has today: {INHERITED}, and {FALLBACK} to fall back on; both trained"
        )
        fallback = self._launch(FALLBACK, Purpose.FALLBACK)
        inherited = self._launch(INHERITED, Purpose.INHERITED)
        fallback, inherited = self._wait_for([fallback, inherited])
        return fallback, inherited

    def _take_over(self, fallback: Release, inherited: Release) -> None:
        self._screen.step(f"The service takes over: the pointer on {INHERITED}, {FALLBACK} as the fallback")
        if fallback.state != ReleaseState.STANDBY:
            raise DemoFailed(f"{fallback} is {fallback.state}: {fallback.status.reason}")
        approver = self._actors["approver"]
        deploy.inherit(inherited, actor=approver, reason="what the bot runs today")
        deploy.register_fallback(fallback, actor=approver, reason="linear, well calibrated, cannot blow up")
        self._say_why_it_will_do(fallback)
        self._say_pointer()
        self._screen.note(f"\nThe diagnosis of {INHERITED}, on the bytes the bot runs:\n")
        self._screen.note(format_gate_table(serialize_release(inherited)["coins"], width=self._screen.width))

    def _say_why_it_will_do(self, fallback: Release) -> None:
        """Where the fallback was just told to have failed gates, why it is right to fall back on."""
        diagnoses = [
            release_coin.diagnosis for release_coin in list_release_coins(fallback) if release_coin.diagnosis
        ]
        spoken = [result for diagnosis in diagnoses for result in diagnosis.results.all()]
        against = dict.fromkeys(r.gate for r in spoken if r.is_required and r.verdict != "passed")
        if against:
            why = (
                f"{fallback.line} did not pass {', '.join(against)}, and is the fallback all the same: that has to load, to "
                f"predict and to read what the bot computes ({', '.join(READY_GATES)}), and need not be skilled."
            )
            self._screen.note(textwrap.fill(why, self._screen.width))

    def _release_candidate(self) -> None:
        self._screen.step(f"The operator launches {CANDIDATE}")
        candidate = self._launch(CANDIDATE, Purpose.CANDIDATE)
        (candidate,) = self._wait_for([candidate])
        self._screen.note(format_gate_table(serialize_release(candidate)["coins"], width=self._screen.width))
        if candidate.state == ReleaseState.AWAITING_APPROVAL:
            self._approve(candidate)
        else:
            self._screen.step(f"{CANDIDATE} is {candidate.state}; nobody is asked")
            self._screen.note(candidate.status.reason.replace("; ", "\n"))
        self._say_pointer()
        self._expect_line()

    def _approve(self, candidate: Release) -> None:
        self._screen.step("Every coin passed every gate: the approver, a second person, lets it through")
        seen = self._pointer().revision
        reason = "every gate passed for every coin"
        deploy.approve(candidate, actor=self._actors["approver"], reason=reason, revision=seen)

    def _expect_line(self) -> None:
        release, expected = self._pointer().release, self._plan.expected_line
        line = release.line if release else "nothing"
        if expected is not None and line != expected:
            self.account.surprises.append(f"the pointer stands on {line}, and should stand on {expected}")

    def _predict(self) -> None:
        self._screen.step("The bot fetches what it may trust, verifies it, and asks it")
        account, kept = self.account, self._plan.state / "bot"
        with Client(self._plan.url, account.bot_token, account.public_key, kept, coins=COINS) as client:
            active = client.refresh()
            if active.problem is not None:
                raise DemoFailed(f"The bot cannot follow the service: {active.problem}")
            for symbol, path in self.account.history.items():
                decision = client.predict(symbol, candles.read(path))
                self.account.decisions.append(decision)
                self._screen.note(_told(decision))

    def _compare_accounts_of_it(self) -> None:
        """What the API tells the bot, what the pointer says and what the audit history holds must be one story."""
        self._screen.step("The audit chain, and whether everyone tells the same")
        broken = audit.verify()
        self.account.events = AuditEvent.objects.count()
        self.account.surprises += [f"the audit chain is broken at event {b.seq}: {b.problem}" for b in broken]
        move = self._pointer()
        event = AuditEvent.objects.get(pk=move.audit_seq)
        told = httpx.get(
            f"{self._plan.url}/api/v1/active/", headers={"Authorization": f"Bearer {self.account.bot_token}"}
        ).json()
        if not (told["revision"] == move.revision and told["reason"] == move.reason == event.reason):
            self.account.surprises.append(
                f"the API says {told['reason']!r}, the pointer {move.reason!r}, the audit {event.reason!r}"
            )
        self._screen.note(f"{self.account.events} events, each bound to the one before: {_sound(broken)}")
        self._screen.note(f"API, pointer and audit agree on revision {move.revision}")

    def _launch(self, line: str, purpose: Purpose) -> Release:
        parameters = {"epochs": self._plan.epochs} if self._plan.epochs and line != FALLBACK else {}
        release = deploy.launch(line, actor=self._actors["operator"], parameters=parameters, purpose=purpose)
        self._screen.note(f"release {release.pk}: {line}, a run for each of {', '.join(COINS)}")
        return release

    def _wait_for(self, releases: Sequence[Release]) -> tuple[Release, ...]:
        """Until each has settled; one that is to be inherited never does, and is done once measured."""
        while True:
            found = tuple(Release.objects.select_related("status").get(pk=release.pk) for release in releases)
            if all(_is_done(release) for release in found):
                return found
            self._screen.live(*(format_progress(release) for release in found))
            self._pause()

    def _pause(self) -> None:
        self._watch()
        close_old_connections()
        time.sleep(0.5)

    def _pointer(self) -> PointerMove:
        move = pointer.get_current()
        if move is None:
            raise DemoFailed("There is no pointer, although a release was inherited.")
        return move

    def _say_pointer(self) -> None:
        move = self._pointer()
        line = move.release.line if move.release else "nothing: bots answer neutral"
        self._screen.note(f"pointer: {line}, revision {move.revision}, {move.kind} by {move.moved_by}")


def _is_done(release: Release) -> bool:
    if release.state != ReleaseState.BUILDING:
        return True
    is_measured = all(release_coin.diagnosis_id for release_coin in list_release_coins(release))
    return release.purpose == Purpose.INHERITED and is_measured


def _told(decision: Decision) -> str:
    shares = "  ".join(f"{name} {share:.2f}" for name, share in decision.probabilities.items())
    return (
        f"{decision.coin}: {decision.direction:<8} {shares}   {decision.line}, release {decision.release}, revision "
        f"{decision.revision}"
    )


def _sound(broken: Sequence[object]) -> str:
    return "broken" if broken else "sound"
