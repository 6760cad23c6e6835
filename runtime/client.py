"""The bot's side: follow the pointer, keep the last good set, decide from it. All coins change together or none does."""

import asyncio
import hashlib
import re
import socket
import threading
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import TracebackType

import polars as pl

from runtime.decision import Active, Decision
from runtime.errors import AnswerExpired, ClientError, Misconfigured
from runtime.follower import Follower
from runtime.protocol.envelope import PublicKeys
from runtime.protocol.service import Service
from runtime.storage.cache import Cache
from runtime.watching import Watch, ask, in_thread

POLL_S = 5.0
SPREAD_S = 5.0
_STOP_STEP_S = 0.05
_INSTANCE = re.compile(r"[A-Za-z0-9._:@-]{1,64}")


def _now() -> datetime:
    return datetime.now(UTC)


class _Bot:
    """What the two clients share: one service, one cache folder, and the state between them."""

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
        instance: str | None = None,
        spread_s: float = SPREAD_S,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        keys = public_key if isinstance(public_key, PublicKeys) else PublicKeys(public_key)
        self.instance = _checked_instance(instance, Path(cache_dir))
        self._spread_s = spread_s
        self._service = Service(url, token, timeout_s=timeout_s)
        self._follower = Follower(
            Cache(Path(cache_dir), str(self._service.url), keys),
            keys,
            self._service.download,
            coins=coins,
            timeout_s=timeout_s,
            fresh_for=timedelta(seconds=fresh_for_s),
            clock=clock,
        )
        self._asking = threading.Lock()
        self._ending, self._watching = threading.Event(), threading.RLock()

    @property
    def active(self) -> Active:
        """What this client runs at this moment; asks nobody."""
        return self._follower.active

    def _refresh(self) -> Active:
        with self._asking:
            problem = self._attempt(partial(ask, self._service, self._follower))
            if problem is None or isinstance(problem, AnswerExpired):  # what expired is in use all the same
                problem = self._attempt(self._follower.run_errands) or problem
            if problem is not None:
                self._follower.miss(problem)
            return self.active

    def _attempt(self, work: Callable[[], None]) -> ClientError | None:
        try:
            work()
        except ClientError as problem:
            return problem
        return None

    def _watch(self, on_change: Callable[[Active], None], every_s: float) -> Watch:
        return Watch(
            self._service,
            self._follower,
            on_change,
            instance=self.instance,
            every_s=every_s,
            spread_s=self._spread_s,
        )

    def _close(self) -> None:
        self._follower.close()
        self._service.close()


class Client(_Bot):
    """Follows one service for one bot; safe to use from several threads, decisions never wait for the network.

    It starts from what `cache_dir` holds, without asking anybody; `refresh` asks the service once, `watch` follows it.

    `public_key` is what `manage.py keys export` prints: 64 hex digits, or two such texts (with a comma between them, or as
    a list) while the service changes its key. Nothing is followed that none of them signed, from the network or the disk.

    `coins` are those the bot trades: a release without one of them is refused. `timeout_s` bounds each wait for the
    network. After `fresh_for_s` seconds without an answer a decision says *stale since*. `instance` is this bot's name
    among those of its token, kept over restarts; without one it is made of the machine's name and the folder. `spread_s`:
    a heartbeat follows a move within so many seconds, at random.

    Raises Misconfigured (address, token, key or name) and CacheFailed (the folder cannot be made); no other method raises
    for a reason of network, service or disk.
    """

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End `watch`, give back connections and the lock file; decisions go on from memory."""
        self._ending.set()
        with self._watching:
            self._close()

    def predict(self, coin: str, candles: pl.DataFrame) -> Decision:
        """Decide for one coin from its candles, the oldest bar first (`mlcore.data.candles`; 2,048 bars or more).

        Neutral, with the reason, where there is no model or where it answers what is not finite. Raises UnknownCoin,
        and what `mlcore` refuses in the candles: CandlesRefused, NotEnoughBars, FeaturesRefused.
        """
        return self._follower.decide(coin, candles)

    def refresh(self) -> Active:
        """Ask the service once, and follow it where that is safe; what is not comes back as `problem`.

        A new set is downloaded, verified and loaded whole before it replaces the old one in a single assignment.
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

        It streams, and asks every `every_s` seconds while it cannot; fetches ahead what awaits approval; and reports to the
        service what runs. `on_change` hears where things stand first, and then whenever set or problem differ; it is called
        in this thread, and what it raises ends the watch.
        """
        with self._watching:
            asyncio.run(self._until(self._watch(on_change, every_s), stop or self._ending))

    async def _until(self, watch: Watch, stop: threading.Event) -> None:
        running = asyncio.create_task(watch.run())
        while not (stop.is_set() or self._ending.is_set() or running.done()):
            await asyncio.wait([running], timeout=_STOP_STEP_S)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


class AsyncClient(_Bot):
    """`Client` for a bot that runs on asyncio: the same arguments, the same answers, nothing blocks the event loop.

    Making one reads the cache folder, as a `Client` does: make it before the loop gets busy.
    """

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give back connections and the lock file; decisions go on from memory. Cancel `watch` before."""
        await in_thread(self._close)

    async def predict(self, coin: str, candles: pl.DataFrame) -> Decision:
        """As `Client.predict`, in a thread."""
        return await asyncio.to_thread(self._follower.decide, coin, candles)

    async def refresh(self) -> Active:
        """As `Client.refresh`, in a thread."""
        return await in_thread(self._refresh)

    async def watch(self, on_change: Callable[[Active], None], *, every_s: float = POLL_S) -> None:
        """As `Client.watch`, until its task is cancelled; `on_change` is called in the event loop."""
        await self._watch(on_change, every_s).run()


def _checked_instance(name: str | None, cache_dir: Path) -> str:
    if name is None:
        host = re.sub(r"[^A-Za-z0-9._:@-]", "-", socket.gethostname())[:48] or "bot"
        return f"{host}:{hashlib.sha256(str(cache_dir.absolute()).encode()).hexdigest()[:8]}"
    if not _INSTANCE.fullmatch(name):
        raise Misconfigured(
            f"a bot's name has 1 to 64 letters, digits and any of . _ : @ -, and not {name[:80]!r}"
        )
    return name
