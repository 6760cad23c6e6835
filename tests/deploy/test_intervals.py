"""One service, one bar interval (rule 31): no sequence of calls mixes two."""

import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest
from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from audit import services as audit
from audit import triggers
from common.errors import Conflict, DomainError, InvalidInput
from crpbot_runtime.bundles import BundleLoader
from crpbot_runtime.decide import decide as decide_for_bot
from crpbot_runtime.errors import SetRefused
from crpbot_runtime.live_windows import LiveWindows
from crpbot_runtime.protocol.envelope import AuditHead, SignedSnapshot
from crpbot_runtime.protocol.public_keys import PublicKeys
from crpbot_runtime.protocol.snapshot import parse_snapshot
from crpbot_runtime.state import State
from crpbot_runtime.storage.cache import Cache
from crpbot_runtime.storage.saved_state import ReceivedSnapshot
from deploy.forms import LaunchForm
from deploy.models import PointerMove, Release
from deploy.pointer import pointer
from deploy.releases import decide, settle
from deploy.releases.launch import choose_default_datasets, launch
from deploy.rules import Action, Purpose
from deploy.serving import signing, snapshot
from gates.models import Diagnosis, Measurement
from gates.services import measuring
from mlcore.bundle import onnx_graph
from mlcore.data.simulate import simulate
from studies.models import Study, Trial
from studies.rules import Objective, Sampler
from tests import scenarios
from tests.scenarios import APPROVER, LAUNCHER
from training import artifact_store
from training.jobs import leases
from training.models import Bundle, Coin, Dataset, TrainingRun
from training.rules import JobState
from training.services import datasets, runs

HOUR, FOUR_HOURS = 3600, 14_400
FIGURES = {"v7_fixed": scenarios.healthy, "v5": scenarios.inaccurate, "v6_enhanced": scenarios.collapsed}
PURPOSES = {"v7_fixed": Purpose.CANDIDATE, "v5": Purpose.FALLBACK, "v6_enhanced": Purpose.INHERITED}

pytestmark = pytest.mark.django_db


def candles(interval: int, **others: int) -> dict[str, Dataset]:
    """A dataset for each coin; `others` names coins with another interval."""
    return {
        coin.symbol: scenarios.dataset(coin, interval_seconds=others.get(coin.symbol, interval))
        for coin in scenarios.coins()
    }


def prepare(line: str, on: dict[str, Dataset], graph: bytes = b"") -> dict[str, Bundle]:
    """A measured bundle of each coin on its dataset."""
    made = {}
    for symbol, data in on.items():
        made[symbol] = scenarios.bundle(data.coin, data, line, seed=1, graph=graph)
        scenarios.add_measurement(made[symbol], data, FIGURES[line](symbol))
    return made


def release_of(line: str, interval: int) -> Release:
    """A release of bundles that are there already, settled."""
    data = candles(interval)
    release = launch(line, actor=LAUNCHER, datasets=data, bundles=prepare(line, data), purpose=PURPOSES[line])
    settle.advance(release)
    return Release.objects.select_related("status").get(pk=release.pk)


def study_of(line: str, interval: int) -> Study:
    """A study with one complete trial, on BTC's dataset of this interval."""
    data = candles(interval)["BTC"]
    study = Study.objects.create(
        dataset=data, line=line, ranges={}, objective=Objective.LOSS, sampler=Sampler.RANDOM, prunes=False,
        seed=1, max_trials=1, parallel=1, budget=runs.open_budget(), launched_by="olivia",
    )  # fmt: skip
    run = runs.launch_run(
        coin=data.coin, dataset=data, line=line, parameters={}, seed=1, budget=study.budget, actor=LAUNCHER
    )
    Trial.objects.create(study=study, number=1, parameters={"epochs": 2}, run=run)
    held = leases.claim(TrainingRun, run.pk, worker_name="w1")
    assert held is not None
    TrainingRun.objects.filter(pk=run.pk).update(best_validation_loss=1.0)
    leases.finish(held, JobState.SUCCEEDED)
    return study


