"""Candles carry a verdict from the moment they come in; it is said once, and decides what a release may train on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from django.core.management import call_command
from django.db import IntegrityError, transaction

from audit.models import AuditEvent
from deploy.services import withdraw_dataset
from mlcore.data.candles import encode_canonical
from mlcore.verdict import Verdict
from tests import factories, market_candles
from training import artifact_store, services
from training.models import Coin, Dataset, RunLine

pytestmark = pytest.mark.django_db


@pytest.fixture
def btc() -> Coin:
    return services.find_coin("BTC")


def csv(frame: pl.DataFrame) -> bytes:
    return frame.with_columns(pl.col("timestamp").dt.strftime("%Y-%m-%dT%H:%M:%SZ")).write_csv().encode()


def import_(coin: Coin, frame: pl.DataFrame, **more: Any) -> Dataset:
    kept = services.import_candles(coin, csv(frame), name="candles.csv", actor=factories.OPERATOR, **more)
    return kept.dataset


def before_verdicts(coin: Coin, frame: pl.DataFrame, **columns: object) -> Dataset:
    """A dataset as it was kept before there were verdicts."""
    data = encode_canonical(frame)
    return Dataset.objects.create(
        coin=coin,
        digest=f"sha256:{artifact_store.store(data)}",
        source="upload",
        rows=frame.height,
        first_at=frame["timestamp"][0],
        last_at=frame["timestamp"][-1],
        interval_seconds=3600,
        size=len(data),
        added_by="olivia",
        **columns,
    )


def test_a_market_passes_and_its_event_says_so(btc: Coin) -> None:
    dataset = import_(btc, market_candles.generate(2000))
    assert dataset.verdict == Verdict.PASSED
    assert services.require_sound(dataset) == dataset
    assert {row["verdict"] for row in services.checks_of(dataset)} == {"passed"}
    detail = json.loads(AuditEvent.objects.get(kind="dataset.added").body)["detail"]
    assert (detail["verdict"], detail["against"]) == ("passed", [])


def test_noise_is_kept_with_what_was_found_and_refused_where_a_release_would_train_on_it(btc: Coin) -> None:
    dataset = import_(btc, market_candles.random_levels(7122))
    assert dataset.verdict == Verdict.FAILED
    assert artifact_store.read_candles(dataset).height == 7122
    with pytest.raises(
        services.CandlesUnsound, match=r"variance_ratio failed: 0\.06 .*required 0\."
    ) as refusal:
        services.require_sound(dataset)
    assert refusal.value.status == 409
    detail = json.loads(AuditEvent.objects.get(kind="dataset.added").body)["detail"]
    assert any(line.startswith("variance_ratio failed") for line in detail["against"])


def test_too_few_bars_are_inconclusive_which_is_not_passed(btc: Coin) -> None:
    dataset = import_(btc, market_candles.generate(400))
    assert dataset.verdict == Verdict.INCONCLUSIVE
    with pytest.raises(services.CandlesUnsound, match="400 bars, required ≥ 1,000 bars"):
        services.require_sound(dataset)


def test_one_coins_candles_under_another_name_are_refused_and_the_dataset_named(btc: Coin) -> None:
    first = import_(services.find_coin("ETH"), market_candles.generate(2000))
    second = import_(btc, market_candles.generate(2000)[:-1])
    assert (first.verdict, second.verdict) == (Verdict.PASSED, Verdict.FAILED)
    assert f"ETH's dataset {first.pk}" in services.verdict_sentence(second)


def test_candles_that_failed_are_no_evidence_against_others(btc: Coin) -> None:
    import_(btc, market_candles.random_levels(2000))
    assert import_(btc, market_candles.generate(2000)).verdict == Verdict.PASSED


def test_a_simulated_market_passes_as_itself_and_never_as_a_real_one(btc: Coin) -> None:
    made = services.simulate_candles(btc, bars=2000, drift=1.2345678, seed=7, actor=factories.OPERATOR)
    assert made.verdict == Verdict.PASSED
    frame = artifact_store.read_candles(made)
    assert import_(services.find_coin("ETH"), frame).verdict == Verdict.FAILED
    assert import_(services.find_coin("SOL"), frame, simulated=True).verdict == Verdict.PASSED


@pytest.mark.parametrize(
    ("origin", "verdict"),
    [
        ("simulated: drift 1.2, 2,000 bars, seed 7", Verdict.PASSED),
        ("simulated: drift 1.2, 2,000 bars, seed 8", Verdict.FAILED),
        ("from a colleague", Verdict.PASSED),
    ],
    ids=["its own settings", "another seed's", "settings unknown"],
)
def test_a_simulated_dataset_from_before_is_judged_by_the_settings_it_names(
    btc: Coin, origin: str, verdict: Verdict
) -> None:
    made = services.simulate_candles(btc, bars=2000, drift=1.2, seed=7, actor=factories.OPERATOR)
    old = before_verdicts(services.find_coin("ETH"), _made_for("ETH"), is_simulated=True, origin=origin)
    assert made.verdict == Verdict.PASSED
    assert services.judged(old).verdict == verdict


def _made_for(symbol: str) -> pl.DataFrame:
    from mlcore.data.simulate import simulate

    return simulate(symbol, 2000, 1.2, 7)


def test_a_dataset_from_before_is_judged_when_first_asked_for_and_never_again(btc: Coin) -> None:
    old = before_verdicts(btc, market_candles.random_levels(2000))
    assert services.judged(old).verdict == Verdict.FAILED
    services.judged(Dataset.objects.get(pk=old.pk))
    event = AuditEvent.objects.get(kind="dataset.judged")
    assert (event.actor, event.object_id) == ("the gate", str(old.pk))


def test_withdrawn_candles_are_no_evidence_against_others(btc: Coin) -> None:
    first = import_(services.find_coin("ETH"), market_candles.generate(2000))
    withdraw_dataset(first, actor=factories.OPERATOR, reason="they are BTC's")
    assert import_(btc, market_candles.generate(2000)).verdict == Verdict.PASSED


def test_nobody_changes_what_was_said_of_a_dataset(btc: Coin) -> None:
    dataset = import_(btc, market_candles.random_levels(2000))
    for change in ({"verdict": "passed"}, {"judgement": "{}"}, {"verdict": ""}):
        with pytest.raises(IntegrityError, match="never changes"), transaction.atomic():
            Dataset.objects.filter(pk=dataset.pk).update(**change)


def test_a_debug_run_may_train_on_anything_and_its_log_warns(btc: Coin) -> None:
    run = factories.run(import_(btc, market_candles.random_levels(2000)), is_sent=False)
    (warning,) = RunLine.objects.filter(run=run).values_list("text", flat=True)
    assert "did not pass: variance_ratio failed" in warning
    assert warning.endswith("No release trains on them.")


@pytest.mark.usefixtures("operator")
class TestCommand:
    @pytest.fixture
    def candles(self, tmp_path: Path) -> Callable[[pl.DataFrame], str]:
        def write(frame: pl.DataFrame) -> str:
            path = tmp_path / "BTC.csv"
            path.write_bytes(csv(frame))
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
