"""The loss of everything, and the way back from a backup, as docs/operations/backup.md has it."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from tests.compose.bot import Bot
from tests.compose.engine import Engine
from tests.compose.errors import TrialFailed
from tests.compose.report import Report
from tests.compose.service import Json, Service, wait_until
from tests.compose.story import Story

USER = 10_001
KEYS, JOURNAL = "/var/lib/crpbot/keys", "/var/lib/crpbot/backups/journal"
LOST = ("postgresql", "storage", "signing-keys")
"""The volumes. Backups stay, and the proxy keeps its own authority, as a real name would get a new certificate."""
SCHEDULE: Mapping[str, str] = {"CRPBOT_BACKUP_HOURS": "0.1", "CRPBOT_BACKUP_DRILL_DAYS": "0.0043"}
"""Both about every six minutes, and a drill after its backup."""
SCHEDULE_SECONDS = 900
GATE = "the gate"
"""Who asks for what is due."""
CLOSED = "vera"
JOURNAL_SECONDS = 30
HEALTHY_SECONDS = 300
FOLLOW_SECONDS = 60


class Recovery:
    """Each method is a step of the report. The bots run on all the time, and are never neutral."""

    def __init__(self, engine: Engine, service: Service, story: Story, bots: list[Bot], folder: Path) -> None:
        self._engine, self._service, self._story, self._bots = engine, service, story, bots
        self._keys, self._made = folder / "keys", ""

    def wait_for_schedule(self) -> str:
        """Until reconcile, asked by nobody, has a backup with a live release in its volume, and has drilled it."""
        found: tuple[Json, Json] | None = None

        def is_there() -> bool:
            nonlocal found
            found = self._find_scheduled()
            return found is not None

        waited = wait_until(is_there, "a scheduled backup was made and drilled", SCHEDULE_SECONDS)
        assert found is not None
        backup, drilled = found
        return (
            f"{backup['rows']:,} rows and {backup['files']} files at revision {backup['revision']};"
            f" its drill restored releases {', '.join(map(str, drilled['result']['releases']))}; waited for {waited:.0f} s"
        )

    def _find_scheduled(self) -> tuple[Json, Json] | None:
        listed = self._manage("backup", "list", is_new=False)
        if failed := [task for task in listed["tasks"] if task["state"] == "failed"]:
            raise TrialFailed(f"A scheduled task failed: {failed[0]}")
        done = [task for task in listed["tasks"] if task["state"] == "done" and task["requested_by"] == GATE]
        in_volume = {backup["name"]: backup for backup in listed["backups"]}
        made = {task["backup"] for task in done if task["kind"] == "backup"}
        for task in done:
            backup = in_volume.get(task["backup"])
            if task["kind"] == "drill" and task["backup"] in made and backup and backup["revision"]:
                return backup, task
        return None

    def run(self, report: Report) -> None:
        with report.step(
            "`manage.py backup create` and `backup drill`, in the volume of the scheduled ones"
        ) as note:
            note(self._back_up())
        with report.step(
            "after the backup, an account closed, a pin and a restore: only the journal has them"
        ) as note:
            self._service.manage("people", "--close", CLOSED, token=self._service.tokens["ada"])
            note(self._story.pin(self._bots[0]))
            note(self._wait_for_journal())
        with report.step(
            "the signing keys copied; containers and volumes of database, files and keys destroyed"
        ):
            self._destroy()
        with report.step("restored into empty volumes, and everything started") as note:
            note(self._restore())
        with report.step("the revision advanced; bots follow again") as note:
            note(self._advance())

    def _back_up(self) -> str:
        made = self._manage("backup", "create")["created"]
        self._made = made["name"]
        drilled = self._manage("backup", "drill")["drilled"]
        if made["lost"] or drilled["name"] != self._made or drilled["revision"] != made["revision"]:
            raise TrialFailed(f"The backup is {made}, and the drill found {drilled}.")
        size = f"{made['rows']:,} rows and {made['files']} files, {made['size'] / 1e6:.1f} MB"
        return f"{size}, at revision {made['revision']}; the drill restored it"

    def _wait_for_journal(self) -> str:
        moved = self._service.ask("olivia", "GET", "audit/?kind=pointer.*")["results"][0]["seq"]

        def has_all() -> bool:
            names = self._engine.compose("exec", "-T", "reconcile", "ls", JOURNAL).split()
            return max(int(Path(name).stem.rpartition("-")[2]) for name in names) >= moved

        waited = wait_until(has_all, f"the journal has event {moved}", JOURNAL_SECONDS)
        return f"the journal has them after {waited:.1f} s more"

    def _destroy(self) -> None:
        # Now, and not with the backup: an older copy of signed.json would let a revision be signed that bots refuse.
        self._keys.mkdir(parents=True)
        os.chown(self._keys, USER, USER)
        self._copy_keys(f"cp -a {KEYS}/. /copy/")
        self._engine.compose("down", "--timeout", "20")
        project = "crpbot-gate"
        self._engine.docker("volume", "rm", *(f"{project}_{name}" for name in LOST))

    def _restore(self) -> str:
        self._engine.compose("up", "--detach", "--no-build", "postgresql", "redis", "storage")
        wait_until(
            lambda: self._service.is_healthy("postgresql", "redis", "storage"),
            "they are healthy",
            HEALTHY_SECONDS,
        )
        self._engine.compose("run", "--rm", "-T", "migrate")
        self._copy_keys(f"cp -a /copy/. {KEYS}/")
        owner = self._engine.environment["CRPBOT_POSTGRES_OWNER_PASSWORD"]
        url = f"postgres://crpbot_owner:{owner}@postgresql:5432/crpbot"
        restored = self._manage("backup", "restore", CRPBOT_DATABASE_URL=url)["restored"]
        self._engine.compose("up", "--detach", "--no-build")
        wait_until(self._service.is_healthy, "everything is healthy", HEALTHY_SECONDS)
        self._missing = int(restored["missing_revisions"])
        if restored["backup"]["name"] != self._made:
            raise TrialFailed(f"{restored['backup']['name']} was restored, and {self._made} made last.")
        if not any(f"account {CLOSED} closed" in said for said in restored["carried_over"]):
            raise TrialFailed(f"The account of {CLOSED} was closed, and this carried over: {restored}")
        return (
            f"{restored['files_copied']} files copied; carried over: {'; '.join(restored['carried_over'])};"
            f" {len(restored['accounts'])} accounts and {len(restored['tokens'])} tokens listed;"
            f" the revision is {self._missing} too low"
        )

    def _advance(self) -> str:
        if self._missing != 3:  # the two moves after the backup, and one beyond what bots have seen
            raise TrialFailed(f"The restore says that {self._missing} revisions are missing.")
        self._service.manage(
            "advance_revision",
            "--by",
            str(self._missing),
            "--reason",
            "the trial destroyed the database",
            token=self._service.tokens["anna"],
        )
        self._service.manage("verify_audit")
        pinned = self._story.pin(self._bots[0])
        for bot in self._bots:
            bot.wait_for(self._story.candidate, FOLLOW_SECONDS)
        return f"revision {self._story.get_revision()}; {pinned}"

    def _manage(self, *words: str, is_new: bool = True, **environment: str) -> Json:
        """The answer of a command where the backups are: in a container of its own, or in that of reconcile."""
        options = [word for name, value in environment.items() for word in ("-e", f"{name}={value}")]
        place = ["run", "--rm", "-T"] if is_new else ["exec", "-T"]
        command = [*place, *options, "reconcile", "python", "manage.py", *words, "--json"]
        answer: Json = json.loads(self._engine.compose(*command))
        return answer

    def _copy_keys(self, command: str) -> None:
        mount = f"{self._keys}:/copy"
        self._engine.compose("run", "--rm", "-T", "--no-deps", "--volume", mount, "web", "sh", "-c", command)