def test_a_study_on_bars_of_another_interval_gives_no_release() -> None:
    """Its parameters were chosen for other bars, and the release would state its best of so many trials."""
    hourly = candles(HOUR)
    study, bundles = study_of("v7_fixed", FOUR_HOURS), prepare("v7_fixed", hourly)
    why: dict[str, Any] = {"actor": LAUNCHER, "study": study}
    with pytest.raises(InvalidInput, match="had bars of 4 hours, and these datasets have bars of 1 hour"):
        launch("v7_fixed", datasets=hourly, bundles=bundles, **why)
    slower = candles(FOUR_HOURS)
    scenarios.dataset(hourly["BTC"].coin, name="the last import")
    given = prepare("v7_fixed", slower)
    assert launch("v7_fixed", bundles=given, **why).interval_seconds == FOUR_HOURS, (
        "the study's, as no other is named"
    )
    decide.inherit(release_of("v6_enhanced", HOUR), actor=APPROVER, reason="as the bots run")
    with pytest.raises(Conflict, match="the bots of this service have bars of 1 hour"):
        launch("v7_fixed", bundles=given, **why)


def test_a_launch_on_datasets_of_two_intervals_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"one bar interval: BTC's dataset \d+ has bars of 4 hours, ETH"):
        launch("v7_fixed", actor=LAUNCHER, datasets=candles(HOUR, BTC=FOUR_HOURS))


def test_a_bundle_of_another_interval_is_not_launched() -> None:
    data = candles(HOUR)
    other = prepare("v7_fixed", candles(FOUR_HOURS))
    with pytest.raises(InvalidInput, match="answers for bars of 4 hours; BTC's dataset has bars of 1 hour"):
        launch("v7_fixed", actor=LAUNCHER, datasets=data, bundles={"BTC": other["BTC"]})


@pytest.mark.parametrize("line", ["v5", "v7_fixed"])
def test_a_release_of_another_interval_than_the_service_is_refused(line: str) -> None:
    decide.inherit(release_of("v6_enhanced", HOUR), actor=APPROVER, reason="as the bots run")
    with pytest.raises(Conflict, match="the bots of this service have bars of 1 hour"):
        launch(line, actor=LAUNCHER, datasets=candles(FOUR_HOURS), purpose=PURPOSES[line])


def test_what_was_launched_before_the_first_pointer_is_refused_later() -> None:
    fallback, inherited = release_of("v5", FOUR_HOURS), release_of("v6_enhanced", HOUR)
    decide.inherit(inherited, actor=APPROVER, reason="as the bots run")
    with pytest.raises(Conflict, match="bars of 4 hours cannot be used here"):
        decide.register_fallback(fallback, actor=APPROVER, reason="the fallback")


def test_a_fallback_of_another_interval_is_replaced_before_the_start() -> None:
    """It must not lock the service: nothing that its bots run could be inherited, launched or registered any more."""
    decide.register_fallback(release_of("v5", FOUR_HOURS), actor=APPROVER, reason="a mistake")
    inherited = release_of("v6_enhanced", HOUR)
    with pytest.raises(Conflict, match=r"bars of 4 hours: .* Register a fallback on bars of 1 hour first."):
        decide.inherit(inherited, actor=APPROVER, reason="as the bots run")
    decide.register_fallback(release_of("v5", HOUR), actor=APPROVER, reason="the right one")
    decide.inherit(inherited, actor=APPROVER, reason="as the bots run")
    with pytest.raises(Conflict, match="the bots of this service have bars of 1 hour"):
        release_of("v5", FOUR_HOURS)


def test_a_measurement_on_candles_of_another_interval_is_refused() -> None:
    hourly = prepare("v7_fixed", candles(HOUR))["BTC"]
    with pytest.raises(InvalidInput, match=r"answers for bars of 1 hour; .* has bars of 4 hours"):
        measuring.measure(hourly, candles(FOUR_HOURS)["BTC"], actor=LAUNCHER)


