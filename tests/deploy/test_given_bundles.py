"""A release of bundles that are there already: measured, judged and decided on like any other."""

from typing import Any

import pytest
from django.core.management import call_command

from audit.models import AuditEvent
from common.errors import InvalidInput
from deploy.models import Release
from deploy.pointer import pointer
from deploy.releases import decide, settle
from deploy.releases.launch import launch
from deploy.rules import Purpose, ReleaseState
from tests import scenarios
from tests.scenarios import APPROVER, LAUNCHER
from training.models import Bundle, Dataset, TrainingRun

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql]


def candles() -> dict[str, Dataset]:
    return {coin.symbol: scenarios.dataset(coin) for coin in scenarios.coins()}


def bundles(line: str, figures: Any, datasets: dict[str, Dataset]) -> dict[str, Bundle]:
    """A bundle for every coin, measured: the queue of a worker is not what is tested here."""
    made = {}
    for coin in scenarios.coins():
        made[coin.symbol] = scenarios.bundle(coin, datasets[coin.symbol], line, seed=1)
        scenarios.add_measurement(made[coin.symbol], datasets[coin.symbol], figures(coin.symbol))
    return made


def launched(line: str, figures: Any, purpose: Purpose) -> Release:
    datasets = candles()
    given = bundles(line, figures, datasets)
    release = launch(line, actor=LAUNCHER, datasets=datasets, bundles=given, purpose=purpose)
    settle.advance(release)
    return Release.objects.select_related("status").get(pk=release.pk)


def test_nothing_is_trained_and_the_launch_names_the_bundles() -> None:
    release = launched("v7_fixed", scenarios.healthy, Purpose.CANDIDATE)
    assert release.state == ReleaseState.AWAITING_APPROVAL, release.status.reason
    assert not TrainingRun.objects.exists()
    digests = {release_coin.bundle.digest for release_coin in release.coins.all() if release_coin.bundle}
    body = AuditEvent.objects.get(kind="release.launched", object_id=str(release.pk)).body
    assert len(digests) == 3 and all(digest in body for digest in digests)


def test_bundles_that_do_not_pass_are_rejected_like_any() -> None:
    assert launched("v6_enhanced", scenarios.collapsed, Purpose.CANDIDATE).state == ReleaseState.REJECTED


def test_they_can_be_inherited_whatever_they_are_worth() -> None:
    release = launched("v6_enhanced", scenarios.collapsed, Purpose.INHERITED)
    move = decide.inherit(release, actor=APPROVER, reason="what the bot runs today")
    assert move.revision == 1
    assert pointer.get_current() == move
    assert move.release == release


def test_they_can_be_registered_as_the_fallback_once_its_gates_pass() -> None:
    release = launched("v5", scenarios.inaccurate, Purpose.FALLBACK)
    assert release.state == ReleaseState.STANDBY, release.status.reason
    decide.register_fallback(release, actor=APPROVER, reason="the bot's own v5")
    assert pointer.get_fallback() == release


def test_a_coin_that_is_not_named_is_trained() -> None:
    datasets = candles()
    given = bundles("v7_fixed", scenarios.healthy, datasets)
    del given["SOL"]
    release = launch("v7_fixed", actor=LAUNCHER, datasets=datasets, bundles=given)
    settle.advance(release)
    assert [run.coin.symbol for run in TrainingRun.objects.all()] == ["SOL"]
    assert release.budget.runs_expected == 1


@pytest.mark.parametrize(
    ("named", "line", "says"),
    [
        ({"BTC": "ETH"}, "v7_fixed", "ETH's, not BTC's"),
        ({"BTC": "BTC"}, "v5", "this release is of v5"),
        ({"DOGE": "BTC"}, "v7_fixed", "not a required coin"),
    ],
    ids=["another coin's", "another line's", "of no required coin"],
)
def test_what_does_not_belong_is_refused(named: dict[str, str], line: str, says: str) -> None:
    datasets = candles()
    given = bundles("v7_fixed", scenarios.healthy, datasets)
    with pytest.raises(InvalidInput, match=says) as refusal:
        launch(line, actor=LAUNCHER, datasets=datasets, bundles={at: given[of] for at, of in named.items()})
    assert refusal.value.field == "bundles"
    assert not Release.objects.exists()


def test_one_from_a_simulated_market_is_not_measured_on_real_candles() -> None:
    coin = scenarios.coins()[0]
    simulated = scenarios.bundle(coin, scenarios.dataset(coin, is_simulated=True), "v7_fixed", seed=1)
    with pytest.raises(InvalidInput, match="simulated market"):
        launch("v7_fixed", actor=LAUNCHER, datasets=candles(), bundles={coin.symbol: simulated})


@pytest.mark.usefixtures("operator")
def test_the_command_takes_the_beginning_of_a_digest(capsys: pytest.CaptureFixture[str]) -> None:
    given = bundles("v7_fixed", scenarios.healthy, candles())
    words = [f"--bundle={coin}={bundle.digest[:20]}" for coin, bundle in given.items()]
    call_command("release", "--line", "v7_fixed", *words, "--as", "olivia")
    assert {release_coin.bundle for release_coin in Release.objects.get().coins.all()} == set(given.values())
    with pytest.raises(SystemExit):
        call_command("release", "--line", "v7_fixed", "--bundle=BTC=sha256:none", "--as", "olivia")
    assert "No bundle's digest begins with" in capsys.readouterr().err
