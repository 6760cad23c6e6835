"""Datasets: imported from a file, fetched from an exchange, or simulated. Equal content gives the same dataset."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import PurePath

import polars as pl
from django.conf import settings
from django.db.models import Max
from django.utils import timezone

from accounts.roles import Actor, Role
from audit import services as audit
from audit.hash_chain import to_canonical_json
from common.errors import InvalidInput, NotFound
from mlcore.data import candles
from mlcore.data.import_report import ImportReport
from mlcore.data.readers import Options, ReadCandles
from mlcore.data.simulate import simulate
from mlcore.quality.result import CandleReport
from mlcore.quality.simulated import SimulatorSettings
from mlcore.verdict import Verdict
from training import artifact_store
from training import exchange as exchanges
from training.models import Coin, Dataset
from training.rules import Source, require_seed
from training.services import candle_checks, candle_files

MAX_DRIFT = 5.0
"""In units of a bar's volatility; prices overflow beyond it."""


@dataclass(frozen=True)
class StoredDataset:
    """A dataset, new or stored before."""

    dataset: Dataset
    is_new: bool


@dataclass(frozen=True)
class ImportPreview:
    """What an import would store, and whether these candles are stored already."""

    coin: Coin
    origin: str
    is_simulated: bool
    digest: str
    import_report: ImportReport
    content: candles.Description
    checks: CandleReport
    stored: Dataset | None


def preview_import(
    coin: Coin,
    data: bytes,
    *,
    name: str,
    actor: Actor,
    simulated: bool = False,
    closing_times: bool = False,
    repeated_once: bool = False,
) -> ImportPreview:
    """Read and check the candles of a file as an import does, and store nothing. Raises what `import_candles` raises."""
    options = Options(closing_times, repeated_once)
    found, origin = _read_upload(data, name, actor, options, simulated=simulated)
    digest = candles.compute_digest(found.frame)
    return ImportPreview(
        coin=coin,
        origin=origin,
        is_simulated=simulated,
        digest=digest,
        import_report=found.report,
        content=candles.describe(found.frame),
        checks=candle_checks.check_dataset(coin, found.frame, is_simulated=simulated),
        stored=_find_stored(coin, digest),
    )


def import_candles(
    coin: Coin,
    data: bytes,
    *,
    name: str,
    actor: Actor,
    simulated: bool = False,
    closing_times: bool = False,
    repeated_once: bool = False,
) -> StoredDataset:
    """Store the candles of a file, whose format is recognised by content, unless they are stored already.

    `name` is the file name, for messages. With `closing_times`, the times of the file are those at which bars close. With
    `repeated_once`, a row that repeats its neighbour value for value is left out.

    Of real candles, a last bar that has not closed is left out, and one that opens in the future is refused. Raises
    InvalidInput for a file that is too large, or with the row and the reason for one that is invalid; nothing is stored
    then.
    """
    options = Options(closing_times, repeated_once)
    found, origin = _read_upload(data, name, actor, options, simulated=simulated)
    return _store(
        coin,
        found.frame,
        source=Source.UPLOAD,
        origin=origin,
        is_simulated=simulated,
        actor=actor,
        import_report=found.report,
    )


def require_importable_size(size: int, name: str) -> None:
    """Raises InvalidInput for a file that is too large, before it is read."""
    limit = settings.DATASET_UPLOAD_LIMIT_BYTES
    if size > limit:
        raise InvalidInput(
            f"{name} has {size:,} bytes; the limit is {limit:,}. Compress it as gzip, write Parquet, or split it.",
            field="file",
        )


def _read_upload(
    data: bytes, name: str, actor: Actor, options: Options, *, simulated: bool
) -> tuple[ReadCandles, str]:
    """The candles of a file, and its name without folders."""
    actor.require(Role.OPERATOR, "import candles")
    origin = PurePath(name).name
    require_importable_size(len(data), origin)
    found = candle_files.read_candle_file(data, origin, options)
    return (found if simulated else _leave_out_forming_bar(found, origin)), origin


def _leave_out_forming_bar(found: ReadCandles, origin: str) -> ReadCandles:
    """Without a last bar that has not closed. Raises InvalidInput where a bar opens in the future."""
    now = timezone.now()
    times = found.frame["timestamp"]
    future = int((times > now).sum())
    if future:
        raise InvalidInput(
            f"{origin}: {future:,} bars open in the future, the last at {times[-1]:%Y-%m-%d %H:%M}Z; here it is"
            f" {now:%Y-%m-%d %H:%M}Z. Check the unit and the time zone of the times, and this machine's clock.",
            field="file",
        )
    interval = timedelta(seconds=candles.describe(found.frame).interval_seconds)
    if times[-1] + interval <= now:
        return found
    if found.frame.height <= 2:
        raise InvalidInput(f"{origin}: fewer than 2 bars have closed.", field="file")
    note = f"left out the last bar, which opened at {times[-1]:%Y-%m-%d %H:%M}Z: it had not closed"
    return ReadCandles(found.frame[:-1], found.report.with_notes(note))


