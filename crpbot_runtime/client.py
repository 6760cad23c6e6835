"""The bot's client: follow the pointer, keep the last good set, decide with it. All coins change together or none does."""

import asyncio
import hashlib
import math
import os
import re
import socket
import threading
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import UnionType
from typing import NoReturn
from weakref import WeakSet

from crpbot_runtime import bundles, frames, watch_loop
from crpbot_runtime.decision import Active, Decision
from crpbot_runtime.errors import ClientError, Misconfigured, SignerUnknown, UntimelySnapshot
from crpbot_runtime.protocol.public_keys import PublicKeys
from crpbot_runtime.protocol.service import Service
from crpbot_runtime.storage.cache import Cache
from crpbot_runtime.updater import Updater
from crpbot_runtime.watch_loop import Heartbeats, WatchLoop, run_in_thread

POLL_S = 5.0
SPREAD_S = 5.0
MAX_SECONDS = 10**9
"""Thirty years: no system waits longer."""
_STOP_STEP_S = 0.05
_INSTANCE = re.compile(r"[A-Za-z0-9._:@-]{1,64}")
_get_utc_now = partial(datetime.now, UTC)


class _BaseClient:
    """What both clients share: one service, one cache folder, and the updater between them."""

    def __init__(
        self,
        url: str,
        token: str,
        public_key: str | Iterable[str] | PublicKeys,
        cache_dir: str | Path,
        *,
        coins: Collection[str] | None = None,
        timeout_s: float = 10.0,
        fresh_for_s: float = 90.0,
        max_age_s: float | None = None,
        start_stale: bool = False,
        instance: str | None = None,
        spread_s: float = SPREAD_S,
        clock: Callable[[], datetime] = _get_utc_now,
    ) -> None:
        _require_type("url", url, str)
        _require_type("token", token, str)
        folder = _validate_folder(cache_dir)
        _require_seconds(timeout_s=timeout_s, fresh_for_s=fresh_for_s)
        if max_age_s is not None and max_age_s != math.inf:
            _require_seconds(max_age_s=max_age_s)
        _require_seconds(may_be_zero=True, spread_s=spread_s)
        coins = _validate_coins(coins)
        _validate_clock(clock)
        keys = public_key if isinstance(public_key, PublicKeys) else PublicKeys(public_key)
        self.instance = _validate_instance(instance, folder)
        self._service = Service(url, token, timeout_s=timeout_s)
        self._updater = Updater(
            Cache(folder, str(self._service.url), keys),
            self._service.download,
            self._service.fetch_key_sets,
            coins=coins,
            timeout_s=timeout_s,
            fresh_for=timedelta(seconds=fresh_for_s),
            max_age_s=max_age_s,
            start_stale=start_stale,
            clock=clock,
        )
        self._heartbeats = Heartbeats(self._service, self._updater, self.instance)
        self._create_watch_loop = partial(
            WatchLoop,
            self._service,
            self._updater,
            self._heartbeats,
            instance=self.instance,
            spread_s=spread_s,
        )
        self._create_locks()
        _clients.add(self)

    def _create_locks(self) -> None:
        self._refresh_lock = threading.Lock()
        self._closing, self._watch_lock = threading.Event(), threading.RLock()

    def _renew_after_fork(self) -> None:
        is_closed = self._closing.is_set()
        self._service.renew_after_fork()
        self._updater.renew_after_fork()
        self._heartbeats.renew_after_fork()
        self._create_locks()
        if is_closed:
            self._closing.set()

    def __reduce__(self) -> NoReturn:
        raise Misconfigured(
            "a client is not copied or sent to another process: make one there, or before the process forks"
        )

    @property
    def active(self) -> Active:
        """What this client runs at this moment; no network."""
        return self._updater.active

    def _refresh(self) -> Active:
        with self._refresh_lock:
            problem: ClientError | None = None
            for step in (self._poll, self._updater.run_pending_work):
                try:
                    step()
                except ClientError as error:
                    problem = error
                    # What is in use may still have to be loaded or saved.
                    if not isinstance(error, UntimelySnapshot):
                        break
            if problem is not None:
                self._updater.record_problem(problem)
            return self.active

    def _poll(self) -> None:
        etag = self._updater.etag
        try:
            self._updater.apply(self._service.fetch_snapshot(etag), etag)
        except SignerUnknown as unknown:
            self._updater.find_signer(unknown)
            self._updater.apply(self._service.fetch_snapshot(None))

    def _close(self) -> None:
        self._heartbeats.send_stop()
        self._updater.close()
        self._service.close()


