"""Checks before the demo starts: a free port, disk space, readable candles, a state folder that is not in use."""

import errno
import fcntl
import os
import re
import shutil
import socket
from collections.abc import Mapping, MutableMapping
from datetime import datetime
from pathlib import Path
from typing import TextIO

from crpbot.demo.errors import DemoFailed
from mlcore.data import candles
from mlcore.errors import CandlesRefused
from mlcore.quality.result import format_interval

HOST = "127.0.0.1"
COINS = ("BTC", "ETH", "SOL")
EXPECTED_FILES = ", ".join(f"{coin}.csv.gz" for coin in COINS) + " (or any other candle files of these names)"
_COIN = re.compile(rf"(?<![A-Z0-9])({'|'.join(COINS)})(USDT|USDC|USD|EUR)?(?![A-Z0-9])")
FREE_BYTES_NEEDED = 500_000_000
LOCK_NAME = "demo.lock"

# Variables that would make the demo use another database, broker, file store or keys, or serve a network.
FOREIGN_VARIABLES = (
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
    """Raises DemoFailed when the port is in use or not allowed."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            taken = "is taken by another program. Stop that one, or choose another port: make demo PORT="
            is_taken = error.errno == errno.EADDRINUSE
            problem = f"{taken}{port + 1}" if is_taken else f"cannot be used: {error.strerror}."
            raise DemoFailed(f"Port {port} of {HOST} {problem}") from error


def require_disk_space(folder: Path) -> None:
    """Raises DemoFailed when the disk of `folder` is nearly full."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < FREE_BYTES_NEEDED:
        raise DemoFailed(
            f"The disk of {folder} has {free / 1e6:,.0f} MB free, and the demo needs {FREE_BYTES_NEEDED / 1e6:,.0f}. "
            "Make room, or put its state elsewhere with CRPBOT_STATE_DIR."
        )


def find_candle_files(folder: Path) -> dict[str, Path]:
    """The candle file of each coin, of any format that an import reads.

    Its name is the coin's, as BTC.csv.gz. Where there is none, it names the coin first, as Binance_BTCUSDT-1h.zip. Raises
    DemoFailed for a coin without a file or with several, an invalid row, or files of different bar intervals.
    """
    if not folder.is_dir():
        raise DemoFailed(f"There is no folder {folder}: CANDLES names one with {EXPECTED_FILES}.")
    named = {coin: _list_named(folder, coin) for coin in COINS}
    if missing := [coin for coin, paths in named.items() if not paths]:
        raise DemoFailed(f"{folder} has no candles for {', '.join(missing)}: it must hold {EXPECTED_FILES}.")
    for coin, paths in named.items():
        if len(paths) > 1:
            listed = ", ".join(path.name for path in paths)
            raise DemoFailed(f"{folder} has several files for {coin}: {listed}. Leave one of them there.")
    found = {coin: path for coin, (path,) in named.items()}
    _require_sound_candles(found)
    return found


def _list_named(folder: Path, coin: str) -> list[Path]:
    """The files that are called as the coin, else those that name it before any other coin."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    exact = [path for path in files if path.name.upper().partition(".")[0] == coin]
    first = [path for path in files if (named := _COIN.search(path.name.upper())) and named[1] == coin]
    return exact or first


def _require_sound_candles(files: Mapping[str, Path]) -> None:
    try:
        contents = {coin: candles.describe(candles.read(path)) for coin, path in files.items()}
    except CandlesRefused as refused:
        raise DemoFailed(f"{refused}") from refused
    intervals = {coin: content.interval_seconds for coin, content in contents.items()}
    if len(set(intervals.values())) > 1:
        bars = ", ".join(
            f"{coin} has bars of {format_interval(seconds)}" for coin, seconds in intervals.items()
        )
        raise DemoFailed(f"All coins need candles of one bar interval, and {bars}.")


def isolate_environment(environ: MutableMapping[str, str], state: Path) -> None:
    """Make every started process use `state` and the embedded profile only."""
    for name in FOREIGN_VARIABLES:
        environ.pop(name, None)
    environ["CRPBOT_STATE_DIR"] = str(state)
    environ["DJANGO_SETTINGS_MODULE"] = "crpbot.settings"


def prepare_state(state: Path, now: datetime) -> tuple[TextIO, Path | None]:
    """Create and lock an empty state folder; returns the lock and the new name of an existing folder, which is moved.

    Keep the lock open. Raises DemoFailed while another demo uses the folder.
    """
    aside = None
    try:
        if state.exists():
            _lock(state).close()
            aside = state.rename(state.with_name(f"{state.name}-{now:%Y%m%d-%H%M%S}"))
        state.mkdir(parents=True, mode=0o700)
        return _lock(state), aside
    except OSError as error:
        raise DemoFailed(f"The state folder {state} cannot be made: {error.strerror}.") from error


def open_state(state: Path) -> TextIO:
    """Lock a state folder as it is, or a new one. Keep the lock open. Raises DemoFailed while it is in use."""
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        return _lock(state)
    except OSError as error:
        raise DemoFailed(f"The state folder {state} cannot be used: {error.strerror}.") from error


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
