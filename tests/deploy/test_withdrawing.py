"""Candles that were stored wrongly are taken back: they judge no others and carry no release, and nothing is forgotten."""

import json
from collections.abc import Callable

import polars as pl
import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from accounts.roles import Actor
from audit import services as audit
from audit.models import AuditEvent
from common.errors import Conflict, DomainError, InvalidInput, NotAllowed
from deploy.forms import DatasetField
from deploy.models import Release
from deploy.pointer import pointer
from deploy.releases import decide
from deploy.releases.launch import launch
from deploy.releases.withdraw_dataset import withdraw_dataset
from gates.context import build_context
from mlcore.verdict import Verdict
from tests import factories, market_candles, scenarios
from tests.deploy.commands import run
from tests.scenarios import APPROVER, LAUNCHER, VIEWER
from training.models import Bundle, Coin, Dataset, RunLine
from training.services import candle_checks, datasets, runs

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql, pytest.mark.slow]


def withdraw(dataset: Dataset, actor: Actor = LAUNCHER, reason: str = "ETH's, brought as BTC's") -> Dataset:
    return withdraw_dataset(dataset, actor=actor, reason=reason)


def kinds() -> list[str]:
    rows = AuditEvent.objects.filter(kind__startswith="dataset.withdr").order_by("seq")
    return list(rows.values_list("kind", flat=True))


@pytest.fixture
def mistaken() -> tuple[Dataset, Dataset]:
    """ETH's candles stored as BTC's, and so ETH's own refused."""
    btc, eth, _ = scenarios.coins()
    candles: pl.DataFrame = market_candles.generate(2000)
    return factories.import_candles(btc, candles), factories.import_candles(eth, candles)


def test_a_dataset_refused_because_of_withdrawn_ones_can_be_imported_again(
    mistaken: tuple[Dataset, Dataset],
) -> None:
    wrong, refused = mistaken
    assert (wrong.verdict, refused.verdict) == (Verdict.PASSED, Verdict.FAILED)
    assert candle_checks.list_datasets_refused_for(wrong) == [refused]
    withdraw(wrong)
    assert f"Dataset {wrong.pk}, which it was compared with, was withdrawn" in candle_checks.format_verdict(
        refused
    )
    assert (
        factories.import_candles(refused.coin, market_candles.generate(2000)) == refused
    )  # what was said stays said
    withdraw(refused, reason="judged beside dataset 1")
    again = factories.import_candles(refused.coin, market_candles.generate(2000))
    assert (again.verdict, again.digest) == (Verdict.PASSED, refused.digest)
    assert again != refused
    assert candle_checks.require_passed(again) == again


def test_the_event_names_the_datasets_refused_because_of_it(mistaken: tuple[Dataset, Dataset]) -> None:
    wrong, refused = mistaken
    withdraw(wrong)
    event = AuditEvent.objects.get(kind="dataset.withdrawn")
    detail = json.loads(event.body)["detail"]
    assert (event.actor, event.reason, detail["refused_datasets"]) == (
        "olivia",
        "ETH's, brought as BTC's",
        [refused.pk],
    )
    assert audit.verify() == []


def test_a_failed_comparison_names_the_other_dataset(mistaken: tuple[Dataset, Dataset]) -> None:
    wrong, refused = mistaken
    (check,) = (row for row in candle_checks.load_checks(refused) if row["check"] == "other_coins")
    assert check["compared_with"] == wrong.pk


def test_what_failed_for_another_reason_names_no_way_on() -> None:
    btc = scenarios.coins()[0]
    noise = factories.import_candles(btc, market_candles.random_levels(2000))
    withdraw(scenarios.dataset(btc))
    assert "withdrawn" not in candle_checks.format_verdict(noise)
    assert candle_checks.list_datasets_refused_for(noise) == []


def test_withdrawn_candles_are_neither_offered_nor_taken_for_a_release() -> None:
    coins = scenarios.coins()
    older, newer = scenarios.dataset(coins[0], name="a"), scenarios.dataset(coins[0], name="b")
    for coin in coins[1:]:
        scenarios.dataset(coin)
    withdrawn = withdraw(newer)
    assert list(DatasetField(coins[0], older).queryset or ()) == [older]
    assert datasets.latest_dataset(coins[0]) == older
    with pytest.raises(candle_checks.CandlesNotPassed, match=r"withdrawn by olivia on .*brought as BTC's"):
        launch("v7_fixed", actor=LAUNCHER, datasets={"BTC": withdrawn})
    assert launch("v7_fixed", actor=LAUNCHER).coins.get(coin=coins[0]).dataset == older


def test_a_coin_whose_only_candles_are_withdrawn_has_none() -> None:
    for coin in scenarios.coins():
        scenarios.dataset(coin)
    withdraw(Dataset.objects.get(coin__symbol="SOL"))
    with pytest.raises(InvalidInput, match="SOL has no candles"):
        launch("v7_fixed", actor=LAUNCHER)


def test_a_bundle_of_withdrawn_candles_is_not_launched() -> None:
    coins = scenarios.coins()
    data = {coin: scenarios.dataset(coin) for coin in coins}
    made = scenarios.bundle(coins[0], scenarios.dataset(coins[0], name="wrong"), "v7_fixed", seed=1)
    assert made.dataset is not None
    withdraw(made.dataset)
    with pytest.raises(InvalidInput, match="which was withdrawn"):
        launch("v7_fixed", actor=LAUNCHER, bundles={"BTC": Bundle.objects.get(pk=made.pk)})
    assert Dataset.objects.get(pk=data[coins[0]].pk).withdrawn_at is None


