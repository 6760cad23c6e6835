"""Backups and drills that reconcile makes when they are due, or that an administrator asks for; what stays of them."""

import json
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from django.utils import timezone

from accounts.roles import Actor, Role
from audit import services as audit
from audit import triggers
from audit.models import AuditEvent
from common.errors import Conflict, NotAllowed, Unavailable
from crpbot.backup import create, retention, schedule, store
from crpbot.backup.retention import choose_kept
from deploy.alarms import backups
from deploy.alarms.detect import list_alarms
from deploy.metrics import read_database
from deploy.models import BackupJournal, BackupTask, PointerMove
from deploy.rules import BackupKind, BackupState
from tests import factories
from tests.api.callers import assert_problem, with_token
from tests.processes import start, wait_until

ADMINISTRATOR = Actor("ada", frozenset({Role.ADMINISTRATOR}))
DAYS = [
    datetime(2026, 1, 1, hour, tzinfo=UTC) + timedelta(days=day) for day in range(120) for hour in (3, 15)
]
NAMES = [f"{at:%Y%m%dT%H%M%SZ}-{number}" for number, at in enumerate(DAYS)]


@pytest.fixture
def waiting(db: None) -> BackupTask:
    return schedule.request(BackupKind.BACKUP, actor=ADMINISTRATOR, reason="before the upgrade")


class TestWhatStays:
    def test_the_newest_of_each_day_week_and_month(self) -> None:
        kept = choose_kept(NAMES, [3, 2, 3])
        assert [name[:11] for name in kept] == [
            "20260228T15",
            "20260331T15",
            "20260426T15",
            "20260428T15",
            "20260429T15",
            "20260430T15",
        ]

    @pytest.mark.parametrize("keep", [[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 1]])
    def test_the_newest_always(self, keep: list[int]) -> None:
        assert choose_kept(NAMES, keep) == NAMES[-1:]
        assert choose_kept([], keep) == []

    def test_all_where_nothing_is_said(self) -> None:
        assert choose_kept(NAMES, []) == NAMES

    def test_more_days_than_there_are_backups(self) -> None:
        assert choose_kept(NAMES[:4], [9, 9, 9]) == [NAMES[1], NAMES[3]]

    def test_the_name_has_the_time(self) -> None:
        assert store.get_time(NAMES[1]) == DAYS[1]