def simulate_candles(coin: Coin, *, bars: int, drift: float, seed: int, actor: Actor) -> StoredDataset:
    """Simulate a market for `coin`, the same for the same arguments."""
    actor.require(Role.OPERATOR, "simulate candles")
    if not 0 <= drift <= MAX_DRIFT:
        raise InvalidInput(f"drift: choose a number from 0 to {MAX_DRIFT:g}.", field="drift")
    require_seed(seed)
    try:
        frame = simulate(coin.symbol, bars, drift, seed)
    except ValueError as refused:
        raise InvalidInput(f"This market cannot be simulated: {refused}.") from refused
    return _store(
        coin,
        frame,
        source=Source.SIMULATED,
        origin=f"simulated: drift {repr(float(drift)).removesuffix('.0')}, {bars:,} bars, seed {seed}",
        is_simulated=True,
        generator=SimulatorSettings(bars=bars, drift=float(drift), seed=seed),
        actor=actor,
    )


def fetch_candles(
    coin: Coin, exchange: str, interval: str, since: datetime, actor: Actor, report: exchanges.Report
) -> StoredDataset:
    """Store an exchange's candles of `coin` against USDT, from `since` to the last complete one.

    `report` receives sentences about the progress and the gaps. In the embedded profile the same call continues an
    interrupted one. Raises InvalidInput for an unknown exchange, pair or interval, or where the exchange refuses;
    Unavailable when it does not answer.
    """
    actor.require(Role.OPERATOR, "fetch candles")
    frame = exchanges.fetch(
        f"{coin.symbol}/USDT",
        exchange=exchange,
        interval=interval,
        since=since,
        folder=settings.FETCHED_DIR,
        report=report,
    )
    origin = f"{exchange} {coin.symbol}/USDT {interval}"
    return _store(coin, frame, source=Source.EXCHANGE, origin=origin, is_simulated=False, actor=actor)


def find_dataset(pk: int) -> Dataset:
    """Raises NotFound."""
    dataset = Dataset.objects.select_related("coin").filter(pk=pk).first()
    if dataset is None:
        raise NotFound(f"There is no dataset {pk}.")
    return dataset


def latest_dataset(coin: Coin) -> Dataset:
    """The default dataset to train on: the coin's newest that passed its checks, else its newest; never a withdrawn one.

    Raises NotFound when there is none.
    """
    dataset = Dataset.objects.filter(coin=coin).not_withdrawn().passed_first().first()
    if dataset is None:
        raise NotFound(f"{coin} has no candles yet: `manage.py import_candles {coin} FILE`.")
    return dataset


def choose_datasets(coins: Iterable[Coin], *, interval_seconds: int | None = None) -> dict[Coin, Dataset]:
    """For each coin its newest dataset that passed, all of one bar interval: the given one, else the one imported last.

    Where no interval is there for all coins, each coin's newest; a coin without any is left out.
    """
    coins = list(coins)
    passed = Dataset.objects.filter(coin__in=coins, verdict=Verdict.PASSED).not_withdrawn().order_by()
    if interval_seconds is not None:
        passed = passed.filter(interval_seconds=interval_seconds)
    newest: dict[int, dict[int, int]] = {}
    for coin, interval, pk in passed.values_list("coin", "interval_seconds").annotate(newest=Max("pk")):
        newest.setdefault(interval, {})[coin] = pk
    whole = [keys for keys in newest.values() if len(keys) == len(coins)]
    if not whole:
        found = {coin: Dataset.objects.filter(coin=coin).not_withdrawn().passed_first() for coin in coins}
        return {coin: dataset for coin, rows in found.items() if (dataset := rows.first()) is not None}
    last_imported = max(whole, key=lambda keys: max(keys.values()))
    chosen = Dataset.objects.select_related("coin").in_bulk(last_imported.values())
    return {dataset.coin: dataset for dataset in chosen.values()}


def _store(
    coin: Coin,
    frame: pl.DataFrame,
    *,
    source: Source,
    origin: str,
    is_simulated: bool,
    actor: Actor,
    generator: SimulatorSettings | None = None,
    import_report: ImportReport | None = None,
) -> StoredDataset:
    """Store the file, then the row: a row never names missing bytes. Candles that do not pass are stored too."""
    data = candles.encode_canonical(frame)
    digest = f"sha256:{artifact_store.store(data)}"
    # The checks read other files: before the transaction, not under its lock.
    if (existing := _find_stored(coin, digest)) is not None:
        return StoredDataset(existing, is_new=False)
    report = candle_checks.check_dataset(coin, frame, is_simulated=is_simulated, generator=generator)
    with audit.locked():
        if (existing := _find_stored(coin, digest)) is not None:
            return StoredDataset(existing, is_new=False)
        dataset = Dataset.objects.create(
            coin=coin,
            digest=digest,
            source=source,
            origin=origin[:200],
            is_simulated=is_simulated,
            size=len(data),
            import_report=to_canonical_json(import_report.document()) if import_report else "",
            added_by=str(actor),
            **asdict(candles.describe(frame)),
            **candle_checks.build_columns(report, generator),
        )
        detail = {
            "digest": digest,
            "rows": dataset.rows,
            "source": source,
            "simulated": is_simulated,
            "verdict": dataset.verdict,
            "failed_checks": candle_checks.list_failed_checks(dataset),
        }
        audit.record("dataset.added", dataset, actor=actor, detail=detail)
    return StoredDataset(dataset, is_new=True)


def _find_stored(coin: Coin, digest: str) -> Dataset | None:
    return Dataset.objects.select_related("coin").filter(coin=coin, digest=digest).not_withdrawn().first()
