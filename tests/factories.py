"""The small cast of the tests, made by plain functions."""

from pathlib import Path

import polars as pl

from accounts import services as accounts
from accounts.models import User
from accounts.roles import Actor, Role, Scope
from training import artifact_store
from training.models import Budget, Bundle, Coin, Dataset, TrainingRun
from training.services import coins, datasets, runs

PASSWORD = "correct horse battery staple"


def person(name: str, *roles: str) -> User:
    return accounts.create_user(
        name, password=PASSWORD, roles=[Role(role) for role in roles], actor="the tests"
    )


def actor(name: str, *roles: str) -> Actor:
    """Somebody to act, without a row: the services ask the actor's roles, not the database."""
    return Actor(name, frozenset(Role(role) for role in roles))


def token(user: User, scope: str) -> str:
    """The secret of a new token of this scope."""
    return accounts.issue_token(user, Scope(scope), name="for a test", actor="the tests")[1]


OPERATOR = Actor("olivia", frozenset({Role.VIEWER, Role.OPERATOR}))
VIEWER = Actor("victor", frozenset({Role.VIEWER}))


def candle_csv(rows: int = 3, **changes: str) -> bytes:
    """A small sound file; `changes` replaces a column's value in the second row ("timestamp" too)."""
    lines = ["timestamp,open,high,low,close,volume"]
    for hour in range(rows):
        row = {"timestamp": f"2024-01-01T{hour:02}:00:00Z", "open": "100", "high": "110", "low": "90"}
        row |= {"close": "105", "volume": "7", **(changes if hour == 1 else {})}
        lines.append(",".join(row.values()))
    return ("\n".join(lines) + "\n").encode()


def to_csv(frame: pl.DataFrame) -> bytes:
    return frame.with_columns(pl.col("timestamp").dt.strftime("%Y-%m-%dT%H:%M:%SZ")).write_csv().encode()


def import_candles(coin: Coin, frame: pl.DataFrame, *, simulated: bool = False) -> Dataset:
    stored = datasets.import_candles(
        coin, to_csv(frame), name="candles.csv", actor=OPERATOR, simulated=simulated
    )
    return stored.dataset


def market(symbol: str = "BTC", *, bars: int = 1600, seed: int = 0) -> Dataset:
    """A simulated dataset, just long enough to train on."""
    return datasets.simulate_candles(
        coins.find_coin(symbol), bars=bars, drift=1.2, seed=seed, actor=OPERATOR
    ).dataset


def run(
    dataset: Dataset,
    *,
    epochs: int = 2,
    batch_size: int = 256,
    seed: int = 1,
    line: str = "v7_fixed",
    budget: Budget | None = None,
    is_sent: bool = True,
    **parameters: float,
) -> TrainingRun:
    """A queued run on this dataset, quickly done."""
    return runs.launch_run(
        coin=dataset.coin,
        dataset=dataset,
        line=line,
        parameters={"epochs": epochs, "batch_size": batch_size, **parameters} if line != "v5" else {},
        seed=seed,
        budget=budget or runs.open_budget(),
        actor=OPERATOR,
        is_sent=is_sent,
    )


def bundle(dataset: Dataset, name: str = "one") -> Bundle:
    """A bundle's row without files, for what asks no more of it."""
    return Bundle.objects.create(
        digest=f"sha256:{name}",
        coin=dataset.coin,
        line="v7_fixed",
        dataset=dataset,
        interval_seconds=dataset.interval_seconds,
        manifest="{}",
    )


def bundle_folder(bundle: Bundle, folder: Path) -> Path:
    """A bundle's stored files, each verified, in `folder`."""
    folder.mkdir(exist_ok=True)
    for artifact in bundle.artifacts.all():
        (folder / artifact.name).write_bytes(artifact_store.read(artifact.sha256))
    return folder
