"""A bot's background loop: receive every move at once, prefetch, and report what runs. Decisions never wait for it.

It streams. While it cannot, it polls every few seconds, and tries to stream again after increasing, random pauses. Whatever
blocks (disk, downloads, reports) runs in threads, so that a move is received during a download.
"""

import asyncio
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from crpbot_runtime.decision import Active
from crpbot_runtime.errors import ClientError, ReportRejected, SignerUnknown
from crpbot_runtime.live_windows import MAX_WINDOWS
from crpbot_runtime.protocol.service import HEARTBEAT_PATH, WINDOWS_PATH, Answer, Service
from crpbot_runtime.updater import Updater

logger = logging.getLogger(__name__)

MAX_STREAM_PAUSE_S = 60.0
RETRY_WORK_S = 5.0
TICK_S = 1.0
SAVE_COST_S = 0.002
"""The interpreter time of saving one state; all bots of one process share the interpreter."""
STOP_S = 2.0
"""What telling the service that a bot stops may take, so that the bot stops quickly whatever the network does."""
MIN_HEARTBEAT_S, MAX_HEARTBEAT_S = 1.0, 300.0

Result = TypeVar("Result")

_running: set["WatchLoop"] = set()
"""The loops of this process."""


def _create_threads() -> ThreadPoolExecutor:
    # A pool of its own: other users of the default pool must not wait for this network.
    return ThreadPoolExecutor(max_workers=32, thread_name_prefix="crpbot")


_threads = _create_threads()


def renew_after_fork() -> None:
    """In the child the parent's threads and loops do not run."""
    global _threads
    _threads = _create_threads()
    _running.clear()


async def run_in_thread(work: Callable[[], Result]) -> Result:
    """Run blocking work beside the event loop."""
    return await asyncio.get_running_loop().run_in_executor(_threads, work)


class Heartbeats:
    """The heartbeats of one bot, one after the other: the last one says that it stops."""

    def __init__(self, service: Service, updater: Updater, instance: str) -> None:
        self._service, self._updater, self._instance = service, updater, instance
        self.renew_after_fork()

    def renew_after_fork(self) -> None:
        """In the child nobody sends, and the service knows only the parent."""
        self._lock = threading.Lock()
        self._has_begun = self._is_known = self._has_stopped = False

    def send(self) -> dict[str, Any]:
        """Returns the service's answer; empty once the bot has stopped. Raises ClientError."""
        with self._lock:
            if self._has_stopped:
                return {}
            self._has_begun = True
            answer = self._service.post(HEARTBEAT_PATH, self._updater.build_heartbeat(self._instance))
            self._is_known = True
            return answer

    def send_stop(self) -> None:
        """Tell the service, if it knows of this bot, that it was stopped on purpose. Never fails, and waits for STOP_S."""
        was_stopped, self._has_stopped = self._has_stopped, True
        if self._has_begun and not was_stopped:
            sending = threading.Thread(target=self._post_stop, daemon=True)
            sending.start()
            sending.join(STOP_S)

    def _post_stop(self) -> None:
        try:
            with self._lock:  # after the heartbeat that is on its way
                if not self._is_known:
                    return
                document = self._updater.build_heartbeat(self._instance) | {"is_stopping": True}
                self._service.post(HEARTBEAT_PATH, document)
        except Exception as problem:  # noqa: BLE001 - the connection may be closed under it, and the bot ends anyway
            logger.warning("the service could not be told that this bot stops: %s", problem)


