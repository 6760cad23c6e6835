"""Each container is killed, as a crash would; the engine starts it again, and everything goes on.

A process is killed by its number on this machine: the engine takes `docker kill` for an order, and starts nothing after it.
"""

import os
import signal
import time
from collections.abc import Callable, Mapping
from functools import partial

from mlcore.data.simulate import COINS
from tests.compose.bot import Bot
from tests.compose.errors import TrialFailed
from tests.compose.report import Report
from tests.compose.service import SERVICES, Json, Service, wait_until
from tests.compose.story import Story

RECOVERY_SECONDS = 120
ABSENT_SECONDS = 20
SNAPSHOT_PATHS = ("/api/v1/active/", "/api/v1/active/signed/", "/api/v1/active/keys/")


class Kills:
    """Each method is a step of the report. `bot` runs on the story's candidate all the time, and is never neutral."""

    def __init__(self, service: Service, story: Story, bot: Bot, report: Report) -> None:
        self._service, self._story, self._bot, self._report = service, story, bot, report

    def run(self) -> None:
        for name in SERVICES:
            self._report_step(f"{name} killed", partial(self._kill, name))
        self._report_step("a worker killed while it trains", self._kill_during_run)
        self._report_step("PostgreSQL away: bots are served from memory", self._stop_database)
        self._report_step("Redis away: a pin reaches the bot", self._stop_redis)
        self._report_step("storage away: a pin reaches the bot", self._stop_storage)
        self._report_step("the engine restarted", self._restart_engine)

    def _report_step(self, name: str, check: Callable[[], str]) -> None:
        start = time.monotonic()
        with self._report.step(name) as note:
            note(check())
            if not self._bot.is_running():
                raise TrialFailed(f"The bot ended: {self._bot.other_lines[-5:]}")
            if neutral := self._bot.list_neutral_since(start):
                raise TrialFailed(f"The bot answered neutral: {neutral[:3]}")
            self._service.manage("verify_audit")

    def _kill(self, name: str) -> str:
        before = self._service.list_containers(name)
        for container in before.values():
            os.kill(container["State"]["Pid"], signal.SIGKILL)
        killed_at = time.monotonic()
        wait_until(lambda: self._is_back(name, before), f"{name} runs again", RECOVERY_SECONDS)
        wait_until(self._answers, f"the service answers after {name} was killed", RECOVERY_SECONDS)
        answered = time.monotonic() - killed_at
        wait_until(
            self._service.is_healthy, f"everything is healthy after {name} was killed", RECOVERY_SECONDS
        )
        pinned = self._story.pin(self._bot)
        return f"answers after {answered:.1f} s, all healthy after {time.monotonic() - killed_at:.1f} s; {pinned}"

    def _is_back(self, name: str, before: Mapping[str, Json]) -> bool:
        """Whether the engine started each of its containers again."""
        return all(
            container["RestartCount"] > before[each]["RestartCount"] and container["State"]["Running"]
            for each, container in self._service.list_containers(name).items()
        )

    def _answers(self) -> bool:
        paths = ("/healthz", *SNAPSHOT_PATHS)
        return all(self._service.get_status(path, "bot") == 200 for path in paths)

    def _kill_during_run(self) -> str:
        release = self._story.launch("v7_fixed", epochs=6, seed=11)
        wait_until(
            lambda: any(run["state"] == "running" for run in self._list_newest_runs()),
            "a run is running",
            RECOVERY_SECONDS,
        )
        for container in self._service.list_containers("cpu-worker").values():
            os.kill(container["State"]["Pid"], signal.SIGKILL)
        state = self._story.wait_for_state(release, "awaiting_approval", "rejected")
        runs = self._list_newest_runs()
        if any(run["state"] != "succeeded" for run in runs):
            raise TrialFailed(f"Runs of release {release}: {[run['state'] for run in runs]}")
        return f"release {release} is {state}; {max(run['attempt'] for run in runs)} attempts at most"

    def _list_newest_runs(self) -> list[Json]:
        """The runs of the release that was launched last."""
        runs: list[Json] = self._service.ask("olivia", "GET", "runs/?ordering=-id")["results"]
        return runs[: len(COINS)]

    def _stop_database(self) -> str:
        for _ in range(10):  # both web processes have it in memory
            self._answers()
        self._service.engine.compose("kill", "postgresql")
        start, refused = time.monotonic(), list[tuple[str, int]]()
        asked = 0
        while time.monotonic() - start < ABSENT_SECONDS:
            for path in SNAPSHOT_PATHS:
                status = self._service.get_status(path, "bot")
                asked += 1
                if status != 200:
                    refused.append((path, status))
        self._start("postgresql")
        if refused:
            raise TrialFailed(f"{len(refused)} of {asked} requests were refused: {refused[:5]}")
        return (
            f"{asked} of {asked} requests for the snapshot answered in {ABSENT_SECONDS} s without a database"
        )

    def _stop_redis(self) -> str:
        self._service.engine.compose("kill", "redis")
        seen = self._story.pin(self._bot)
        self._start("redis")
        return seen

    def _stop_storage(self) -> str:
        """A pin needs no file store. A restore compares the files' bytes, and so waits until it is back."""
        self._service.engine.compose("kill", "storage")
        pinned = self._story.pin_only(self._bot)
        self._start("storage")
        restored = self._story.restore(self._bot)
        return f"the bot is on the fallback after {pinned:.1f} s; restored once the storage is back, {restored:.1f} s"

    def _start(self, name: str) -> None:
        self._service.engine.compose("start", name)
        wait_until(self._service.is_healthy, "everything is healthy", RECOVERY_SECONDS)

    def _restart_engine(self) -> str:
        revision = self._story.get_revision()
        start = time.monotonic()
        self._service.engine.stop()
        self._service.engine.start()
        wait_until(self._answers, "the service answers", RECOVERY_SECONDS)
        answered = time.monotonic() - start
        wait_until(self._service.is_healthy, "everything is healthy", RECOVERY_SECONDS)
        if self._story.get_revision() != revision:
            raise TrialFailed(f"Revision {revision} became {self._story.get_revision()}.")
        return f"answers after {answered:.1f} s, revision {revision} as before; {self._story.pin(self._bot)}"