class Client(_BaseClient):
    """The client of one bot for one service. Safe to use from several threads; decisions never wait for the network.

    It starts from what `cache_dir` holds, without the network. `refresh` asks the service once, `watch` follows it.

    `public_key` is what `manage.py keys export` prints: the version of a set of keys, a colon, and keys of 64 hex digits
    each, separated by commas. Only snapshots that one of these keys signed are followed, from the network or the disk. When
    the service changes its keys, the client follows by itself, as long as a key that it trusts signed the change.

    `coins` are those the bot trades; a release without one of them is refused. `timeout_s` bounds each wait for the network.
    `max_age_s` is how old the last bar of candles may be, from its opening time on: two intervals unless given, and any age
    with `math.inf`.
    After `fresh_for_s` seconds without confirmation a decision says *stale since*. A client with an empty folder answers
    neutral until it gets a snapshot that has not expired; with `start_stale` an expired one is enough.

    `instance` is this bot's name among those of its token, the same after a restart; the default is made of the machine's
    name and the folder. A heartbeat follows a move within `spread_s` seconds, at random.

    Raises Misconfigured (address, token, key or name) and CacheFailed (the folder cannot be created). No other method raises
    because of network, service or disk.
    """

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End `watch`, tell the service that this bot stops, and close connections; decisions go on from memory.

        Takes seconds at most, whatever the network does.
        """
        self._closing.set()
        with self._watch_lock:
            self._close()

    def predict(self, coin: str, candles: object) -> Decision:
        """Decide for one coin from its candles, the oldest bar first: 2,048 bars or more that have closed.

        A model of windows needs as many as its window has.
        They are a frame of polars or pandas, an Arrow table, or rows of time, open, high, low, close and volume. Times
        without a zone are UTC, whole numbers are epochs, and other columns are ignored.

        Neutral, with the reason, without a model, if its answer is not finite, and if the candles are not of now: another
        interval than the model's, a last bar that has not closed or is too old, too many gaps. Raises UnknownCoin, and for
        candles that are none the errors of `mlcore`: CandlesRefused, NotEnoughBars, FeaturesRefused (all MlcoreError).
        """
        return self._updater.decide(coin, candles)

    def refresh(self) -> Active:
        """Ask the service once, and follow it if that is safe; otherwise the reason is in `problem`.

        A new set is downloaded, verified and loaded completely before a single assignment puts it in use.
        """
        return self._refresh()

    def watch(
        self,
        on_change: Callable[[Active], None],
        *,
        every_s: float = POLL_S,
        stop: threading.Event | None = None,
    ) -> None:
        """Follow the service until `stop` is set or the client is closed. A bot runs this in a thread of its own.

        It streams, or polls every `every_s` seconds while it cannot; prefetches what awaits approval; and reports what runs.
        `on_change` gets the current state first, then every change of set or problem. It is called in this thread, and an
        exception it raises ends the watch.
        """
        _require_watchable(on_change, every_s)
        if stop is not None and not callable(getattr(stop, "is_set", None)):
            raise Misconfigured(f"stop is {stop!r:.80}, and must be a threading.Event")
        with suppress(RuntimeError):
            asyncio.get_running_loop()
            raise Misconfigured("a loop of asyncio runs in this thread: use AsyncClient, or another thread")
        with self._watch_lock:
            watch_loop = self._create_watch_loop(on_change, every_s=every_s)
            asyncio.run(self._run_until(watch_loop, stop or self._closing))

    async def _run_until(self, watch_loop: WatchLoop, stop: threading.Event) -> None:
        running = asyncio.create_task(watch_loop.run())
        while not (stop.is_set() or self._closing.is_set() or running.done()):
            await asyncio.wait([running], timeout=_STOP_STEP_S)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


class AsyncClient(_BaseClient):
    """`Client` for a bot that runs on asyncio: the same arguments and answers; nothing blocks the event loop.

    The constructor reads the cache folder, as that of `Client` does: create it before the loop is busy.
    """

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """As `Client.close`. Cancel `watch` first."""
        await run_in_thread(self._close)

    async def predict(self, coin: str, candles: object) -> Decision:
        """As `Client.predict`, in a thread."""
        return await asyncio.to_thread(self._updater.decide, coin, candles)

    async def refresh(self) -> Active:
        """As `Client.refresh`, in a thread."""
        return await run_in_thread(self._refresh)

    async def watch(self, on_change: Callable[[Active], None], *, every_s: float = POLL_S) -> None:
        """As `Client.watch`, until its task is cancelled; `on_change` is called in the event loop."""
        _require_watchable(on_change, every_s)
        await self._create_watch_loop(on_change, every_s=every_s).run()


def _require_type(name: str, value: object, kind: type | UnionType) -> None:
    if not isinstance(value, kind):
        raise Misconfigured(f"{name} is {value!r:.80}, and must be text")


def _require_seconds(*, may_be_zero: bool = False, **seconds: object) -> None:
    for name, value in seconds.items():
        is_number = isinstance(value, int | float) and value <= MAX_SECONDS
        if not is_number or not (value > 0 or (may_be_zero and value == 0)):  # type: ignore[operator]
            raise Misconfigured(
                f"{name} is {value!r:.80}, and must be a number of seconds above zero, at most {MAX_SECONDS:,}"
            )


def _validate_folder(cache_dir: str | Path) -> Path:
    _require_type("cache_dir", cache_dir, str | os.PathLike)
    try:
        name = os.fspath(cache_dir)
        os.fsencode(name)
        if isinstance(name, str) and name and "\0" not in name:
            name.encode()  # its digest is part of the bot's name
            return Path(name)
    except (TypeError, ValueError):
        pass
    raise Misconfigured(f"cache_dir is {cache_dir!r:.80}, and must be the name of a folder")


def _require_watchable(on_change: object, every_s: object) -> None:
    _require_seconds(every_s=every_s)
    if not callable(on_change):
        raise Misconfigured(f"on_change is {on_change!r:.80}, and must be a function")


def _validate_coins(coins: Collection[str] | None) -> Collection[str] | None:
    if coins is None:
        return None
    found = list(coins) if isinstance(coins, Iterable) else []
    if (
        isinstance(coins, str)
        or not isinstance(coins, Iterable)
        or not all(isinstance(c, str) for c in found)
    ):
        raise Misconfigured(f'coins is {coins!r:.80}, and must be a list of names, such as ["BTC", "ETH"]')
    return found


def _validate_clock(clock: Callable[[], datetime]) -> None:
    try:
        now = clock() if callable(clock) else None
    except Exception as error:
        raise Misconfigured(
            f"clock does not tell the time ({type(error).__name__}: {error!s:.80})"
        ) from error
    if not isinstance(now, datetime) or now.utcoffset() is None:
        raise Misconfigured("clock must return the time with its zone, as datetime.now(UTC) does")


def _validate_instance(name: str | None, cache_dir: Path) -> str:
    if name is None:
        host = re.sub(r"[^A-Za-z0-9._:@-]", "-", socket.gethostname())[:48] or "bot"
        return f"{host}:{hashlib.sha256(str(cache_dir.absolute()).encode()).hexdigest()[:8]}"
    if not isinstance(name, str) or not _INSTANCE.fullmatch(name):
        raise Misconfigured(
            f"a bot's name has 1 to 64 letters, digits and any of . _ : @ -, and not {name!r:.80}"
        )
    return name


_clients: WeakSet[_BaseClient] = WeakSet()
"""The clients of this process."""


def _renew_all_after_fork() -> None:
    """A client made before a fork works in the child: with locks, connections and threads of its own."""
    frames.note_fork()
    bundles.renew_after_fork()
    watch_loop.renew_after_fork()
    for client in list(_clients):
        client._renew_after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(before=frames.look_for_threads, after_in_child=_renew_all_after_fork)