def test_a_launch_takes_datasets_that_fit_together() -> None:
    hourly = candles(HOUR)
    newer = scenarios.dataset(hourly["BTC"].coin, name="b", interval_seconds=FOUR_HOURS)
    coins = scenarios.coins()
    assert set(choose_default_datasets(coins).values()) == set(hourly.values())
    assert choose_default_datasets(coins, [newer])[newer.coin] == newer
    field = LaunchForm("v7_fixed").fields["dataset_BTC"]
    assert field.initial == hourly["BTC"]
    assert "10,000 bars of 4 hours" in field.label_from_instance(newer)  # type: ignore[attr-defined]
    slower = candles(FOUR_HOURS)
    assert set(choose_default_datasets(coins).values()) == set(slower.values()), "imported last"
    decide.inherit(release_of("v6_enhanced", HOUR), actor=APPROVER, reason="as the bots run")
    assert set(choose_default_datasets(coins).values()) == set(hourly.values()), "those of the service"


def test_an_interval_that_the_owner_of_the_database_changed_is_found() -> None:
    release = release_of("v7_fixed", HOUR)
    triggers.drop()
    try:
        Release.objects.filter(pk=release.pk).update(interval_seconds=FOUR_HOURS)
    finally:
        triggers.install()
    assert f"release {release.pk} differs from the audit chain: interval_seconds" in audit.verify()


def test_the_snapshot_states_the_interval(db: None) -> None:
    move = decide.inherit(release_of("v6_enhanced", FOUR_HOURS), actor=APPROVER, reason="as the bots run")
    assert snapshot.build_document(move)["interval_seconds"] == FOUR_HOURS
    fallback = release_of("v5", FOUR_HOURS)
    assert signing._describe_release("a service", fallback.pk)["interval_seconds"] == FOUR_HOURS


lines = st.sampled_from(list(FIGURES))
interval_choice = st.sampled_from([HOUR, FOUR_HOURS])
others = st.dictionaries(st.sampled_from(scenarios.COINS), interval_choice, max_size=1)
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


