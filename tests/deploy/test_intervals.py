"""One service, one bar interval (rule 31): no sequence of calls mixes two."""

from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit import services as audit
from audit import triggers
from common.errors import Conflict, DomainError, InvalidInput
from deploy.forms import LaunchForm
from deploy.models import PointerMove, Release
from deploy.pointer import pointer
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


class Desk:
    """People who import, launch and decide with two intervals at hand. A refusal is an answer like any other."""

    def __init__(self, intervals: dict[str, int], other: dict[str, int]) -> None:
        self.intervals, self.other = intervals, other
        self.done = Counter[str]()

    def launch(self, line: str) -> None:
        """On datasets of the line's interval, but for the `other` coins; of bundles of the line's interval."""
        interval = self.intervals[line]
        data, given = candles(interval, **self.other), prepare(line, candles(interval))
        launch(line, actor=LAUNCHER, datasets=data, bundles=given, purpose=PURPOSES[line])

    def launch_on_defaults(self, line: str) -> None:
        given = prepare(line, candles(self.intervals[line]))
        launch(line, actor=LAUNCHER, bundles=given, purpose=PURPOSES[line])

    def settle(self, line: str) -> None:
        for release in Release.objects.filter(line=line, status__state="building"):
            settle.advance(release)

    def measure(self, line: str) -> None:
        bundle = prepare(line, candles(self.intervals[line]))["BTC"]
        measuring.measure(bundle, candles(HOUR)["BTC"], actor=LAUNCHER, again=True)

    def decide(self, line: str) -> None:
        """Everything that the state of a release of this line allows, but for what ends it."""
        for release in Release.objects.select_related("status").filter(line=line):
            for action in sorted(
                (release.allowed_actions | {Action.INHERIT}) - {Action.CANCEL, Action.DECLINE}
            ):
                last = PointerMove.objects.order_by("-revision").first()
                self.attempt(
                    action,
                    lambda action=action, release=release, last=last: decide.decide(
                        Action(action),
                        release,
                        actor=APPROVER,
                        reason="a trial",
                        revision=last.revision if last else 0,
                    ),
                )

    def pin(self, line: str) -> None:
        decide.pin(actor=APPROVER, reason="a trial")

    def attempt(self, name: str, act: Any) -> None:
        with suppress(DomainError), transaction.atomic():
            act()
            self.done[name] += 1

    def check(self) -> None:
        for release in Release.objects.prefetch_related("coins__dataset", "coins__bundle"):
            for row in release.coins.all():
                assert row.dataset.interval_seconds == release.interval_seconds
                assert row.bundle is None or row.bundle.interval_seconds == release.interval_seconds
        for bundle in Bundle.objects.exclude(dataset=None).select_related("dataset"):
            assert bundle.dataset is not None
            assert bundle.interval_seconds == bundle.dataset.interval_seconds
        for each in Measurement.objects.select_related("bundle", "dataset"):
            assert each.bundle.interval_seconds == each.dataset.interval_seconds
        moves = PointerMove.objects.exclude(release=None).values_list("release__interval_seconds", flat=True)
        fallback = pointer.get_fallback()
        assert len({*moves, *([fallback.interval_seconds] if moves and fallback else [])}) <= 1


CALLS = [
    (name, line)
    for name in ("launch", "launch_on_defaults", "settle", "measure", "decide", "pin")
    for line in FIGURES
]
interval_choice = st.sampled_from([HOUR, FOUR_HOURS])
seen = Counter[str]()


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    intervals=st.fixed_dictionaries(dict.fromkeys(FIGURES, interval_choice)),
    other=st.dictionaries(st.sampled_from(scenarios.COINS), interval_choice, max_size=1),
    order=st.permutations(CALLS),
)
def try_every_call(intervals: dict[str, int], other: dict[str, int], order: list[tuple[str, str]]) -> None:
    """Three times in this order, so that what the first calls need is there for the later ones."""
    with transaction.atomic():
        desk = Desk(intervals, other)
        for name, line in order * 3:
            desk.attempt(name, lambda name=name, line=line: getattr(desk, name)(line))
        desk.check()
        seen.update(desk.done)
        transaction.set_rollback(True)


def test_no_sequence_of_calls_mixes_two_intervals() -> None:
    seen.clear()
    try_every_call()
    wanted = {name for name, _ in CALLS} | {Action.INHERIT, Action.REGISTER, Action.APPROVE, Action.RESTORE}
    assert seen.keys() >= wanted, "or the trials show nothing"
