"""Candles in: uploaded, fetched from an exchange, or simulated. The same content is the same dataset."""

from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import PurePath

import polars as pl
from django.conf import settings
from django.db import transaction

from accounts.rules import Actor, Role
from audit import services as audit
from common.errors import InvalidInput, NotFound
from mlcore.data import candles
from mlcore.data.simulate import simulate
from mlcore.errors import CandlesRefused
from mlcore.quality.simulated import SimulatorSettings
from training import artifact_store
from training import exchange as exchanges
from training.models import Coin, Dataset
from training.rules import GREATEST_SEED, Source
from training.services import candle_checks

GREATEST_DRIFT = 5.0
"""Units of a bar's volatility; beyond it prices leave every scale."""


@dataclass(frozen=True)
class Kept:
    """Where candles are that were brought."""

    dataset: Dataset
    is_new: bool
    """Whether they were not there before."""


def import_candles(
    coin: Coin,
    data: bytes,
    *,
    name: str,
    actor: Actor,
    source: Source = Source.UPLOAD,
    simulated: bool = False,
    origin: str | None = None,
) -> Kept:
    """The dataset these bytes hold (CSV, CSV.gz or Parquet, told apart by content); the one there is, if it is there.

    `name` is the file's name, for messages. Raises InvalidInput with the row and the reason for a file that cannot
    be trusted, or is too large; then nothing was written.
    """
    actor.require(Role.OPERATOR, "import candles")
    limit = settings.DATASET_UPLOAD_LIMIT_BYTES
    if len(data) > limit:
        raise InvalidInput(
            f"{name} has {len(data):,} bytes; at most {limit:,} are taken at once. Compress it, or split it.",
            field="file",
        )
    try:
        frame = candles.read_bytes(data, PurePath(name).name)
    except CandlesRefused as refused:
        raise InvalidInput(str(refused), field="file") from refused
    return _keep(
        coin, frame, source=source, origin=origin or PurePath(name).name, is_simulated=simulated, actor=actor
    )


def simulate_candles(coin: Coin, *, bars: int, drift: float, seed: int, actor: Actor) -> Dataset:
    """A market made up for `coin`, the same for the same arguments; it says so wherever it is shown."""
    actor.require(Role.OPERATOR, "simulate candles")
    if not 0 <= drift <= GREATEST_DRIFT:
        raise InvalidInput(f"drift: choose a number from 0 to {GREATEST_DRIFT:g}.", field="drift")
    if not 0 <= seed <= GREATEST_SEED:
        raise InvalidInput(f"seed: choose a whole number from 0 to {GREATEST_SEED}.", field="seed")
    try:
        frame = simulate(coin.symbol, bars, drift, seed)
    except ValueError as refused:
        raise InvalidInput(f"This market cannot be simulated: {refused}.") from refused
    # Every digit of the drift: these words are what the candles are made again from.
    strength = f"{drift:g}" if float(f"{drift:g}") == drift else repr(drift)
    return _keep(
        coin,
        frame,
        source=Source.SIMULATED,
        origin=f"simulated: drift {strength}, {bars:,} bars, seed {seed}",
        is_simulated=True,
        generator=SimulatorSettings(bars=bars, drift=float(drift), seed=seed),
        actor=actor,
    ).dataset


def fetch_candles(coin: Coin, exchange: str, interval: str, since: datetime, actor: Actor) -> Dataset:
    """The exchange's candles of `coin` against USDT, from `since` to the last complete one.

    Raises InvalidInput for an exchange, pair or interval there is not, Unavailable when the exchange does not answer.
    """
    actor.require(Role.OPERATOR, "fetch candles")
    frame = exchanges.fetch(f"{coin.symbol}/USDT", exchange=exchange, interval=interval, since=since)
    origin = f"{exchange} {coin.symbol}/USDT {interval}"
    return _keep(coin, frame, source=Source.EXCHANGE, origin=origin, is_simulated=False, actor=actor).dataset


def find_dataset(pk: int) -> Dataset:
    """Raises NotFound."""
    dataset = Dataset.objects.select_related("coin").filter(pk=pk).first()
    if dataset is None:
        raise NotFound(f"There is no dataset {pk}.")
    return dataset


def latest_dataset(coin: Coin) -> Dataset:
    """What is trained on where nobody names a dataset: the coin's newest that stands, and passed if any did.

    Raises NotFound when it has none.
    """
    dataset = Dataset.objects.filter(coin=coin).standing().soundest_first().first()
    if dataset is None:
        raise NotFound(f"{coin} has no candles yet: `manage.py import_candles {coin} FILE`.")
    return dataset


def _keep(
    coin: Coin,
    frame: pl.DataFrame,
    *,
    source: Source,
    origin: str,
    is_simulated: bool,
    actor: Actor,
    generator: SimulatorSettings | None = None,
) -> Kept:
    """The file first, then the row: a row never names bytes that are not there.

    Candles that do not pass are kept too, with what was found: nothing that was brought is lost.
    """
    data = candles.encode_canonical(frame)
    digest = f"sha256:{artifact_store.store(data)}"
    # Judging reads other datasets' files: before the transaction, not under its lock.
    if (existing := _existing(coin, digest)) is not None:
        return Kept(candle_checks.judged(existing), is_new=False)
    judgement = candle_checks.judge_candles(coin, frame, is_simulated=is_simulated, generator=generator)
    with transaction.atomic():
        audit.lock_head()
        if (existing := _existing(coin, digest)) is not None:
            return Kept(existing, is_new=False)
        dataset = Dataset.objects.create(
            coin=coin,
            digest=digest,
            source=source,
            origin=origin[:200],
            is_simulated=is_simulated,
            size=len(data),
            added_by=str(actor),
            **asdict(candles.describe(frame)),
            **candle_checks.judgement_columns(judgement, generator),
        )
        detail = {
            "digest": digest,
            "rows": dataset.rows,
            "source": source,
            "simulated": is_simulated,
            "verdict": dataset.verdict,
            "against": candle_checks.against(dataset),
        }
        audit.record("dataset.added", dataset, actor=actor, detail=detail)
    return Kept(dataset, is_new=True)


def _existing(coin: Coin, digest: str) -> Dataset | None:
    return Dataset.objects.select_related("coin").filter(coin=coin, digest=digest).standing().first()