def test_the_database_takes_no_release_on_them() -> None:
    release = scenarios.Build().release()
    other = withdraw(scenarios.dataset(scenarios.coins()[0], name="other"))
    release_coin = release.coins.first()
    assert release_coin is not None
    release_coin.pk, release_coin.dataset, release_coin.coin = None, other, Coin.objects.create(symbol="DOT")
    with pytest.raises(IntegrityError, match="did not pass"), transaction.atomic():
        release_coin.save(force_insert=True)


def test_a_debug_run_on_them_warns() -> None:
    coin = scenarios.coins()[0]
    withdrawn = withdraw(scenarios.dataset(coin))
    runs.launch_run(
        coin=coin,
        dataset=withdrawn,
        line="v7_fixed",
        parameters={},
        seed=1,
        budget=runs.open_budget(),
        actor=LAUNCHER,
    )
    assert "were withdrawn by olivia" in RunLine.objects.get().text


def superseded() -> Release:
    scenarios.service_in_use()
    first = scenarios.Build(seed=1, is_simulated=True).settled()
    decide.approve(first, actor=APPROVER, reason="passed", revision=1)
    decide.approve(scenarios.awaiting_approval(2), actor=APPROVER, reason="passed", revision=2)
    return Release.objects.get(pk=first.pk)


def test_a_release_that_stood_on_them_is_not_restored() -> None:
    release = superseded()
    withdraw(release.coins.get(coin__symbol="ETH").dataset)
    with pytest.raises(Conflict, match=r"withdrawn since \(ETH\)"):
        decide.restore(release, actor=APPROVER, reason="the old one was better", revision=3)


def test_a_diagnosis_from_then_on_says_so() -> None:
    release = superseded()
    release_coin = release.coins.get(coin__symbol="ETH")
    assert release_coin.diagnosis is not None
    withdraw(release_coin.dataset)
    candles = build_context(release_coin.diagnosis.measurement)["candles"]["measured"]
    assert (candles["verdict"], "withdrawn by olivia" in candles["sentence"]) == ("failed", True)


def building() -> Release:
    return scenarios.Build().release()


def live() -> Release:
    scenarios.service_in_use()
    release = scenarios.Build(is_simulated=True).settled()
    decide.approve(release, actor=APPROVER, reason="passed", revision=1)
    return release


def registered() -> Release:
    return scenarios.fallback()


def pinned() -> Release:
    scenarios.service_in_use()
    decide.pin(actor=APPROVER, reason="to be safe")
    now = pointer.get_current()
    assert now is not None and now.release is not None
    return now.release


@pytest.mark.parametrize("stands", [building, scenarios.awaiting_approval, live, registered, pinned])
def test_candles_that_a_release_stands_on_stay(stands: Callable[[], Release]) -> None:
    release = stands()
    dataset = release.coins.get(coin__symbol="BTC").dataset
    with pytest.raises(Conflict, match=rf"it is used by release {release.pk} \("):
        withdraw(dataset)
    assert kinds() == ["dataset.withdraw.refused"]
    with pytest.raises(IntegrityError, match="stands on these candles"), transaction.atomic():
        audit.record("dataset.withdrawn", dataset, actor=LAUNCHER)
        Dataset.objects.filter(pk=dataset.pk).update(withdrawn_at=timezone.now())


@pytest.mark.parametrize(
    ("given", "error"),
    [({"actor": VIEWER}, NotAllowed), ({"reason": " "}, InvalidInput)],
    ids=["by a viewer", "without a reason"],
)
def test_a_refused_withdrawal_leaves_an_event_and_nothing_else(
    given: dict[str, object], error: type[DomainError]
) -> None:
    dataset = scenarios.dataset(scenarios.coins()[0])
    with pytest.raises(error):
        withdraw(dataset, **given)  # type: ignore[arg-type]
    dataset.refresh_from_db()
    assert (dataset.is_withdrawn, kinds()) == (False, ["dataset.withdraw.refused"])


def test_it_is_said_once() -> None:
    dataset = withdraw(scenarios.dataset(scenarios.coins()[0]), actor=APPROVER)
    with pytest.raises(Conflict, match=r"withdrawn by anna .* neither repeated"):
        withdraw(dataset)
    assert kinds() == ["dataset.withdrawn", "dataset.withdraw.refused"]


@pytest.mark.parametrize(
    "change",
    [{"withdrawn_at": None}, {"withdrawn_by": "nobody"}, {"withdrawn_reason": "another"}],
    ids=["taken back", "by another", "for another reason"],
)
def test_nobody_changes_it_behind_the_services_back(change: dict[str, object]) -> None:
    dataset = withdraw(scenarios.dataset(scenarios.coins()[0]))
    with pytest.raises(IntegrityError, match="withdrawn once"), transaction.atomic():
        audit.record("dataset.withdrawn", dataset, actor=LAUNCHER)
        Dataset.objects.filter(pk=dataset.pk).update(**change)


def test_without_its_event_the_database_refuses_it() -> None:
    dataset = scenarios.dataset(scenarios.coins()[0])
    with pytest.raises(IntegrityError, match="under their own event alone"), transaction.atomic():
        Dataset.objects.filter(pk=dataset.pk).update(withdrawn_at=timezone.now(), withdrawn_by="olivia")


def test_the_command_names_the_datasets_refused_because_of_it(mistaken: tuple[Dataset, Dataset]) -> None:
    factories.person("olivia", "operator")
    wrong, refused = mistaken
    status, said = run("withdraw_dataset", str(wrong.pk), "--reason", "ETH's", "--as", "olivia")
    assert (status, "withdrawn by olivia: ETH's" in said) == (0, True)
    assert f"dataset {refused.pk} was refused beside it" in said
    status, said = run("withdraw_dataset", str(wrong.pk), "--reason", "again", "--as", "olivia")
    assert (status, "neither repeated" in said) == (1, True)
