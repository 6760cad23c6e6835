"""Whether this machine's clock can be trusted: against its own uptime, and against database, Redis and bots.

Signed snapshots, leases, deadlines, tokens and sessions all end by this clock.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from statistics import median
from typing import cast

from django.core.cache import cache
from django.db import connection
from django.utils import timezone
from redis.exceptions import RedisError

from common.metrics import time_redis
from deploy.bots import fleet
from deploy.pointer import notify

LIMIT = timedelta(seconds=30)
CACHED_SECONDS = 10
JUMP_SHOWN_SECONDS = 600.0
"""After a jump there may be nothing left to compare with: database and Redis often use the same clock."""

REMEDY = (
    "Check that the time is synchronised on the machines of the service, the database and Redis (`timedatectl`,"
    " `chronyc tracking`). Until it is, bots may refuse snapshots as expired, and tokens, sessions, leases and deadlines"
    " end too early or too late. A jump is shown for ten minutes."
)


class JumpDetector:
    """Compares the clock with the uptime, which no correction of the time changes. One for each process."""

    def __init__(self) -> None:
        self._began_at = _compute_start()
        self._jump = timedelta(0)
        self._shown_until = float("-inf")

    def find_jump(self) -> timedelta | None:
        """By how much the clock jumped within the last JUMP_SHOWN_SECONDS; None where it did not."""
        began_at, uptime = _compute_start(), _read_uptime()
        if abs(began_at - self._began_at) > LIMIT:
            self._jump, self._shown_until = began_at - self._began_at, uptime + JUMP_SHOWN_SECONDS
        # Slow corrections are no jump, however large their sum.
        self._began_at = began_at
        return self._jump if uptime < self._shown_until else None


def _compute_start() -> datetime:
    """When this machine started, by its clock: constant until the clock jumps."""
    return timezone.now() - timedelta(seconds=_read_uptime())


def _read_uptime() -> float:
    """Seconds since the machine started, with the time that it was suspended where the system counts that."""
    boot_clock = getattr(time, "CLOCK_BOOTTIME", None)  # Linux
    return time.monotonic() if boot_clock is None else time.clock_gettime(boot_clock)


_jumps = JumpDetector()


def find_problem() -> str | None:
    """Why this machine's clock cannot be trusted; None where nothing contradicts it. The text holds no figures."""
    return cast(str | None, cache.get_or_set("clock-problem", _find_problem, CACHED_SECONDS))


def _find_problem() -> str | None:
    problems = list(_list_problems())
    return f"The service's clock cannot be trusted: {'; '.join(problems)}." if problems else None


def _list_problems() -> Iterator[str]:
    if jump := _jumps.find_jump():
        yield f"it jumped {_describe_size(jump)} {'forward' if jump > timedelta(0) else 'back'}"
    for ahead, other in (
        (_compare_with_database(), "the database's"),
        (_compare_with_redis(), "Redis's"),
        (_compare_with_bots(), "the clocks of most bots"),
    ):
        if ahead is not None and abs(ahead) > LIMIT:
            yield f"it is {_describe_size(ahead)} {'ahead of' if ahead > timedelta(0) else 'behind'} {other}"


def _compare_with_database() -> timedelta | None:
    """How far this clock is ahead of the database's; None for SQLite, which has no other."""
    if connection.vendor != "postgresql":
        return None
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        return timezone.now() - cast(datetime, cursor.fetchone()[0])


def _compare_with_redis() -> timedelta | None:
    """The same for Redis; None while it does not answer, which other parts report."""
    try:
        with time_redis("clock"), notify.connect_briefly() as client:
            seconds, microseconds = cast(tuple[int, int], client.time())
    except (RedisError, OSError):
        return None
    return timedelta(seconds=timezone.now().timestamp() - seconds - microseconds / 1e6)


def _compare_with_bots() -> timedelta | None:
    """The same for the live bots: the median over their owners of each owner's median. None where no bot reports it."""
    by_owner: dict[str, list[int]] = defaultdict(list)
    for name, seconds in fleet.list_live_bots().values_list("name", "clock_error_seconds"):
        if seconds is not None:
            by_owner[name].append(seconds)
    if not by_owner:
        return None
    return timedelta(seconds=-median(median(errors) for errors in by_owner.values()))


def _describe_size(difference: timedelta) -> str:
    """Roughly, so that the text of the alarm stays the same."""
    seconds = abs(difference.total_seconds())
    sizes = ((120.0, "seconds"), (7_200.0, "minutes"), (172_800.0, "hours"))
    return next((name for limit, name in sizes if seconds < limit), "days")