class Desk(RuleBasedStateMachine):
    """People who import, launch and decide, and a bot, with bars of two intervals at hand.

    A refusal is an answer like any other. After every step, nothing that is stored or decided mixes two intervals.
    """

    graph: ClassVar[bytes]
    cache: ClassVar[Cache]
    bars: ClassVar[dict[int, pl.DataFrame]]
    seen: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.trial = transaction.atomic()
        self.trial.__enter__()
        scenarios.coins()
        self.intervals: dict[str, int] = {}
        self.imports = 0

    def teardown(self) -> None:
        transaction.set_rollback(True)
        self.trial.__exit__(None, None, None)

    @initialize(
        intervals=st.just(dict.fromkeys(FIGURES, HOUR))
        | st.fixed_dictionaries(dict.fromkeys(FIGURES, interval_choice)),
        order=st.permutations(list(FIGURES)),
    )
    def begin(self, intervals: dict[str, int], order: list[str]) -> None:
        """`intervals` are those that the models of each line were made for. Each line is released, as far as it goes."""
        self.intervals, self.imports = intervals, 0
        for line in order:
            self.release_and_decide(line)
            self.measure(line, HOUR)
        for line in order:  # what an earlier line waited for is there now
            self.decide(line)
        self.a_bot_decides(HOUR, None)
        self.pin_and_go_back("v7_fixed")
        self.launch_on_defaults("v7_fixed")
        self.launch_from_a_study(self.intervals["v7_fixed"], named=True, reproduce=True)
        self.launch_other_bundles("v7_fixed", {})

    @precondition(lambda self: self.imports < 2)  # each starts a process
    @rule(
        coin=st.sampled_from(scenarios.COINS),
        step=interval_choice,
        then=interval_choice,
        count=st.integers(2, 9),
    )
    def import_candles(self, coin: str, step: int, then: int, count: int) -> None:
        """A file whose bars change their interval, or do not."""
        steps = [step] * count + [then] * count
        rows = ["timestamp,open,high,low,close,volume"]
        rows += [f"{at},10,12,9,11,1" for at in accumulate(steps, initial=1_704_067_200)]
        found, self.imports = Coin.objects.get(symbol=coin), self.imports + 1
        self.attempt(
            "import",
            lambda: datasets.import_candles(found, "\n".join(rows).encode(), name="a.csv", actor=LAUNCHER),
        )

    @rule(line=lines, other=others)
    def launch(self, line: str, other: dict[str, int]) -> None:
        """On datasets of the line's interval, but for the other coins; of bundles of the line's interval."""
        interval = self.intervals[line]
        data, given = candles(interval, **other), self.prepare(line)
        why: dict[str, Any] = {"actor": LAUNCHER, "purpose": PURPOSES[line]}
        self.attempt("launch", lambda: launch(line, datasets=data, bundles=given, **why))

    @rule(line=lines)
    def launch_on_defaults(self, line: str) -> None:
        given = self.prepare(line)
        why: dict[str, Any] = {"actor": LAUNCHER, "purpose": PURPOSES[line]}
        self.attempt("launch on defaults", lambda: launch(line, bundles=given, **why))

    @rule(line=lines, other=others)
    def launch_other_bundles(self, line: str, other: dict[str, int]) -> None:
        """Some of them of another interval, as somebody may state of an imported model."""
        interval = self.intervals[line]
        given = prepare(line, candles(interval, **other), self.graph)
        why: dict[str, Any] = {"actor": LAUNCHER, "purpose": PURPOSES[line]}
        self.attempt(
            "launch other bundles", lambda: launch(line, datasets=candles(interval), bundles=given, **why)
        )

    @rule(interval=interval_choice, named=st.booleans(), reproduce=st.booleans())
    def launch_from_a_study(self, interval: int, named: bool, reproduce: bool) -> None:
        """On the datasets of the line, or those that fit; of bundles of the study's interval."""
        study, line = study_of("v7_fixed", interval), "v7_fixed"
        data = candles(self.intervals[line]) if named else {}
        given = prepare(line, candles(interval), self.graph)
        why: dict[str, Any] = {"actor": LAUNCHER, "study": study, "reproduce": reproduce}
        self.attempt("launch from a study", lambda: launch(line, datasets=data, bundles=given, **why))

    @rule(line=lines)
    def settle(self, line: str) -> None:
        for release in Release.objects.filter(line=line, status__state="building"):
            self.attempt("settle", partial(settle.advance, release))

    @rule(line=lines)
    def release_and_decide(self, line: str) -> None:
        """From the launch to what its verdict allows."""
        self.launch(line, {})
        self.settle(line)
        self.decide(line)

    @rule(line=lines, interval=interval_choice)
    def measure(self, line: str, interval: int) -> None:
        bundle = self.prepare(line)["BTC"]
        data = candles(interval)["BTC"]
        self.attempt("measure", lambda: measuring.measure(bundle, data, actor=LAUNCHER, again=True))

    @rule(line=lines)
    def decide(self, line: str) -> None:
        """Everything that the state of a release of this line allows, but for what ends it."""
        for release in Release.objects.select_related("status").filter(line=line):
            for action in sorted(
                (release.allowed_actions | {Action.INHERIT}) - {Action.CANCEL, Action.DECLINE}
            ):
                last = PointerMove.objects.order_by("-revision").first()
                asked: dict[str, Any] = {"reason": "a trial", "revision": last.revision if last else 0}
                self.attempt(action, partial(decide.decide, Action(action), release, actor=APPROVER, **asked))

    @rule(line=lines)
    def pin_and_go_back(self, line: str) -> None:
        """To the fallback, and to what was in use before, where that may be restored."""
        self.attempt("pin", lambda: decide.pin(actor=APPROVER, reason="a trial"))
        self.decide(line)

    @rule(step=interval_choice, stated=st.none() | interval_choice)
    def a_bot_decides(self, step: int, stated: int | None) -> None:
        """On candles of either interval, by the snapshot of now, or by one that states another interval than its bundles."""
        move = PointerMove.objects.order_by("-revision").first()
        if move is None or move.release is None:
            return
        document = snapshot.build_document(move)
        document["interval_seconds"] = stated or document["interval_seconds"]
        _, told = parse_snapshot(json.dumps(document).encode())
        loader = BundleLoader(
            self.cache, lambda file, write: write(artifact_store.read(file.sha256)), timeout_s=5
        )
        try:
            predictors = loader.load(told, lambda: True)
        except SetRefused:
            assert told.interval_seconds != move.release.interval_seconds
            return
        assert told.interval_seconds == move.release.interval_seconds, "a set that mixes intervals was loaded"
        signed = SignedSnapshot(told, NOON, NOON, AuditHead(1, ""), (), 1, None, None)
        decision, fault = decide_for_bot(
            "BTC",
            self.bars[step],
            State(ReceivedSnapshot(b"", signed, None, NOON), predictors),
            stale_since=None,
            windows=LiveWindows(),
            max_age_s=None,
            now=NOON + timedelta(seconds=step),
        )
        assert (decision.line is None) == (step != move.release.interval_seconds), fault
        type(self).seen["decision" if decision.line else "no decision"] += 1

    def prepare(self, line: str) -> dict[str, Bundle]:
        return prepare(line, candles(self.intervals[line]), self.graph)

    def attempt(self, name: str, act: Callable[[], object]) -> None:
        with suppress(DomainError), transaction.atomic():
            act()
            type(self).seen[name] += 1

    @invariant()
    def nothing_mixes_two_intervals(self) -> None:
        for release in Release.objects.select_related("study__dataset").prefetch_related(
            "coins__dataset", "coins__bundle", "coins__diagnosis__dataset"
        ):
            assert release.study is None or release.study.dataset.interval_seconds == release.interval_seconds
            for row in release.coins.all():
                judged_on = row.diagnosis.dataset if row.diagnosis else row.dataset
                made = row.bundle or row.dataset
                assert {row.dataset.interval_seconds, made.interval_seconds, judged_on.interval_seconds} == {
                    release.interval_seconds
                }
        for bundle in Bundle.objects.exclude(dataset=None).select_related("dataset"):
            assert bundle.dataset is not None
            assert bundle.interval_seconds == bundle.dataset.interval_seconds
        for measured in (Measurement, Diagnosis):
            for each in measured.objects.select_related("bundle", "dataset"):
                assert each.bundle.interval_seconds == each.dataset.interval_seconds
        for data in Dataset.objects.filter(rows__lt=100):
            steps = np.diff(artifact_store.read_candles(data)["timestamp"].dt.epoch("s").to_numpy())
            assert (steps % data.interval_seconds == 0).all() and (steps == data.interval_seconds).any()
        moves = PointerMove.objects.exclude(release=None).values_list("release__interval_seconds", flat=True)
        fallback = pointer.get_fallback()
        assert len({*moves, *([fallback.interval_seconds] if moves and fallback else [])}) <= 1


@pytest.mark.slow
def test_no_sequence_of_calls_mixes_two_intervals(tmp_path: Path) -> None:
    weights = {"coef.weight": np.full((3, 72), 0.01), "coef.bias": np.array([0.1, 0.2, 0.3])}
    Desk.graph = onnx_graph.build_model(weights, None)
    Desk.cache = Cache(tmp_path, "http://127.0.0.1:9", PublicKeys("34" * 32))
    Desk.bars = {
        step: _end_at_noon(simulate("BTC", 2_100, 1.2, 3, interval_seconds=step))
        for step in (HOUR, FOUR_HOURS)
    }
    Desk.seen.clear()
    run_state_machine_as_test(
        Desk,
        settings=settings(
            max_examples=6,
            stateful_step_count=12,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    wanted = {"import", "launch", "launch on defaults", "settle", "measure", "pin", "decision", "no decision"}
    wanted |= {"launch other bundles", "launch from a study"}
    wanted |= {Action.INHERIT, Action.REGISTER, Action.APPROVE, Action.RESTORE}
    assert Desk.seen.keys() >= wanted, "or the trials show nothing"


def _end_at_noon(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.col("timestamp") + (NOON - frame["timestamp"][-1]))
