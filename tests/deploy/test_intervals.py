"""One service, one bar interval (rule 31): no sequence of calls mixes two."""

from collections import Counter
from contextlib import suppress
from typing import Any, ClassVar

import pytest
from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from common.errors import Conflict, DomainError, InvalidInput
from deploy.forms import LaunchForm
from deploy.models import FallbackRegistration, PointerMove, Release
from deploy.releases import decide, settle
from deploy.releases.launch import choose_default_datasets, launch
from deploy.rules import Action, Purpose
from deploy.serving import signing, snapshot
from gates.models import Measurement
from gates.services import measuring
from tests import scenarios
from tests.scenarios import APPROVER, LAUNCHER
from training.models import Bundle, Dataset

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


def prepare(line: str, datasets: dict[str, Dataset]) -> dict[str, Bundle]:
    """A measured bundle of each coin on its dataset."""
    made = {}
    for symbol, data in datasets.items():
        made[symbol] = scenarios.bundle(data.coin, data, line, seed=1)
        scenarios.add_measurement(made[symbol], data, FIGURES[line](symbol))
    return made


def release_of(line: str, interval: int) -> Release:
    """A release of bundles that are there already, settled."""
    data = candles(interval)
    release = launch(line, actor=LAUNCHER, datasets=data, bundles=prepare(line, data), purpose=PURPOSES[line])
    settle.advance(release)
    return Release.objects.select_related("status").get(pk=release.pk)


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


def test_what_was_launched_before_the_first_pointer_is_refused_when_it_is_decided_on() -> None:
    fallback, inherited = release_of("v5", FOUR_HOURS), release_of("v6_enhanced", HOUR)
    decide.inherit(inherited, actor=APPROVER, reason="as the bots run")
    with pytest.raises(Conflict, match="bars of 4 hours cannot be used here"):
        decide.register_fallback(fallback, actor=APPROVER, reason="the fallback")


def test_a_measurement_on_candles_of_another_interval_is_refused() -> None:
    hourly = prepare("v7_fixed", candles(HOUR))["BTC"]
    with pytest.raises(InvalidInput, match=r"answers for bars of 1 hour; .* has bars of 4 hours"):
        measuring.measure(hourly, candles(FOUR_HOURS)["BTC"], actor=LAUNCHER)
    slower = prepare("v5", candles(FOUR_HOURS))["BTC"]
    with pytest.raises(InvalidInput, match="for bars of 4 hours"):
        measuring.measure(hourly, candles(HOUR)["BTC"], actor=LAUNCHER, baseline=slower)
    assert measuring.newest_baseline(hourly) is None


def test_the_launch_takes_datasets_that_fit_together_by_default() -> None:
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


def test_the_snapshot_states_the_interval(db: None) -> None:
    move = decide.inherit(release_of("v6_enhanced", FOUR_HOURS), actor=APPROVER, reason="as the bots run")
    assert snapshot.build_document(move)["interval_seconds"] == FOUR_HOURS
    fallback = release_of("v5", FOUR_HOURS)
    assert signing._describe_release("a service", fallback.pk)["interval_seconds"] == FOUR_HOURS


intervals = st.sampled_from([HOUR, FOUR_HOURS])
lines = st.sampled_from(sorted(FIGURES))
symbols = st.sampled_from(scenarios.COINS)


class Desk(RuleBasedStateMachine):
    """People who import, launch and decide with two intervals at hand. A refusal is an answer like any other."""

    counts: ClassVar = Counter[str]()

    def __init__(self) -> None:
        super().__init__()
        self.undone = transaction.atomic()
        self.undone.__enter__()
        self.bundles: list[Bundle] = []
        for line in FIGURES:
            for interval in (HOUR, FOUR_HOURS):
                self.bundles += prepare(line, candles(interval)).values()

    def teardown(self) -> None:
        self.check()
        transaction.set_rollback(True)
        self.undone.__exit__(None, None, None)

    def do(self, name: str, act: Any) -> Any:
        with suppress(DomainError), transaction.atomic():
            done = act()
            self.counts[name] += 1
            return done
        return None

    @initialize(interval=st.none() | intervals)
    def begin(self, interval: int | None) -> None:
        """With an empty service, or with one that runs and has a fallback."""
        if interval is not None:
            decide.register_fallback(release_of("v5", interval), actor=APPROVER, reason="the fallback")
            decide.inherit(release_of("v6_enhanced", interval), actor=APPROVER, reason="as the bots run")

    @rule(
        line=lines,
        interval=intervals,
        other=st.none() | st.tuples(symbols, intervals),
        seed=st.integers(0, 17),
    )
    def launch(self, line: str, interval: int, other: tuple[str, int] | None, seed: int) -> None:
        """On datasets of one interval or two, of bundles of the same or the other one."""
        data = candles(interval, **dict([other] if other else []))
        turned = self.bundles[seed:] + self.bundles[:seed]
        given = {bundle.coin.symbol: bundle for bundle in turned if bundle.line == line}
        if len(given) == len(scenarios.COINS):
            release = self.do(
                "launch",
                lambda: launch(line, actor=LAUNCHER, datasets=data, bundles=given, purpose=PURPOSES[line]),
            )
            if release is not None:
                self.do("settle", lambda: settle.advance(release))

    @rule(chosen=st.integers(0, 99), interval=intervals)
    def measure(self, chosen: int, interval: int) -> None:
        if self.bundles:
            bundle = self.bundles[chosen % len(self.bundles)]
            data = candles(interval)[bundle.coin.symbol]
            self.do("measure", lambda: measuring.measure(bundle, data, actor=LAUNCHER, again=True))

    @rule(chosen=st.integers(0, 99), action=st.sampled_from([*Action]))
    def decide(self, chosen: int, action: Action) -> None:
        releases = list(Release.objects.select_related("status"))
        if releases:
            release = releases[chosen % len(releases)]
            last = PointerMove.objects.order_by("-revision").first()
            revision = last.revision if last else 0
            self.do(
                action,
                lambda: decide.decide(action, release, actor=APPROVER, reason="a trial", revision=revision),
            )

    @rule()
    def pin(self) -> None:
        self.do("pin", lambda: decide.pin(actor=APPROVER, reason="a trial"))

    def check(self) -> None:
        for release in Release.objects.prefetch_related("coins__dataset", "coins__bundle"):
            for row in release.coins.all():
                assert row.dataset.interval_seconds == release.interval_seconds
                assert row.bundle is None or row.bundle.interval_seconds == release.interval_seconds
        for bundle in Bundle.objects.exclude(dataset=None).select_related("dataset"):
            assert bundle.dataset is not None
            assert bundle.interval_seconds == bundle.dataset.interval_seconds
        for row in Measurement.objects.select_related("bundle", "dataset", "baseline"):
            assert row.bundle.interval_seconds == row.dataset.interval_seconds
            assert row.baseline is None or row.baseline.interval_seconds == row.bundle.interval_seconds
        moves = PointerMove.objects.exclude(release=None).values_list("release__interval_seconds", flat=True)
        registered = FallbackRegistration.objects.values_list("release__interval_seconds", flat=True)
        assert len({*moves, *registered}) <= 1


def test_no_sequence_of_calls_mixes_two_intervals() -> None:
    trials = settings(
        max_examples=40,
        stateful_step_count=20,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    Desk.counts.clear()
    run_state_machine_as_test(Desk, settings=trials)
    succeeded = {"launch", "settle", "measure", "pin", Action.INHERIT, Action.REGISTER, Action.APPROVE}
    assert Desk.counts.keys() >= succeeded, "or the trials show nothing"
