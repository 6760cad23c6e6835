"""Every dataset has a verdict, which never changes and decides whether a release may train on it."""

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from django.core.management import call_command
from django.db import IntegrityError, transaction

from audit.models import AuditEvent
from deploy.releases.withdraw_dataset import withdraw_dataset
from mlcore.verdict import Verdict
from tests import factories, market_candles
from training import artifact_store
from training.models import Coin, Dataset, RunLine
from training.services import candle_checks, coins, datasets

pytestmark = pytest.mark.django_db


@pytest.fixture
def btc() -> Coin:
    return coins.find_coin("BTC")


def test_a_market_passes_and_its_event_says_so(btc: Coin) -> None:
    dataset = factories.import_candles(btc, market_candles.generate(2000))
    assert dataset.verdict == Verdict.PASSED
    assert candle_checks.require_passed(dataset) == dataset
    assert {row["verdict"] for row in candle_checks.load_checks(dataset)} == {"passed"}
    detail = json.loads(AuditEvent.objects.get(kind="dataset.added").body)["detail"]
    assert (detail["verdict"], detail["failed_checks"]) == ("passed", [])


def test_noise_is_stored_but_refused_for_a_release(btc: Coin) -> None:
    dataset = factories.import_candles(btc, market_candles.random_levels(7122))
    assert dataset.verdict == Verdict.FAILED
    assert artifact_store.read_candles(dataset).height == 7122
    with pytest.raises(
        candle_checks.CandlesNotPassed, match=r"variance_ratio failed: 0\.06 .*required 0\."
    ) as refusal:
        candle_checks.require_passed(dataset)
    assert refusal.value.status == 409
    detail = json.loads(AuditEvent.objects.get(kind="dataset.added").body)["detail"]
    assert any(line.startswith("variance_ratio failed") for line in detail["failed_checks"])


def test_too_few_bars_are_inconclusive_which_is_not_passed(btc: Coin) -> None:
    dataset = factories.import_candles(btc, market_candles.generate(400))
    assert dataset.verdict == Verdict.INCONCLUSIVE
    with pytest.raises(candle_checks.CandlesNotPassed, match="400 bars, required ≥ 1,000 bars"):
        candle_checks.require_passed(dataset)


def test_candles_of_another_coin_fail_and_name_the_dataset(btc: Coin) -> None:
    first = factories.import_candles(coins.find_coin("ETH"), market_candles.generate(2000))
    second = factories.import_candles(btc, market_candles.generate(2000)[:-1])
    assert (first.verdict, second.verdict) == (Verdict.PASSED, Verdict.FAILED)
    assert f"ETH's dataset {first.pk}" in candle_checks.format_verdict(second)


def test_candles_that_failed_are_no_evidence_against_others(btc: Coin) -> None:
    factories.import_candles(btc, market_candles.random_levels(2000))
    assert factories.import_candles(btc, market_candles.generate(2000)).verdict == Verdict.PASSED


def test_a_simulated_market_passes_as_itself_and_never_as_a_real_one(btc: Coin) -> None:
    made = datasets.simulate_candles(
        btc, bars=2000, drift=1.2345678, seed=7, actor=factories.OPERATOR
    ).dataset
    assert made.verdict == Verdict.PASSED
    frame = artifact_store.read_candles(made)
    assert factories.import_candles(coins.find_coin("ETH"), frame).verdict == Verdict.FAILED
    assert factories.import_candles(coins.find_coin("SOL"), frame, simulated=True).verdict == Verdict.PASSED


def test_withdrawn_candles_are_no_evidence_against_others(btc: Coin) -> None:
    first = factories.import_candles(coins.find_coin("ETH"), market_candles.generate(2000))
    withdraw_dataset(first, actor=factories.OPERATOR, reason="they are BTC's")
    assert factories.import_candles(btc, market_candles.generate(2000)).verdict == Verdict.PASSED


def test_the_verdict_of_a_dataset_never_changes(btc: Coin) -> None:
    dataset = factories.import_candles(btc, market_candles.random_levels(2000))
    for change in ({"verdict": "passed"}, {"check_results": "{}"}, {"verdict": ""}):
        with pytest.raises(IntegrityError, match="never change"), transaction.atomic():
            Dataset.objects.filter(pk=dataset.pk).update(**change)


def test_a_debug_run_may_train_on_anything_and_its_log_warns(btc: Coin) -> None:
    run = factories.run(factories.import_candles(btc, market_candles.random_levels(2000)), is_sent=False)
    (warning,) = RunLine.objects.filter(run=run).values_list("text", flat=True)
    assert "did not pass: variance_ratio failed" in warning
    assert warning.endswith("A release must not train on them.")


@pytest.mark.usefixtures("operator")
class TestCommand:
    @pytest.fixture
    def candles(self, tmp_path: Path) -> Callable[[pl.DataFrame], str]:
        def write(frame: pl.DataFrame) -> str:
            path = tmp_path / "BTC.csv"
            path.write_bytes(factories.to_csv(frame))
            return str(path)

        return write

    def test_candles_that_pass_exit_zero(
        self, candles: Callable[[pl.DataFrame], str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        call_command("import_candles", "BTC", candles(market_candles.generate(2000)), "--as", "olivia")
        assert "passed" in capsys.readouterr().out

    def test_refused_ones_are_kept_print_each_check_and_exit_one(
        self, candles: Callable[[pl.DataFrame], str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = candles(market_candles.random_levels(2000))
        with pytest.raises(SystemExit) as ended:
            call_command("import_candles", "BTC", path, "--as", "olivia")
        assert ended.value.code == 1
        assert "variance_ratio failed: 0.0" in capsys.readouterr().out
        assert Dataset.objects.get().verdict == Verdict.FAILED
