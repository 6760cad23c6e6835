"""A bot's loop: hear of every move at once, fetch ahead, and tell the service what runs. Decisions never wait for it.

It streams; where it cannot, it asks every few seconds, and tries to stream again after ever longer, random pauses. What
blocks (disk, downloads, reports) runs in threads, so that a move is heard while something is fetched.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from runtime.decision import Active
from runtime.errors import ClientError, NotTaken
from runtime.follower import Follower
from runtime.protocol.service import HEARTBEAT_PATH, WINDOWS_PATH, Answer, Service

logger = logging.getLogger(__name__)

LONGEST_PAUSE_S = 60.0
RETRY_ERRANDS_S = 5.0
TICK_S = 1.0
NOTE_S = 0.002
"""What writing down a flip takes of the interpreter, which all bots of one process share."""
LEAST_HEARTBEAT_S, MOST_HEARTBEAT_S = 1.0, 300.0
MOST_WINDOWS = 256
"""Kept while the service cannot be told; the oldest go first."""

Given = TypeVar("Given")

_running: set["Watch"] = set()
"""Those of this process."""

# Of its own: a bot's other uses of the default pool must not wait for our network.
_threads = ThreadPoolExecutor(max_workers=32, thread_name_prefix="crpbot")


async def in_thread(work: Callable[[], Given]) -> Given:
    """Run what blocks beside the event loop."""
    return await asyncio.get_running_loop().run_in_executor(_threads, work)


def ask(service: Service, follower: Follower) -> None:
    """Ask once what is live, and take the answer. Raises ClientError."""
    etag = follower.etag
    answer = service.active(etag)
    if answer is None:
        follower.hear_unchanged(etag)
    else:
        follower.hear(answer)


class Watch:
    """One client's loop. `on_change` is called from it, and must be quick.

    `every_s` lies between two questions while it cannot stream; a heartbeat follows a move within `spread_s`, at random, so
    that a fleet does not answer all at once.
    """

    def __init__(
        self,
        service: Service,
        follower: Follower,
        on_change: Callable[[Active], None],
        *,
        instance: str,
        every_s: float,
        spread_s: float,
    ) -> None:
        self._service, self._follower, self._on_change = service, follower, on_change
        self._instance, self._every_s, self._spread_s = instance, every_s, spread_s
        self._told: tuple[object, ...] | None = None
        self._has_errands = asyncio.Event()
        self._later: asyncio.TimerHandle | None = None
        self._reported: tuple[object, ...] = ()
        self._report_at = 0.0
        self._windows: deque[dict[str, Any]] = deque(maxlen=MOST_WINDOWS)
        self._said = ""

    async def run(self) -> None:
        """Until cancelled; raises only what `on_change` raises."""
        loops = [asyncio.create_task(one) for one in (self._listen(), self._fetch(), self._report())]
        _running.add(self)
        try:
            await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
        finally:
            _running.discard(self)
            if self._later is not None:
                self._later.cancel()
            for task in loops:
                task.cancel()
            ended = await asyncio.gather(*loops, return_exceptions=True)
        for outcome in ended:
            if isinstance(outcome, Exception):
                raise outcome

    async def _listen(self) -> None:
        now = asyncio.get_running_loop().time
        failures = 0
        while True:
            failures = 0 if await self._stream() else failures + 1
            again_at = now() + random.uniform(0.5, 1.5) * min(LONGEST_PAUSE_S, 2.0**failures)
            # Not all at once: what ended this stream may have ended a thousand.
            await asyncio.sleep(random.uniform(0, min(1.0, self._every_s)))
            while True:
                await self._ask()
                left = again_at - now()
                await asyncio.sleep(max(0.0, min(left, self._every_s * random.uniform(0.9, 1.1))))
                if left <= self._every_s:
                    break

    async def _stream(self) -> bool:
        """Stream for as long as it brings what can be followed; whether it brought anything."""
        brought = False

        def take(answer: Answer) -> None:
            nonlocal brought
            self._take(partial(self._follower.hear, answer))
            brought = True
            self._said = ""

        try:
            await self._service.stream(take)
        except ClientError as problem:
            self._say(f"not streaming, asking every {self._every_s:g} s: {problem}")
        return brought

    async def _ask(self) -> None:
        try:
            etag = self._follower.etag
            answer = await in_thread(partial(self._service.active, etag))
            if answer is None:
                self._take(partial(self._follower.hear_unchanged, etag))
            else:
                self._take(partial(self._follower.hear, answer))
        except ClientError as problem:
            self._follower.miss(problem)
            self._tell()

    def _take(self, hear: Callable[[], None]) -> None:
        """What both ways of hearing end in. Raises ClientError, after it was told."""
        try:
            hear()
        except ClientError as problem:
            self._follower.miss(problem)
            self._tell()
            raise
        finally:
            if self._follower.has_errands:
                self._begin_errands()
        if not self._follower.is_waiting:
            self._tell()

    async def _fetch(self) -> None:
        while True:
            await self._has_errands.wait()
            self._has_errands.clear()
            try:
                await in_thread(self._follower.run_errands)
            except ClientError as problem:
                self._follower.miss(problem)
                self._tell()
            if not self._follower.is_waiting:
                self._tell()
            if self._follower.has_errands and not self._has_errands.is_set():
                loop = asyncio.get_running_loop()
                loop.call_later(RETRY_ERRANDS_S * random.uniform(0.8, 1.2), self._has_errands.set)

    def _begin_errands(self) -> None:
        """What is in use is written down once the other bots of this process have changed over too; a lone bot's at once.

        One that crashes before begins with the set before, and is told of this one again.
        """
        others = len(_running) - 1
        if self._follower.is_waiting or not others:
            self._has_errands.set()
        elif self._later is None:
            # None of them at first: the moment after a move belongs to the bots that have not changed over yet.
            delay = random.uniform(0.25, 1.25) * NOTE_S * others
            self._later = asyncio.get_running_loop().call_later(delay, self._others_have_followed)

    def _others_have_followed(self) -> None:
        self._later = None
        self._has_errands.set()

    def _tell(self) -> None:
        active = self._follower.active
        running = (
            active.service,
            active.revision,
            self._follower.ready_for,
            self._follower.holds_fallback,
        )
        if running != self._reported:
            self._reported = running
            now = asyncio.get_running_loop().time()
            self._report_at = min(self._report_at, now + random.uniform(0, self._spread_s))
        news = (active.service, active.revision, active.release, active.coins, str(active.problem or ""))
        if news != self._told:
            self._told = news
            self._on_change(active)

    async def _report(self) -> None:
        now = asyncio.get_running_loop().time
        is_known = False
        self._report_at = now() + random.uniform(0, self._spread_s)
        while True:
            await asyncio.sleep(max(0.0, min(self._report_at - now(), TICK_S)))
            if now() >= self._report_at:
                is_known = await self._beat()
            self._windows.extend(self._follower.windows(self._instance))
            if is_known and self._windows:
                is_known = await self._post_window()

    async def _beat(self) -> bool:
        now = asyncio.get_running_loop().time
        # Before it is sent: a move that comes meanwhile is to be reported soon after.
        self._report_at = now() + MOST_HEARTBEAT_S
        try:
            answer = await in_thread(self._send_heartbeat)
        except ClientError as problem:
            self._say(f"the service does not hear what runs here: {problem}")
            answer = {}
        self._report_at = min(self._report_at, now() + _pause(answer) * random.uniform(0.9, 1.1))
        return bool(answer)

    def _send_heartbeat(self) -> dict[str, Any]:
        return self._service.post(HEARTBEAT_PATH, self._follower.report(self._instance))

    async def _post_window(self) -> bool:
        """Post the oldest window; whether the service can be told at all. It takes a window that came twice as one."""
        window = self._windows[0]
        try:
            await in_thread(partial(self._service.post, WINDOWS_PATH, window))
        except NotTaken as problem:
            self._say(f"a window of predictions was not taken: {problem}")
        except ClientError as problem:
            self._say(f"the service does not hear what was predicted: {problem}")
            return False
        if self._windows and self._windows[0] is window:
            self._windows.popleft()
        return True

    def _say(self, message: str) -> None:
        if message != self._said:  # once, not at every try
            logger.warning("%s", message)
        self._said = message


def _pause(answer: dict[str, Any]) -> float:
    seconds = answer.get("heartbeat_seconds")
    if not isinstance(seconds, int | float) or not seconds > 0:
        return 10.0
    return min(max(float(seconds), LEAST_HEARTBEAT_S), MOST_HEARTBEAT_S)