class WatchLoop:
    """One client's loop. It calls `on_change`, which must return quickly.

    `every_s` is the polling interval while it cannot stream. A heartbeat follows a move within `spread_s`, at random, so
    that not all bots report at once.
    """

    def __init__(
        self,
        service: Service,
        updater: Updater,
        heartbeats: Heartbeats,
        on_change: Callable[[Active], None],
        *,
        instance: str,
        every_s: float,
        spread_s: float,
    ) -> None:
        self._service, self._updater, self._heartbeats = service, updater, heartbeats
        self._on_change = on_change
        self._instance, self._every_s, self._spread_s = instance, every_s, spread_s
        self._last_notified: tuple[object, ...] | None = None
        self._last_reported: tuple[object, ...] = ()
        self._last_logged = ""
        self._work_requested = asyncio.Event()
        self._delayed_work: asyncio.TimerHandle | None = None
        self._heartbeat_at = 0.0
        self._windows: deque[dict[str, Any]] = deque(maxlen=MAX_WINDOWS)

    async def run(self) -> None:
        """Run until cancelled; raises only what `on_change` raises."""
        tasks = [asyncio.create_task(loop) for loop in (self._receive(), self._work(), self._report())]
        _running.add(self)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            _running.discard(self)
            if self._delayed_work is not None:
                self._delayed_work.cancel()
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    async def _receive(self) -> None:
        failures = 0
        while True:
            failures = 0 if await self._stream() else failures + 1
            stream_at = time.monotonic() + random.uniform(0.5, 1.5) * min(MAX_STREAM_PAUSE_S, 2.0**failures)
            # Spread: whatever ended this stream may have ended a thousand.
            await asyncio.sleep(random.uniform(0, min(1.0, self._every_s)))
            while True:
                await self._poll()
                left = stream_at - time.monotonic()
                await asyncio.sleep(max(0.0, min(left, self._every_s * random.uniform(0.9, 1.1))))
                if left <= self._every_s:
                    break

    async def _stream(self) -> bool:
        """Stream as long as the snapshots can be followed; returns whether at least one could."""
        has_applied = False

        def apply(answer: Answer) -> None:
            nonlocal has_applied
            self._apply(answer)
            has_applied = True
            self._last_logged = ""

        try:
            await self._service.stream(apply)
        except ClientError as problem:
            self._log_once(f"not streaming, polling every {self._every_s:g} s: {problem}")
        return has_applied

    async def _poll(self) -> None:
        try:
            try:
                await self._poll_once()
            except SignerUnknown as unknown:
                await run_in_thread(partial(self._updater.find_signer, unknown))
                await self._poll_once()
        except ClientError as problem:
            self._record_problem(problem)

    async def _poll_once(self) -> None:
        etag = self._updater.etag
        self._apply(await run_in_thread(partial(self._service.fetch_snapshot, etag)), etag)

    def _apply(self, answer: Answer | None, etag: str | None = None) -> None:
        """Apply a streamed or polled answer. Raises ClientError, after `on_change` was told of it."""
        try:
            self._updater.apply(answer, etag)
        except ClientError as problem:
            self._record_problem(problem)
            raise
        finally:
            if self._updater.has_pending_work:
                self._request_work()
        if not self._updater.is_waiting:
            self._notify()

    def _record_problem(self, problem: ClientError) -> None:
        self._updater.record_problem(problem)
        self._notify()

    async def _work(self) -> None:
        while True:
            await self._work_requested.wait()
            self._work_requested.clear()
            try:
                await run_in_thread(self._updater.run_pending_work)
            except ClientError as problem:
                self._record_problem(problem)
            if not self._updater.is_waiting:
                self._notify()
            if self._updater.has_pending_work and not self._work_requested.is_set():
                loop = asyncio.get_running_loop()
                loop.call_later(RETRY_WORK_S * random.uniform(0.8, 1.2), self._work_requested.set)

    def _request_work(self) -> None:
        """Start the pending work: at once for a lone bot or a download, else after the other bots of this process swapped.

        A bot that crashes before it saved starts with the previous set, and receives this one again.
        """
        others = len(_running) - 1
        if self._updater.is_waiting or not others:
            self._work_requested.set()
        elif self._delayed_work is None:
            # Not at once: right after a move the interpreter is needed by the bots that have not swapped yet.
            delay = random.uniform(0.25, 1.25) * SAVE_COST_S * others
            self._delayed_work = asyncio.get_running_loop().call_later(delay, self._start_delayed_work)

    def _start_delayed_work(self) -> None:
        self._delayed_work = None
        self._work_requested.set()

    def _notify(self) -> None:
        """Call `on_change`, and bring the next heartbeat forward, if something changed."""
        active = self._updater.active
        reported = (active.service, active.revision, *self._updater.prefetched.values())
        if reported != self._last_reported:
            self._last_reported = reported
            soon = time.monotonic() + random.uniform(0, self._spread_s)
            self._heartbeat_at = min(self._heartbeat_at, soon)
        notified = (active.service, active.revision, active.release, active.coins, str(active.problem or ""))
        if notified != self._last_notified:
            self._last_notified = notified
            self._on_change(active)

    async def _report(self) -> None:
        is_known = False
        self._heartbeat_at = time.monotonic() + random.uniform(0, self._spread_s)
        while True:
            await asyncio.sleep(max(0.0, min(self._heartbeat_at - time.monotonic(), TICK_S)))
            if time.monotonic() >= self._heartbeat_at:
                is_known = await self._send_heartbeat()
            self._windows.extend(self._updater.pop_windows(self._instance))
            if is_known and self._windows:
                is_known = await self._post_oldest_window()

    async def _send_heartbeat(self) -> bool:
        """Send a heartbeat and schedule the next; returns whether the service took it."""
        # Set before sending: a move during the request must be able to bring the next one forward.
        self._heartbeat_at = time.monotonic() + MAX_HEARTBEAT_S
        try:
            answer = await run_in_thread(self._heartbeats.send)
        except ClientError as problem:
            self._log_once(f"the heartbeat could not be sent: {problem}")
            answer = {}
        self._heartbeat_at = min(
            self._heartbeat_at, time.monotonic() + _read_interval(answer) * random.uniform(0.9, 1.1)
        )
        return bool(answer)

    async def _post_oldest_window(self) -> bool:
        """Post the oldest window; returns whether the service can be reached. It counts a repeated window once."""
        window = self._windows[0]
        try:
            await run_in_thread(partial(self._service.post, WINDOWS_PATH, window))
        except ReportRejected as problem:
            self._log_once(f"a live window was rejected: {problem}")
        except ClientError as problem:
            self._log_once(f"a live window could not be sent: {problem}")
            return False
        if self._windows and self._windows[0] is window:
            self._windows.popleft()
        return True

    def _log_once(self, message: str) -> None:
        if message != self._last_logged:  # not at every attempt
            logger.warning("%s", message)
        self._last_logged = message


def _read_interval(answer: dict[str, Any]) -> float:
    seconds = answer.get("heartbeat_seconds")
    if not isinstance(seconds, int | float) or not seconds > 0:
        return 10.0
    return min(max(float(seconds), MIN_HEARTBEAT_S), MAX_HEARTBEAT_S)
