"""Candles are judged before anything is trained on them: each fault by the check it names, no healthy series refused."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.markets.__main__ import count_found
from benchmarks.markets.made_up import KINDS
from benchmarks.markets.series import list_stretches, load_series
from benchmarks.markets.variants import VARIANTS, Goal, Variant
from mlcore.data import candles
from mlcore.data.simulate import simulate
from mlcore.quality import market_statistics
from mlcore.quality.market_checks import MIN_BARS, check_candles
from mlcore.quality.peers import PeerSeries
from mlcore.quality.result import CandleReport
from mlcore.quality.rows import check_rows
from mlcore.quality.simulated import SimulatorSettings, check_simulated_candles
from mlcore.verdict import Verdict
from tests import market_candles

PRICES = ["open", "high", "low", "close"]
REAL = os.environ.get("CRPBOT_CANDLES_DIR", "")
Frame = pl.DataFrame


def against(judgement: CandleReport) -> dict[str, str]:
    checks = judgement.checks
    return {c.name: str(c.finding.verdict) for c in checks if c.finding.verdict != Verdict.PASSED}


@pytest.fixture(scope="module")
def market() -> Frame:
    return market_candles.generate(10_000)


@pytest.fixture(scope="module")
def coins() -> dict[str, Frame]:
    return {coin: candles.read(Path(REAL) / f"{coin}.csv.gz") for coin in ("BTC", "ETH", "SOL")}


def enclosed(frame: Frame) -> Frame:
    return frame.with_columns(high=pl.max_horizontal(*PRICES), low=pl.min_horizontal(*PRICES))


def shuffled_rows(frame: Frame) -> Frame:
    order = np.random.default_rng(0).permutation(frame.height)
    return frame.with_columns([frame[name][order] for name in frame.columns[1:]])


def shuffled_moves(frame: Frame) -> Frame:
    """The bars in another order, each joined to the one before: every price path between them is a sound one."""
    order = np.random.default_rng(0).permutation(frame.height)
    logs = np.log(frame.select(PRICES).to_numpy())
    before = np.concatenate([[logs[0, 0]], logs[:-1, 3]])
    moves = (logs - before[:, None])[order]
    starts = logs[0, 0] + np.concatenate([[0.0], np.cumsum(moves[:, 3])[:-1]])
    prices = np.exp(starts[:, None] + moves)
    return enclosed(
        frame.with_columns(
            *(pl.Series(name, prices[:, i]) for i, name in enumerate(PRICES)), frame["volume"][order]
        )
    )


def smoothed(frame: Frame) -> Frame:
    closes = pl.col("close").rolling_mean(4, min_samples=1)
    return enclosed(frame.with_columns(close=closes))


def frozen(frame: Frame) -> Frame:
    still = pl.int_range(pl.len()).is_between(4000, 4060)
    return enclosed(frame.with_columns(close=pl.when(still).then(frame["close"][4000]).otherwise("close")))


def stretched(times: float) -> Callable[[Frame], Frame]:
    def change(frame: Frame) -> Frame:
        first = frame["open"][0]
        return frame.with_columns([(pl.col(name) / first).pow(times) * first for name in PRICES])

    return change


def half_noise(frame: Frame) -> Frame:
    noise = market_candles.random_levels(frame.height, level=100.0).select(PRICES)
    second = pl.int_range(pl.len()) >= frame.height // 2
    return frame.with_columns(
        [pl.when(second).then(noise[name]).otherwise(name).alias(name) for name in PRICES]
    )


def normal_walk(frame: Frame) -> Frame:
    logs = np.cumsum(np.random.default_rng(1).normal(0, 0.007, frame.height))
    close = pl.Series(100 * np.exp(logs))
    opens = close.shift(1).fill_null(100.0)
    wide = {"high": pl.max_horizontal(opens, close) * 1.002, "low": pl.min_horizontal(opens, close) * 0.998}
    return frame.with_columns(open=opens, close=close).with_columns(**wide)


def misplaced_decimal(frame: Frame) -> Frame:
    one = pl.int_range(pl.len()) == 777
    return frame.with_columns(high=pl.when(one).then(pl.col("high") * 10).otherwise("high"))


def holes(frame: Frame) -> Frame:
    return frame.filter(np.random.default_rng(2).random(frame.height) > 0.05)


FAULTS: dict[str, tuple[Callable[[Frame], Frame], str]] = {
    "prices drawn afresh for each bar": (lambda f: market_candles.random_levels(7122), "variance_ratio"),
    "prices drawn afresh in the second half alone": (half_noise, "variance_ratio"),
    "shuffled rows": (shuffled_rows, "continuity"),
    "shuffled bars, joined again": (shuffled_moves, "memory"),
    "smoothed closes": (smoothed, "variance_ratio"),
    "two days frozen": (frozen, "frozen"),
    "six times a market's volatility": (stretched(6), "volatility"),
    "a random walk of normal steps": (normal_walk, "tails"),
    "hourly candles stamped as 5-minute ones": (lambda f: market_candles.with_interval(f, 300), "rhythm"),
    "hourly candles stamped as 2-hour ones": (lambda f: market_candles.with_interval(f, 7200), "rhythm"),
    "hourly candles stamped as daily ones": (lambda f: market_candles.with_interval(f, 86_400), "rhythm"),
    "5-minute candles stamped as hourly ones": (
        lambda f: market_candles.with_interval(market_candles.generate(20_000, interval_seconds=300), 3600),
        "rhythm",
    ),
    "no volume": (lambda f: f.with_columns(volume=pl.lit(0.0)), "volume"),
    "one volume in every bar": (lambda f: f.with_columns(volume=pl.lit(5.0)), "volume"),
    "volumes of other bars": (lambda f: f.with_columns(f["volume"].shuffle(seed=1)), "activity"),
    "one bar in twenty missing": (holes, "gaps"),
    "a simulated market with its drift": (lambda f: simulate("BTC", 5000, 1.2, 0), "variance_ratio"),
    "a simulated market without drift": (lambda f: simulate("BTC", 5000, 0, 0), "day_activity"),
    "a short simulated market without drift": (lambda f: simulate("ETH", MIN_BARS, 0, 5), "day_activity"),
}


@pytest.mark.parametrize(("plant", "check"), FAULTS.values(), ids=FAULTS.keys())
def test_what_is_no_market_is_refused_by_the_check_that_knows_it(
    market: Frame, plant: Callable[[Frame], Frame], check: str
) -> None:
    judgement = check_candles(plant(market))
    assert against(judgement).get(check) == "failed"
    assert judgement.verdict in (Verdict.FAILED, Verdict.ERROR)


def test_one_misplaced_decimal_is_for_a_person_to_look_at(market: Frame) -> None:
    assert against(check_candles(misplaced_decimal(market))) == {"jumps": "inconclusive"}


def test_a_fiftieth_of_a_markets_volatility_is_for_a_person_to_look_at(market: Frame) -> None:
    """A coin that is pegged to another moves so little, and so do times that do not match the interval."""
    assert against(check_candles(stretched(1 / 50)(market))) == {"volatility": "inconclusive"}


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
@pytest.mark.parametrize("bars", [MIN_BARS + 500, 4000])
def test_a_market_of_another_kind_is_no_made_up_one(variant: Variant, bars: int) -> None:
    """Coarse prices, thin trading, a crash, a halt: refused with *failed* only for weekends, which coins do not have."""
    frame = market_candles.generate(bars, seed=3)
    found = against(check_candles(variant.change(frame, np.random.default_rng(bars))))
    match variant.goal:
        case Goal.PASSED:
            assert found == {}
        case Goal.NOT_FAILED:
            assert not {"failed", "error"} & set(found.values()), found
        case Goal.REFUSED:
            assert found == {"gaps": "failed"}


def test_volumes_that_were_filled_in_are_no_volumes(market: Frame) -> None:
    """Whole lots repeat by chance. A column that was filled repeats more at once than a day later."""
    bars = pl.int_range(pl.len())
    lots = market.with_columns(volume=(pl.col("volume") / pl.col("volume").median() * 5).round())
    assert against(check_candles(lots)) == {}
    filled = lots.with_columns(volume=pl.when(bars % 4 == 0).then(None).otherwise("volume").forward_fill())
    assert against(check_candles(filled[1:])) == {"volume": "failed"}
    run = lots.with_columns(volume=pl.when(bars.is_between(500, 540)).then(7.0).otherwise("volume"))
    assert against(check_candles(run)) == {"volume": "failed"}


def test_equal_values_have_no_memory_of_their_order() -> None:
    """Ranges of few ticks are often equal. Ranked in their order in time, each would follow the one before."""
    ranks = market_statistics._rank(np.repeat([2.0, 1.0, 3.0], 100))
    assert (np.unique(ranks) == [50.5, 150.5, 250.5]).all()


@pytest.mark.parametrize("size", [-1.0, -0.4, 0.4, 0.9, 3.0])
@pytest.mark.parametrize("bars", [MIN_BARS, 6000])
def test_a_single_bar_never_makes_a_series_fail(size: float, bars: int) -> None:
    """A crash within one bar, and one that stays, with the volume of a thousand bars or with none."""
    frame = market_candles.generate(bars)
    row = pl.int_range(pl.len())
    for volume in (0.0, 1e3):
        crash = frame.with_columns(
            high=pl.when(row == 500).then(pl.col("high") * np.exp(max(size, 0))).otherwise("high"),
            low=pl.when(row == 500).then(pl.col("low") * np.exp(min(size, 0))).otherwise("low"),
            volume=pl.when(row == 500).then(pl.col("volume") * volume).otherwise("volume"),
        )
        step = crash.with_columns(
            *(
                pl.when(row > 500).then(pl.col(name) * np.exp(size)).otherwise(name).alias(name)
                for name in PRICES
            )
        )
        joined = step.with_columns(
            open=pl.when(row == 501).then(pl.col("open") * np.exp(-size)).otherwise("open")
        )
        for changed in (crash, enclosed(step), enclosed(joined)):
            assert "failed" not in against(check_candles(changed)).values()


@pytest.mark.parametrize("seed", range(20))
def test_a_series_with_a_markets_habits_passes(seed: int) -> None:
    bars, interval = ((2000, 3600), (6000, 3600), (2000, 14_400), (3000, 900))[seed % 4]
    assert against(check_candles(market_candles.generate(bars, seed=seed, interval_seconds=interval))) == {}


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="CRPBOT_CANDLES_DIR names no folder of real candles")
class TestRealCandles:
    def test_pass_whole_beside_one_another(self, coins: dict[str, Frame]) -> None:
        company = [PeerSeries.from_frame(frame, coin=coin, name="dataset") for coin, frame in coins.items()]
        for coin, frame in coins.items():
            assert against(check_candles(frame, coin=coin, peers=company)) == {}

    @pytest.mark.parametrize("every", ["1h", "4h", "1d"])
    def test_pass_in_every_slice(self, coins: dict[str, Frame], every: str) -> None:
        slices = [
            (coin, start, frame[start : start + bars])
            for coin, whole in coins.items()
            for frame in [_resampled(whole, every)]
            for bars in (MIN_BARS, 2000, 8000)
            for start in range(0, frame.height - bars + 1, max(500, bars // 3))
        ]
        assert {
            (coin, start): against(check_candles(part))
            for coin, start, part in slices
            if against(check_candles(part))
        } == {}

    def test_pass_in_every_year(self, coins: dict[str, Frame]) -> None:
        years = [
            year for frame in coins.values() for _, year in frame.group_by(pl.col("timestamp").dt.year())
        ]
        assert [against(check_candles(year)) for year in years if against(check_candles(year))] == []

    def test_are_refused_under_another_coins_name(self, coins: dict[str, Frame]) -> None:
        company = [PeerSeries.from_frame(frame, coin=coin, name="dataset 1") for coin, frame in coins.items()]
        assert against(check_candles(coins["ETH"][3000:9000], coin="BTC", peers=company)) == {
            "other_coins": "failed",
            "same_coin": "inconclusive",
        }

    def test_make_no_false_alarm_and_hide_no_made_up_series(self) -> None:
        """`make markets` in short: every fifth stretch of every series, and three series of each kind."""
        series = load_series(Path(REAL))
        stretches = list(list_stretches(series))[::5]
        assert [(name, hours, bars) for name, hours, bars, f in stretches if against(check_candles(f))] == []
        assert {
            name: against(check_candles(frame))
            for name, frame in series.items()
            if against(check_candles(frame))
        } == {}
        assert [
            k.name
            for k in KINDS
            if count_found(series, k, 1_200 if k.least_bars <= 1_200 else 6_000, 3).not_passed < 3
        ] == []

    @pytest.mark.parametrize("seconds", [60, 300, 900, 14_400, 86_400])
    def test_are_refused_when_their_times_lie_about_the_interval(
        self, coins: dict[str, Frame], seconds: int
    ) -> None:
        for frame in coins.values():
            assert (
                against(check_candles(market_candles.with_interval(frame, seconds))).get("rhythm") == "failed"
            )


def _resampled(frame: Frame, every: str, offset: str = "0h") -> Frame:
    if every == "1h":
        return frame
    first, last = pl.col("open").first(), pl.col("close").last()
    grouped = frame.group_by_dynamic("timestamp", every=every, offset=offset)
    return grouped.agg(first, pl.col("high").max(), pl.col("low").min(), last, pl.col("volume").sum())


class TestBesideOtherCandles:
    def test_another_coins_series_is_refused_and_named(self, market: Frame) -> None:
        judgement = check_candles(
            market, coin="BTC", peers=[PeerSeries.from_frame(market, coin="ETH", name="dataset 7")]
        )
        assert against(judgement) == {"other_coins": "failed"}
        (sentence,) = (c.finding.sentence for c in judgement.checks if c.name == "other_coins")
        assert "ETH's dataset 7" in sentence

    def test_a_rescaled_copy_of_part_of_it_is_no_other_series(self, market: Frame) -> None:
        copy = market[:4000].with_columns([pl.col(name) * 20 for name in PRICES])
        other = PeerSeries.from_frame(copy, coin="ETH", name="dataset 7")
        assert against(check_candles(market, coin="BTC", peers=[other])) == {"other_coins": "failed"}

    def test_what_contradicts_the_coins_own_candles_is_for_a_person_to_look_at(self, market: Frame) -> None:
        own = PeerSeries.from_frame(market_candles.generate(10_000, seed=9), coin="BTC", name="dataset 3")
        judgement = check_candles(market, coin="BTC", peers=[own])
        assert against(judgement) == {"same_coin": "inconclusive"}
        assert judgement.verdict == Verdict.INCONCLUSIVE

    def test_the_same_coin_from_another_place_agrees(self, market: Frame) -> None:
        elsewhere = market.with_columns([pl.col(name) * 1.002 for name in PRICES])
        own = PeerSeries.from_frame(elsewhere, coin="BTC", name="dataset 3")
        assert against(check_candles(market, coin="BTC", peers=[own])) == {}

    @pytest.mark.parametrize("hours", [-5, 5])
    def test_another_coins_series_is_found_at_a_delay(self, hours: int, market: Frame) -> None:
        delayed = market.with_columns(timestamp=pl.col("timestamp") + pl.duration(hours=hours))
        peer = PeerSeries.from_frame(market, coin="ETH", name="dataset 7")
        (check,) = (
            c for c in check_candles(delayed, coin="BTC", peers=[peer]).checks if c.name == "other_coins"
        )
        assert check.finding.verdict == Verdict.FAILED
        assert f"again, 5 hours {'later' if hours > 0 else 'earlier'}" in check.finding.sentence

    def test_another_interval_and_phase_of_the_coin_agrees(self, market: Frame) -> None:
        for offset in ("0h", "2h"):
            coarse = _resampled(market, "4h", offset)
            for frame, other in ((market, coarse), (coarse, market)):
                peer = PeerSeries.from_frame(other, coin="BTC", name="dataset 3")
                checks = {
                    c.name: c.finding.verdict for c in check_candles(frame, coin="BTC", peers=[peer]).checks
                }
                assert checks["same_coin"] == Verdict.PASSED

    def test_the_coins_own_candles_in_another_time_zone_are_named(self, market: Frame) -> None:
        delayed = market.with_columns(timestamp=pl.col("timestamp") + pl.duration(hours=8))
        own = PeerSeries.from_frame(market, coin="BTC", name="dataset 3")
        (check,) = (
            c for c in check_candles(delayed, coin="BTC", peers=[own]).checks if c.name == "same_coin"
        )
        assert check.finding.verdict == Verdict.INCONCLUSIVE
        assert "again, 8 hours later: one of the two has wrong times" in check.finding.sentence

    def test_candles_of_another_time_are_not_compared(self, market: Frame) -> None:
        other = PeerSeries.from_frame(market[:5000], coin="ETH", name="dataset 7")
        assert against(check_candles(market[5000:], coin="BTC", peers=[other])) == {}


class TestRows:
    def test_too_few_are_inconclusive_and_say_so(self) -> None:
        judgement = check_candles(market_candles.generate(300))
        assert against(judgement) == {"length": "inconclusive"}

    @pytest.mark.parametrize(
        ("change", "check"),
        [
            ({"close": -1.0}, "prices"),
            ({"close": float("nan")}, "prices"),
            ({"close": 1e9}, "ranges"),
            ({"volume": -1.0}, "volume"),
        ],
        ids=["a negative price", "no number", "a close above the high", "a negative volume"],
    )
    def test_an_impossible_row_is_found_in_any_frame(
        self, market: Frame, change: dict[str, float], check: str
    ) -> None:
        one = pl.int_range(pl.len()) == 50
        changed = market.with_columns(
            [pl.when(one).then(pl.lit(value)).otherwise(name).alias(name) for name, value in change.items()]
        )
        assert against(check_candles(changed))[check] == "failed"

    def test_bars_of_another_interval_are_no_gaps(self, market: Frame) -> None:
        """Nine of two hours within ten thousand: hardly any bar is missing."""
        other = market.filter(
            ~(pl.int_range(pl.len()).is_between(500, 517) & (pl.int_range(pl.len()) % 2 == 1))
        )
        assert against(check_candles(other)) == {"interval": "failed"}
        three = market.filter(~pl.int_range(pl.len()).is_in([501, 503, 505]))
        assert against(check_candles(three)) == {}

    def test_order_duplicates_and_grid_are_counted(self, market: Frame) -> None:
        rows = list(range(100))
        rows[40], rows[41] = 41, 40
        swapped = {c.name: c.finding.figure for c in check_rows(market[rows])}
        assert swapped["order"] == 1
        doubled = {c.name: c.finding.figure for c in check_rows(market[[*range(50), 49, *range(50, 100)]])}
        assert doubled["duplicates"] == 1
        late = market[:100].with_columns(
            timestamp=pl.when(pl.int_range(pl.len()) == 60)
            .then(pl.col("timestamp") + pl.duration(minutes=7))
            .otherwise("timestamp")
        )
        assert {c.name: c.finding.figure for c in check_rows(late)}["interval"] == 2


class TestSimulatedCandles:
    @pytest.mark.parametrize("drift", [0, 0.4, 1.2, 5])
    @pytest.mark.parametrize("bars", [MIN_BARS, 6000])
    def test_match_their_generator_with_and_without_its_settings(self, drift: float, bars: int) -> None:
        made = simulate("SOL", bars, drift, 3)
        assert (
            against(check_simulated_candles(made, coin="SOL", generator=SimulatorSettings(bars, drift, 3)))
            == {}
        )
        assert against(check_simulated_candles(made, coin="SOL", generator=None)) == {}

    @pytest.mark.parametrize(
        "settings",
        [SimulatorSettings(2000, 1.2, 4), SimulatorSettings(2000, 1.1, 3), SimulatorSettings(1999, 1.2, 3)],
        ids=["another seed", "another drift", "a bar less"],
    )
    def test_of_other_settings_than_they_say_are_refused(self, settings: SimulatorSettings) -> None:
        made = simulate("SOL", 2000, 1.2, 3)
        assert against(check_simulated_candles(made, coin="SOL", generator=settings)) == {
            "generator": "failed"
        }

    def test_of_another_coin_are_refused(self) -> None:
        made = simulate("SOL", 2000, 1.2, 3)
        assert against(
            check_simulated_candles(made, coin="BTC", generator=SimulatorSettings(2000, 1.2, 3))
        ) == {"generator": "failed"}

    def test_a_market_that_is_called_simulated_is_refused(self, market: Frame) -> None:
        assert against(check_simulated_candles(market, coin="BTC", generator=None)) == {"generator": "failed"}

    def test_random_levels_that_are_called_simulated_are_refused(self) -> None:
        assert against(
            check_simulated_candles(market_candles.random_levels(7122), coin="BTC", generator=None)
        ) == {"generator": "failed"}


def test_a_judgement_is_plain_json_whatever_was_measured(market: Frame) -> None:
    still = market.with_columns([pl.lit(100.0).alias(name) for name in PRICES])
    for frame in (market, still, market_candles.generate(2), stretched(300)(market)):
        document = check_candles(frame).document()
        json.dumps(document, allow_nan=False)
        assert {row["verdict"] for row in document["checks"]} <= {str(v) for v in Verdict}
    assert check_candles(still).verdict == Verdict.ERROR