class TestAsking:
    @pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR, Role.APPROVER])
    def test_takes_an_administrator(self, db: None, role: Role) -> None:
        with pytest.raises(NotAllowed, match="administrator role"):
            schedule.request(BackupKind.BACKUP, actor=Actor("olivia", frozenset({role})), reason="now")
        assert AuditEvent.objects.latest("seq").kind == "backup.request.refused"
        assert not BackupTask.objects.exists()

    def test_there_is_one_at_a_time(self, waiting: BackupTask) -> None:
        with pytest.raises(Conflict, match=f"Backup {waiting.pk} is waiting"):
            schedule.request(BackupKind.DRILL, actor=ADMINISTRATOR, reason="now")
        assert BackupTask.objects.count() == 1
        assert AuditEvent.objects.get(kind="backuptask.requested").reason == "before the upgrade"

    def test_the_command_asks_as_somebody(self, db: None) -> None:
        err = StringIO()
        with pytest.raises(SystemExit):
            call_command("backup", "request", reason="now", stderr=err)
        assert "needs an actor" in err.getvalue()
        assert not BackupTask.objects.exists()

    def test_one_in_a_shell_names_the_one_under_way(self, waiting: BackupTask) -> None:
        err = StringIO()
        with pytest.raises(SystemExit):
            call_command("backup", "create", wait=0, stderr=err)
        assert f"Backup {waiting.pk} is waiting since {waiting.requested_at:%H:%M:%S}Z" in err.getvalue()
        assert "asked for by ada" in err.getvalue()

    def test_one_in_a_shell_waits_for_the_one_under_way(
        self, waiting: BackupTask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse() -> None:
            running.append(BackupTask.objects.get(state=BackupState.RUNNING).pk)
            raise Conflict("this test makes none")

        def let_reconcile_carry_it_out(seconds: float) -> None:
            with pytest.raises(Conflict, match="makes none"):
                schedule.carry_out_waiting()

        running: list[int] = []
        monkeypatch.setattr(create, "create_backup", refuse)
        monkeypatch.setattr(time, "sleep", let_reconcile_carry_it_out)
        with pytest.raises(Conflict, match="makes none"):
            schedule.run_now(BackupKind.BACKUP, requested_by="the tests", wait_seconds=60)
        own = BackupTask.objects.latest("pk")
        assert running == [waiting.pk, own.pk]
        assert (own.state, own.requested_by) == (BackupState.FAILED, "the tests")


class TestADatabaseOfANewerVersion:
    @pytest.fixture
    def newer(self, service: PointerMove) -> Iterator[None]:
        applied = MigrationRecorder.Migration.objects.create(app="deploy", name="0002_added")
        yield
        applied.delete()  # its table is not among those that a test leaves empty

    @pytest.mark.usefixtures("newer")
    def test_is_not_backed_up_without_what_that_version_added(self, settings: Any) -> None:
        settings.BACKUP_HOURS = 1
        schedule.look()
        assert not BackupTask.objects.exists()
        with pytest.raises(Conflict, match=r"newer version \(deploy.0002_added\)"):
            schedule.run_now(BackupKind.BACKUP, requested_by="the tests")
        assert store.list_names() == []

    def test_a_package_may_have_removed_migrations_that_were_applied(self, db: None) -> None:
        MigrationRecorder.Migration.objects.create(app="axes", name="0099_gone")
        assert store.list_newer_migrations() == []


class TestThePageAndTheApi:
    def test_an_administrator_asks_on_the_page(self, client: Client, db: None) -> None:
        factories.person("victor", "viewer")
        client.force_login(factories.person("ada", "administrator"))
        assert "Back up now" in client.get("/backups/").content.decode()
        assert client.post("/backups/", {"kind": "drill", "reason": ""}).status_code == 400
        assert client.post("/backups/", {"kind": "nothing", "reason": "now"}).status_code == 400
        answer = client.post("/backups/", {"kind": "drill", "reason": "after the move"})
        assert answer.headers["Location"] == "/backups/"
        task = BackupTask.objects.get()
        assert (task.kind, task.state, task.requested_by) == ("drill", "waiting", "ada")
        again = client.post("/backups/", {"kind": "backup", "reason": "now"})
        assert again.status_code == 409
        assert "there is one at a time" in again.content.decode()

    def test_others_see_the_list_and_no_form(self, client: Client, waiting: BackupTask) -> None:
        client.force_login(factories.person("anna", "approver"))
        page = client.get("/backups/").content.decode()
        assert f"backup {waiting.pk}" in page
        assert "Back up now" not in page
        assert client.post("/backups/", {"kind": "backup", "reason": "now"}).status_code == 403

    def test_an_administrator_asks_over_the_api(self, db: None) -> None:
        ada = with_token(factories.person("ada", "administrator"), "administrator")
        answer = ada.post("backups/", {"kind": "backup", "reason": "before the upgrade"})
        assert answer.status_code == 201
        assert answer.json()["state"] == "waiting"
        assert_problem(ada.post("backups/", {"kind": "backup", "reason": "again"}), 409, "one at a time")
        assert_problem(ada.post("backups/", {"kind": "prune", "reason": "again"}), 400)

    def test_a_second_factor_is_asked_for_as_for_any_decision(self, db: None, settings: Any) -> None:
        settings.REQUIRE_SECOND_FACTOR = True
        ada = with_token(factories.person("ada", "administrator"), "administrator")
        assert_problem(ada.post("backups/", {"kind": "backup", "reason": "now"}), 403, "second factor")
        assert not BackupTask.objects.exists()


class TestWhatIsDue:
    @pytest.fixture(autouse=True)
    def every_day(self, settings: Any, db: None) -> None:
        settings.BACKUP_HOURS, settings.BACKUP_DRILL_DAYS = 24, 7
        audit.record("note", BackupTask(), actor="the tests")  # without an event there is nothing to save
        triggers.drop()  # the tests take rows away, which the guards keep

    def end(self, kind: str, ago: timedelta, state: str = "done", **columns: Any) -> BackupTask:
        at = timezone.now() - ago
        return BackupTask.objects.create(
            kind=kind, state=state, slot=None, started_at=at, ended_at=at, requested_by="the tests", **columns
        )

    def look(self) -> list[str]:
        BackupTask.objects.filter(slot=1).delete()
        schedule.look()
        return list(BackupTask.objects.filter(slot=1).values_list("kind", flat=True))

    def test_the_first_backup_at_once_and_no_drill_of_none(self) -> None:
        assert self.look() == ["backup"]

    def test_a_backup_after_its_hours_and_a_drill_after_its_days(self) -> None:
        self.end("backup", timedelta(hours=23))
        assert self.look() == ["drill"]
        self.end("drill", timedelta(days=6))
        assert self.look() == []
        BackupTask.objects.filter(kind="drill").delete()
        self.end("drill", timedelta(days=7, minutes=1))
        assert self.look() == ["drill"]
        BackupTask.objects.filter(kind="backup").delete()
        self.end("backup", timedelta(hours=24, minutes=1))
        assert self.look() == ["backup"]

    def test_nothing_while_one_is_under_way(self) -> None:
        schedule.look()
        schedule.look()
        assert BackupTask.objects.count() == 1

    def test_a_failed_one_again_after_an_hour(self) -> None:
        self.end("backup", timedelta(minutes=59), "failed")
        assert self.look() == []
        BackupTask.objects.all().delete()
        self.end("backup", timedelta(minutes=61), "failed")
        assert self.look() == ["backup"]

    def test_no_drill_of_what_the_service_cannot_decrypt(self) -> None:
        self.end("backup", timedelta(hours=1), result={"is_encrypted": True})
        assert self.look() == []

    def test_never_where_nobody_asked_for_a_schedule(self, settings: Any) -> None:
        settings.BACKUP_HOURS = settings.BACKUP_DRILL_DAYS = 0
        assert self.look() == []

    def test_a_silent_process_has_failed(self) -> None:
        schedule.look()
        task = BackupTask.objects.get()
        assert schedule._claim(task)
        schedule.look()
        task.refresh_from_db()
        assert task.state == BackupState.RUNNING
        BackupTask.objects.update(heard_at=timezone.now() - timedelta(seconds=61))
        schedule.look()
        task.refresh_from_db()
        assert (task.state, task.slot) == (BackupState.FAILED, None)
        assert "ended without a word" in task.reason
        assert AuditEvent.objects.latest("seq").kind == "backuptask.failed"

    def test_alarms_and_metrics_say_how_old_they_are(self, settings: Any) -> None:
        settings.BACKUP_LATE_SECONDS = 48 * 3600
        assert self.read_alarms() == []
        assert self.read_metrics() == {}
        self.end("backup", timedelta(hours=49))
        self.end("backup", timedelta(minutes=1), "failed")
        (newest,) = self.read_alarms()
        assert newest.startswith("The newest backup is of 20")
        self.end("backup", timedelta(days=8, minutes=1))
        BackupTask.objects.filter(kind="backup", state="done").order_by("pk")[0].delete()
        self.end("backup", timedelta(hours=1))
        assert self.read_alarms() == ["No backup was ever drilled."]
        drilled = self.end("drill", timedelta(hours=1))
        assert self.read_alarms() == []
        assert self.read_metrics()["crpbot_backup_drill_passed"] == 1
        assert self.read_metrics()["crpbot_backup_drilled_timestamp_seconds"] == drilled.ended_at.timestamp()  # type: ignore[union-attr]
        self.end("drill", timedelta(minutes=1), "failed", reason="the disk is full")
        assert self.read_alarms() == ["The last drill failed: the disk is full"]
        assert self.read_metrics()["crpbot_backup_drill_passed"] == 0
        self.end("drill", timedelta(0))
        assert self.read_alarms() == []
        BackupTask.objects.filter(kind="drill").delete()
        self.end("drill", timedelta(days=8, minutes=1))
        (late,) = self.read_alarms()
        assert late.startswith("The last drill was on 20")

    def test_a_journal_that_cannot_be_written_is_an_alarm_after_ten_minutes(self) -> None:
        self.end("backup", timedelta(hours=1))
        self.end("drill", timedelta(hours=1))
        row = BackupJournal.objects.create(
            problem="away", failing_since=timezone.now() - timedelta(minutes=9)
        )
        assert self.read_alarms() == []
        row.failing_since = timezone.now() - timedelta(minutes=11)
        row.save()
        (sentence,) = self.read_alarms()
        assert sentence.startswith("The journal beside the backups cannot be written since 20")

    def read_alarms(self) -> list[str]:
        return [problem for problem in backups.find_problems() if problem]

    def read_metrics(self) -> dict[str, float]:
        samples = [sample for metric in read_database() for sample in metric.samples]
        return {sample.name: sample.value for sample in samples if sample.name.startswith("crpbot_backup")}


@pytest.mark.postgresql
@pytest.mark.slow
class TestCarryingOut:
    def test_what_waits_is_carried_out_and_old_ones_are_removed(
        self, service: PointerMove, settings: Any
    ) -> None:
        settings.BACKUP_KEEP = [1, 0, 0]
        schedule.request(BackupKind.BACKUP, actor=ADMINISTRATOR, reason="before the upgrade")
        done = schedule.carry_out_waiting()
        assert done is not None
        assert (done.state, done.reason, done.slot) == ("done", "before the upgrade", None)
        assert done.backup == store.read_manifest().name
        assert done.result["files"] > 0
        assert schedule.carry_out_waiting() is None
        again = schedule.run_now(BackupKind.BACKUP, requested_by="the tests")
        assert again.result["removed"] == [done.backup] or again.backup == done.backup
        assert [task.state for task in BackupTask.objects.all()] == ["done", "done"]
        assert [alarm for alarm in list_alarms() if alarm.name == "backup"] == []

    def test_a_failure_is_recorded_with_its_reason(
        self, service: PointerMove, settings: Any, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("no folder")
        nowhere = {**settings.STORAGES["backups"], "OPTIONS": {"location": tmp_path / "file"}}
        settings.STORAGES = {**settings.STORAGES, "backups": nowhere}
        with pytest.raises(Unavailable):
            schedule.run_now(BackupKind.BACKUP, requested_by="the tests")
        failed = BackupTask.objects.get()
        assert (failed.state, failed.slot) == ("failed", None)
        assert "The store of backups does not answer" in failed.reason
        err = StringIO()
        with pytest.raises(SystemExit):
            call_command("backup", "create", stderr=err)
        assert "The store of backups does not answer" in err.getvalue()

    def test_backups_that_nobody_may_delete_are_no_failure(
        self, service: PointerMove, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*args: object) -> None:
            raise Unavailable("the bucket is locked")

        monkeypatch.setattr(retention, "prune", refuse)
        done = schedule.run_now(BackupKind.BACKUP, requested_by="the tests")
        assert (done.state, done.result["not_removed"]) == ("done", "the bucket is locked")

    def test_of_two_processes_one_carries_it_out(
        self, service: PointerMove, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made: list[int] = []

        def fail() -> None:
            made.append(1)
            raise Conflict("this test makes none")

        monkeypatch.setattr(create, "create_backup", fail)
        schedule.request(BackupKind.BACKUP, actor=ADMINISTRATOR, reason="once")

        def carry_out() -> None:
            try:
                schedule.carry_out_waiting()
            except Conflict:
                pass
            finally:
                connection.close()

        threads = [threading.Thread(target=carry_out) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert made == [1]

    @pytest.mark.processes
    @pytest.mark.long
    def test_reconcile_makes_and_drills_them_by_itself(
        self, service: PointerMove, settings: Any, tmp_path: Path
    ) -> None:
        """In processes of their own, which find this test's backups through the environment."""
        shutil.copytree(tmp_path / "files", settings.STATE_DIR / "files", dirs_exist_ok=True)
        more = {
            "CRPBOT_BACKUP_DIR": str(settings.BACKUP_DIR),
            "CRPBOT_BACKUP_HOURS": "1",
            "CRPBOT_BACKUP_DRILL_DAYS": "1",
        }
        process = start(sys.executable, "manage.py", "reconcile", log=tmp_path / "log", **more)
        ended = BackupTask.objects.exclude(ended_at=None)
        try:
            wait_until(lambda: ended.count() == 2, what="a backup and a drill", seconds=240)
        finally:
            process.stop()
        states = {task.kind: task.state for task in BackupTask.objects.all()}
        assert states["backup"] == "done", process.output
        assert store.list_names() == [BackupTask.objects.get(kind="backup").backup]
        assert states["drill"] == "done", BackupTask.objects.get(kind="drill").reason

    def test_reconcile_once_carries_out_what_waits(self, service: PointerMove) -> None:
        schedule.request(BackupKind.BACKUP, actor=ADMINISTRATOR, reason="now")
        call_command("reconcile", "--once", stdout=StringIO(), stderr=StringIO())
        assert BackupTask.objects.get().state == "done"
        out = StringIO()
        call_command("backup", "list", "--json", stdout=out)
        listed = json.loads(out.getvalue())
        assert [task["backup"] for task in listed["tasks"]] == [
            backup["name"] for backup in listed["backups"]
        ]
