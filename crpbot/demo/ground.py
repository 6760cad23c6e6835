"""What must hold before the demo starts: a free port, room on the disk, candles to read, a state folder of its own."""

import errno
import fcntl
import os
import shutil
import socket
from collections.abc import MutableMapping
from datetime import datetime
from pathlib import Path
from typing import TextIO

from crpbot.demo.errors import DemoFailed
from mlcore.data import candles
from mlcore.errors import CandlesRefused

HOST = "127.0.0.1"
COINS = ("BTC", "ETH", "SOL")
CANDLE_SUFFIXES = (".csv.gz", ".csv", ".parquet")
FREE_BYTES_NEEDED = 500_000_000
LOCK_NAME = "demo.lock"

# What would lead the demo to a database, a broker, files or keys that are not its own, or onto a network.
FOREIGN = (
    "CRPBOT_PROFILE",
    "CRPBOT_SECRET_KEY",
    "CRPBOT_DATABASE_URL",
    "CRPBOT_REDIS_URL",
    "CRPBOT_S3_BUCKET",
    "CRPBOT_ALLOWED_HOSTS",
    "CRPBOT_TRUSTED_ORIGINS",
    "CRPBOT_TOKEN",
    "CRPBOT_SIGNING_KEYS_DIR",
)


def require_free_port(port: int) -> None:
    """Raises DemoFailed when nobody may, or somebody does, listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise DemoFailed(f"Port {port} of {HOST} cannot be used: {error.strerror}.") from error
            raise DemoFailed(
                f"Port {port} of {HOST} is taken by another program. Stop that one, or choose another port: "
                f"make demo PORT={port + 1}"
            ) from error


def require_room(folder: Path) -> None:
    """Raises DemoFailed when the disk that `folder` will lie on is nearly full."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < FREE_BYTES_NEEDED:
        raise DemoFailed(
            f"The disk of {folder} has {free / 1e6:,.0f} MB free, and the demo needs {FREE_BYTES_NEEDED / 1e6:,.0f}. "
            "Make room, or put its state elsewhere with CRPBOT_STATE_DIR."
        )


def candle_files(folder: Path) -> dict[str, Path]:
    """Each coin's file in `folder`. Raises DemoFailed naming what is missing, or the row that cannot be read."""
    if not folder.is_dir():
        raise DemoFailed(f"There is no folder {folder}: CANDLES names one with {_expected_names()}.")
    found = {
        coin: next((path for path in _candidates(folder, coin) if path.is_file()), None) for coin in COINS
    }
    if missing := [coin for coin, path in found.items() if path is None]:
        raise DemoFailed(
            f"{folder} has no candles for {', '.join(missing)}: it must hold {_expected_names()}."
        )
    paths = {coin: path for coin, path in found.items() if path is not None}
    for path in paths.values():
        _require_readable(path)
    return paths


def _require_readable(path: Path) -> None:
    try:
        candles.read(path)
    except CandlesRefused as refused:
        raise DemoFailed(f"{refused}") from refused


def _candidates(folder: Path, coin: str) -> list[Path]:
    return [folder / f"{coin}{suffix}" for suffix in CANDLE_SUFFIXES]


def _expected_names() -> str:
    return ", ".join(f"{coin}.csv.gz" for coin in COINS) + " (or .csv, .parquet)"


def own_environment(environ: MutableMapping[str, str], state: Path) -> None:
    """Let everything started from here use `state`, in the embedded profile, and nothing else."""
    for name in FOREIGN:
        environ.pop(name, None)
    environ["CRPBOT_STATE_DIR"] = str(state)
    environ["DJANGO_SETTINGS_MODULE"] = "crpbot.settings"


def fresh_state(state: Path, now: datetime) -> tuple[TextIO, Path | None]:
    """An empty state folder held by this process; an earlier one is moved aside, and told as the second value.

    The first value holds the lock: keep it open. Raises DemoFailed while another demo runs on this folder.
    """
    try:
        if state.exists():
            _lock(state).close()
        aside = _move_aside(state, now)
        state.mkdir(parents=True, mode=0o700)
        return _lock(state), aside
    except OSError as error:
        raise DemoFailed(f"The state folder {state} cannot be made: {error.strerror}.") from error


def _move_aside(state: Path, now: datetime) -> Path | None:
    if not state.exists():
        return None
    aside = state.with_name(f"{state.name}-{now:%Y%m%d-%H%M%S}")
    state.rename(aside)
    return aside


def _lock(state: Path) -> TextIO:
    held = (state / LOCK_NAME).open("a+")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held.seek(0)
        raise DemoFailed(
            f"A demo runs on {state} already (process {held.read().strip() or 'unknown'}). Stop it, or give this one "
            "a folder of its own: CRPBOT_STATE_DIR=… make demo PORT=…"
        ) from None
    held.truncate(0)
    held.write(str(os.getpid()))
    held.flush()
    return held
