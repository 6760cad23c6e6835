"""The loss of everything, and the way back from a backup, as docs/operations/backup.md has it."""

import json
import os
from pathlib import Path

from tests.compose.bot import Bot
from tests.compose.engine import Engine
from tests.compose.errors import TrialFailed
from tests.compose.report import Report
from tests.compose.service import Json, Service, wait_until
from tests.compose.story import Story

USER = 10_001
BACKUPS, KEYS = "/var/lib/crpbot/backups", "/var/lib/crpbot/keys"
LOST = ("postgresql", "storage", "signing-keys")
"""The volumes; the proxy keeps its own authority, as a site of a real name would be given a new certificate."""
HEALTHY_SECONDS = 300
FOLLOW_SECONDS = 60


class Recovery:
    """Each method is a step of the report. The bots run on all the time, and are never neutral."""

    def __init__(self, engine: Engine, service: Service, story: Story, bots: list[Bot], folder: Path) -> None:
        self._engine, self._service, self._story, self._bots = engine, service, story, bots
        self._backups, self._keys = folder / "backups", folder / "keys"

    def run(self, report: Report) -> None:
        with report.step("`manage.py backup create` into a folder of this machine") as note:
            note(self._back_up())
        with report.step("after the backup, a pin and a restore, which it does not hold") as note:
            note(self._story.pin(self._bots[0]))
        with report.step(
            "the signing keys copied; containers and volumes of database, files and keys destroyed"
        ):
            self._destroy()
        with report.step("restored into empty volumes, and everything started") as note:
            note(self._restore())
        with report.step("the revision advanced; bots follow again") as note:
            note(self._advance())

    def _back_up(self) -> str:
        for folder in (self._backups, self._keys):
            folder.mkdir(parents=True)
            os.chown(folder, USER, USER)
        made = self._manage(["backup", "create"], self._backups, BACKUPS)["created"]
        size = f"{made['rows']:,} rows and {made['files']} files, {made['size'] / 1e6:.1f} MB"
        return f"{size}, at revision {made['revision']}"

    def _destroy(self) -> None:
        # Now, and not with the backup: an older copy of signed.json would let a revision be signed that bots refuse.
        self._run("web", ["sh", "-c", f"cp -a {KEYS}/. /copy/"], f"{self._keys}:/copy")
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
        self._engine.compose("run", "--rm", "-T", "storage-ready")
        self._run("web", ["sh", "-c", f"cp -a /copy/. {KEYS}/"], f"{self._keys}:/copy:ro")
        owner = self._engine.environment["CRPBOT_POSTGRES_OWNER_PASSWORD"]
        url = f"postgres://crpbot_owner:{owner}@postgresql:5432/crpbot"
        restored = self._manage(["backup", "restore"], self._backups, BACKUPS, CRPBOT_DATABASE_URL=url)[
            "restored"
        ]
        self._engine.compose("up", "--detach", "--no-build")
        wait_until(self._service.is_healthy, "everything is healthy", HEALTHY_SECONDS)
        self._missing = int(restored["missing_revisions"])
        return (
            f"{restored['files_copied']} files copied, {len(restored['accounts'])} accounts and"
            f" {len(restored['tokens'])} tokens listed; the revision is {self._missing} too low"
        )

    def _advance(self) -> str:
        if self._missing != 2:  # the two moves after the backup
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

    def _manage(self, words: list[str], folder: Path, place: str, **environment: str) -> Json:
        """The answer of a command in a container of its own that has this folder."""
        said = self._run("web", ["python", "manage.py", *words, "--json"], f"{folder}:{place}", **environment)
        answer: Json = json.loads(said)
        return answer

    def _run(self, service: str, command: list[str], mount: str, **environment: str) -> str:
        options = [word for name, value in environment.items() for word in ("-e", f"{name}={value}")]
        words = ["run", "--rm", "-T", "--no-deps", "--volume", mount, *options, service, *command]
        return self._engine.compose(*words)
