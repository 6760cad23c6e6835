"""Launching, cancelling, and settling by deadline."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from accounts.roles import Actor, Role
from audit import services as audit
from audit.models import AuditEvent
from common.errors import Conflict, DomainError, InvalidInput, NotAllowed
from deploy.forms import DatasetField, LaunchForm
from deploy.models import Release, ReleaseCoin
from deploy.outcomes import list_release_coins
from deploy.pointer import pointer
from deploy.reconcile import reconcile_once
from deploy.releases import decide, settle
from deploy.releases.launch import launch
from deploy.releases.settle import advance
from deploy.rules import Purpose, ReleaseState
from tests import scenarios
from tests.scenarios import APPROVER, LAUNCHER, VIEWER
from training.models import TrainingRun
from training.rules import JobState

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql]


@pytest.fixture
def candles() -> dict[str, scenarios.Dataset]:
    return {coin.symbol: scenarios.dataset(coin) for coin in scenarios.coins()}


def launched() -> Release:
    release = launch("v7_fixed", actor=LAUNCHER, parameters={"epochs": 5})
    advance(release)
    return Release.objects.get(pk=release.pk)


def test_a_launch_starts_a_run_for_every_required_coin(candles: dict[str, scenarios.Dataset]) -> None:
    release = launched()
    runs = TrainingRun.objects.order_by("coin__symbol")
    assert [(run.coin.symbol, run.state, run.epochs) for run in runs] == [
        (coin, JobState.QUEUED, 5) for coin in scenarios.COINS
    ]
    assert {run.launched_by for run in runs} == {"olivia"}
    assert {run.budget_id for run in runs} == {release.budget_id}
    assert release.state == ReleaseState.BUILDING
    assert AuditEvent.objects.filter(kind="release.launched", object_id=str(release.pk)).count() == 1


def test_advancing_again_starts_nothing_twice(candles: dict[str, scenarios.Dataset]) -> None:
    release = launched()
    advance(release)
    reconcile_once()
    assert TrainingRun.objects.count() == 3


def test_a_coin_that_is_not_required_takes_no_part(candles: dict[str, scenarios.Dataset]) -> None:
    scenarios.Coin.objects.create(symbol="DOGE", is_required=False)
    assert launched().coins.count() == 3


@pytest.mark.parametrize(
    ("line", "parameters", "says"),
    [
        ("v8", {}, "v8"),
        ("v7_fixed", {"epochs": 0}, "epochs"),
        ("v7_fixed", {"epochs": 51}, "epochs"),
        ("v7_fixed", {"batch_size": 8}, "batch_size"),
        ("v7_fixed", {"batch_size": 5000}, "batch_size"),
        ("v7_fixed", {"revision": 5}, "revision"),
        ("v7_fixed", {"epochs": "many"}, "epochs"),
    ],
)
def test_a_launch_with_wrong_parameters_writes_only_its_refusal(
    candles: dict[str, scenarios.Dataset], line: str, parameters: dict[str, object], says: str
) -> None:
    with pytest.raises(InvalidInput, match=says):
        launch(line, actor=LAUNCHER, parameters=parameters)
    assert not Release.objects.exists()
    refused = AuditEvent.objects.latest("seq")
    assert (refused.kind, refused.actor, refused.object_id) == ("release.launch.refused", "olivia", "")
    assert refused.object_name == f"a release of {line}"
    assert not audit.verify()


@pytest.mark.parametrize("verdict", ["failed", "inconclusive", "error"])
@pytest.mark.parametrize("purpose", list(Purpose))
def test_candles_that_did_not_pass_train_no_release(verdict: str, purpose: Purpose) -> None:
    btc, *others = scenarios.coins()
    for coin in others:
        scenarios.dataset(coin)
    unsound = scenarios.dataset(btc, verdict=verdict)
    with pytest.raises(Conflict, match=rf"BTC's candles \(dataset {unsound.pk}\) did not pass: {verdict}"):
        launch("v7_fixed", actor=LAUNCHER, purpose=purpose)
    assert not Release.objects.exists()
    assert "did not pass" in AuditEvent.objects.get(kind="release.launch.refused").body


def test_the_database_itself_keeps_unsound_candles_out_of_a_release(
    candles: dict[str, scenarios.Dataset],
) -> None:
    release, (btc, *_) = launched(), scenarios.coins()
    unsound = scenarios.dataset(btc, name="noise", verdict="failed")
    doge = scenarios.Coin.objects.create(symbol="DOGE", is_required=False)
    with pytest.raises(IntegrityError, match="did not pass"), transaction.atomic():
        ReleaseCoin.objects.create(release=release, coin=doge, dataset=unsound)


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_a_seed_out_of_range_is_refused(candles: dict[str, scenarios.Dataset], seed: int) -> None:
    with pytest.raises(InvalidInput, match="seed"):
        launch("v7_fixed", actor=LAUNCHER, seed=seed)


@pytest.mark.parametrize("actor", [VIEWER, APPROVER], ids=["a viewer", "an approver"])
def test_launching_takes_an_operator(candles: dict[str, scenarios.Dataset], actor: Actor) -> None:
    with pytest.raises(NotAllowed, match="operator role"):
        launch("v7_fixed", actor=actor)


def test_a_coin_without_candles_is_named() -> None:
    btc, *_ = scenarios.coins()
    scenarios.dataset(btc)
    with pytest.raises(InvalidInput, match="ETH has no candles yet"):
        launch("v7_fixed", actor=LAUNCHER)


def test_too_few_candles_train_nothing_but_measure_a_given_bundle(
    candles: dict[str, scenarios.Dataset],
) -> None:
    btc, *_ = scenarios.coins()
    short = scenarios.dataset(btc, name="short", rows=999)
    with pytest.raises(InvalidInput, match="999 bars; training needs at least 1,000"):
        launch("v7_fixed", actor=LAUNCHER, datasets={"BTC": short})
    assert Release.objects.count() == 0
    made = scenarios.bundle(btc, candles["BTC"], "v7_fixed", seed=1)
    release = launch("v7_fixed", actor=LAUNCHER, datasets={"BTC": short}, bundles={"BTC": made})
    assert release.state == ReleaseState.BUILDING


def test_failed_datasets_are_chosen_only_if_a_coin_has_no_others() -> None:
    btc, *others = scenarios.coins()
    for coin in others:
        scenarios.dataset(coin)
    noise = scenarios.dataset(btc, name="noise", verdict="failed")
    with pytest.raises(DomainError, match="did not pass"):
        launch("v7_fixed", actor=LAUNCHER)
    sound = scenarios.dataset(btc)
    shuffled = scenarios.dataset(btc, name="shuffled", verdict="failed")
    assert launched().coins.get(coin=btc).dataset == sound
    offered = LaunchForm("v7_fixed").fields["dataset_BTC"]
    assert isinstance(offered, DatasetField)
    assert list(offered.queryset or ()) == [sound, shuffled, noise]
    assert offered.initial == sound
    assert offered.label_from_instance(noise).endswith(", failed")


def test_another_coins_candles_are_refused(candles: dict[str, scenarios.Dataset]) -> None:
    with pytest.raises(InvalidInput, match="holds BTC's candles, not ETH's"):
        launch("v7_fixed", actor=LAUNCHER, datasets={"ETH": candles["BTC"]})
    with pytest.raises(InvalidInput, match="XRP: not a required coin"):
        launch("v7_fixed", actor=LAUNCHER, datasets={"XRP": candles["BTC"]})


def test_a_cancelled_release_settles_at_once_and_pins_the_fallback(
    candles: dict[str, scenarios.Dataset],
) -> None:
    scenarios.service_in_use()
    release = decide.cancel(launched(), actor=LAUNCHER, reason="wrong batch size")
    assert (release.state, release.shown_state) == (ReleaseState.REJECTED, "cancelled")
    assert "cancelled by olivia: wrong batch size" in release.status.reason
    assert {release_coin.run and release_coin.run.state for release_coin in release.coins.all()} == {
        JobState.CANCELLED
    }
    now = pointer.get_current()
    assert now is not None
    assert now.kind == "pin"
    with pytest.raises(Conflict, match="is rejected"):
        decide.cancel(release, actor=LAUNCHER, reason="again")


def test_a_cancel_whose_process_was_killed_is_carried_out_by_the_next_look(
    candles: dict[str, scenarios.Dataset],
) -> None:
    release = launched()
    release.status.cancel_requested_at = timezone.now()
    release.status.save(update_fields=["cancel_requested_at"])
    reconcile_once()
    release = Release.objects.get(pk=release.pk)
    assert release.state == ReleaseState.REJECTED
    assert "BTC: cancelled" in release.status.reason
    assert {release_coin.run and release_coin.run.state for release_coin in release.coins.all()} == {
        JobState.CANCELLED
    }


def test_no_run_starts_for_a_release_called_off_since_it_was_read(
    candles: dict[str, scenarios.Dataset],
) -> None:
    release = launch("v7_fixed", actor=LAUNCHER)
    read_before = Release.objects.select_related("status", "budget").get(pk=release.pk)
    (release_coin, *_) = list_release_coins(read_before)
    decide.cancel(release, actor=LAUNCHER, reason="another batch size")
    settle._advance_coin(read_before, release_coin)
    assert not TrainingRun.objects.exists()


def test_an_inherited_release_measured_to_the_end_can_be_cancelled() -> None:
    scenarios.service_in_use()
    release = scenarios.Build(line="v6_enhanced", purpose=Purpose.INHERITED, seed=9).release()
    advance(release)
    before = pointer.get_current()
    release = decide.cancel(release, actor=LAUNCHER, reason="launched twice")
    assert release.state == ReleaseState.REJECTED
    assert "launched twice" in release.status.reason
    assert pointer.get_current() == before


def test_cancelling_takes_an_operator_and_a_reason(candles: dict[str, scenarios.Dataset]) -> None:
    release = launched()
    for actor, reason in ((APPROVER, "no"), (LAUNCHER, "")):
        with pytest.raises(DomainError):
            decide.cancel(release, actor=actor, reason=reason)
    assert Release.objects.get(pk=release.pk).state == ReleaseState.BUILDING
    assert AuditEvent.objects.filter(kind="release.cancel.refused").count() == 2


def test_a_release_past_its_deadline_settles_with_what_is_missing(
    candles: dict[str, scenarios.Dataset], settings: object
) -> None:
    settings.RELEASE_DEADLINE_SECONDS = -1  # type: ignore[attr-defined]
    release = launched()
    assert release.state == ReleaseState.REJECTED
    assert "BTC: not finished by its deadline" in release.status.reason


def test_a_run_that_failed_counts_as_an_error_of_its_coin(candles: dict[str, scenarios.Dataset]) -> None:
    release = launched()
    for run in TrainingRun.objects.all():
        audit.transition(run, JobState.FAILED, actor="worker", failure="out of memory")
    advance(release)
    release = Release.objects.get(pk=release.pk)
    assert release.state == ReleaseState.REJECTED
    assert "failed: out of memory" in release.status.reason


def test_a_second_release_cannot_be_launched_to_be_inherited(candles: dict[str, scenarios.Dataset]) -> None:
    scenarios.inherited()
    with pytest.raises(Conflict, match="first pointer already"):
        launch("v6_enhanced", actor=LAUNCHER, purpose=Purpose.INHERITED)


@pytest.mark.parametrize("purpose", [Purpose.CANDIDATE, Purpose.INHERITED])
def test_the_flat_line_is_launched_as_a_fallback_only(
    candles: dict[str, scenarios.Dataset], purpose: Purpose
) -> None:
    with pytest.raises(InvalidInput, match="always answers neutral, so it can only be a fallback") as refused:
        launch("flat", actor=LAUNCHER, purpose=purpose)
    assert refused.value.field == "purpose"
    assert launch("flat", actor=LAUNCHER, purpose=Purpose.FALLBACK).line == "flat"


def test_launched_releases_are_due_within_three_hours(candles: dict[str, scenarios.Dataset]) -> None:
    operator = Actor("oscar", frozenset({Role.OPERATOR}))
    release = launch("v7_fixed", actor=operator)
    assert timedelta(hours=2, minutes=59) < release.deadline_at - timezone.now() <= timedelta(hours=3)


def test_reconcile_cancels_the_runs_of_a_rejected_release(
    candles: dict[str, scenarios.Dataset],
) -> None:
    release = launched()
    audit.transition(
        release.status, ReleaseState.REJECTED, actor="a process that died right here", reason="x"
    )
    reconcile_once()
    assert set(TrainingRun.objects.values_list("state", flat=True)) == {JobState.CANCELLED}


def test_simulated_and_real_candles_do_not_meet_in_one_release(candles: dict[str, scenarios.Dataset]) -> None:
    simulated = scenarios.dataset(scenarios.Coin.objects.get(symbol="BTC"), name="b", is_simulated=True)
    with pytest.raises(
        InvalidInput, match=r"does not mix simulated and real candles: BTC's dataset \d+ is simulated"
    ):
        launch("v7_fixed", actor=LAUNCHER)
    with pytest.raises(InvalidInput, match="does not mix"):
        launch("v7_fixed", actor=LAUNCHER, datasets={"BTC": simulated})
    assert launch("v7_fixed", actor=LAUNCHER, datasets={"BTC": candles["BTC"]}).is_simulated is False
