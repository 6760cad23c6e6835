"""What names a dataset, and what is said about it."""

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from mlcore.data import candles, simulate
from mlcore.data.validation import validate_candles
from mlcore.errors import CandlesRefused


@pytest.fixture
def frame() -> pl.DataFrame:
    return simulate.simulate("ETH", 50, drift=0.0, seed=3)


def test_canonical_bytes_are_a_short_header_and_six_little_endian_columns(frame: pl.DataFrame) -> None:
    data = candles.encode_canonical(frame)
    assert data.startswith(b"crpbot candles 1\n")
    body = data[-50 * 6 * 8 :]
    assert np.frombuffer(body, "<i8", 1)[0] == frame["timestamp"].dt.epoch("ms")[0]
    assert np.frombuffer(body, "<f8", 50, 50 * 8).tolist() == frame["open"].to_list()


def test_candles_survive_their_canonical_form(frame: pl.DataFrame) -> None:
    assert candles.decode_canonical(candles.encode_canonical(frame)).equals(frame)


def test_any_changed_figure_changes_the_digest(frame: pl.DataFrame) -> None:
    digests = {candles.compute_digest(frame)}
    for column in ("high", "volume"):
        digests.add(candles.compute_digest(frame.with_columns(pl.col(column) * (1 + 1e-15))))
    digests.add(candles.compute_digest(frame[1:]))
    assert len(digests) == 4


def test_a_volume_of_minus_zero_is_the_volume_zero(frame: pl.DataFrame) -> None:
    zero, minus_zero = (frame.with_columns(pl.lit(value).alias("volume")) for value in (0.0, -0.0))
    assert candles.compute_digest(zero) == candles.compute_digest(minus_zero)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: data.replace(b"candles 1", b"candles 2"),
        lambda data: data[:25] + b"\xff" * 8 + data[33:],
    ],
    ids=["nothing", "cut off", "longer", "of another version", "with a time that never was"],
)
def test_damaged_canonical_candles_are_refused(frame: pl.DataFrame, damage: object) -> None:
    assert callable(damage)
    with pytest.raises(CandlesRefused):
        candles.decode_canonical(damage(candles.encode_canonical(frame)))


def test_gaps_are_allowed_and_counted(frame: pl.DataFrame) -> None:
    with_gaps = pl.concat([frame[:10], frame[12:20], frame[25:]])
    with_gaps = validate_candles(with_gaps.with_columns(pl.lit(0.0).alias("volume")))
    assert candles.describe(with_gaps) == candles.Description(
        rows=43,
        first_at=datetime(2021, 1, 1, tzinfo=UTC),
        last_at=datetime(2021, 1, 3, 1, tzinfo=UTC),
        interval_seconds=3600,
        gaps=2,
        missing_bars=7,
        zero_volume_bars=43,
    )


def test_timestamps_of_another_unit_are_taken_as_they_are_meant() -> None:
    """As `polars.read_csv(…, try_parse_dates=True)` gives them, which is what a bot's author tries first."""
    market = simulate.simulate("BTC", 50, 1.2, seed=1)
    in_microseconds = market.with_columns(pl.col("timestamp").dt.cast_time_unit("us"))
    assert validate_candles(in_microseconds).equals(market)


def test_a_frame_of_other_types_is_not_candles(frame: pl.DataFrame) -> None:
    with pytest.raises(CandlesRefused, match="close holds Float32; it must hold float64"):
        validate_candles(frame.with_columns(pl.col("close").cast(pl.Float32)))


@pytest.mark.candles
def test_the_real_candles_are_read_as_their_readme_describes_them(real_candles) -> None:  # type: ignore[no-untyped-def]
    for coin in ("BTC", "ETH", "SOL"):
        description = candles.describe(real_candles(coin))
        assert (description.rows, description.gaps, description.missing_bars) == (43_803, 10, 20)
        assert (description.interval_seconds, description.zero_volume_bars) == (3600, 2)
