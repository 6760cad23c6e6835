"""The service reports its own problems: each alarm is raised, says what to do, and ends with its cause."""

import errno
import os
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from django.core.cache import cache
from django.db import OperationalError, connection
from django.test import Client
from django.utils import timezone

from accounts.roles import Actor
from audit import triggers
from audit.models import AuditEvent
from deploy import reconcile
from deploy.alarms import clock, detect, reconcile_pass, stored_files
from deploy.alarms.record import record_alarms
from deploy.bots.heartbeat_checks import ReceivedHeartbeat
from deploy.bots.heartbeats import receive_heartbeats
from deploy.models import Alarm, Bot, PointerMove, ReconcilePass, StoredFile
from deploy.reconcile import reconcile_once
from deploy.rules import AlarmName
from deploy.serving import signing
from tests import scenarios
from tests.small_disk import small_disk
from training import artifact_store

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql, pytest.mark.slow]

HOUR = timedelta(hours=1)


def list_alarm_names() -> list[str]:
    cache.clear()
    return [str(alarm.name) for alarm in detect.list_alarms()]


def find_alarm(name: AlarmName) -> Alarm:
    cache.clear()
    (alarm,) = [alarm for alarm in detect.list_alarms() if alarm.name == name]
    return alarm


def list_recorded(name: AlarmName) -> list[str]:
    """The kinds of the recorded events about this alarm."""
    cache.clear()
    record_alarms()
    events = AuditEvent.objects.filter(object_type="alarm", object_name__contains=f"({name})")
    return list(events.order_by("seq").values_list("kind", flat=True))


class TestStoredFiles:
    @pytest.fixture
    def live(self) -> PointerMove:
        move = scenarios.service_in_use()
        stored_files.check_stored_files()
        assert list_alarm_names() == []
        return move

    def test_every_file_of_the_live_release_and_the_fallback_is_hashed(self, live: PointerMove) -> None:
        assert StoredFile.objects.filter(is_intact=True).count() == 18

    def test_a_file_that_changed_is_an_alarm_until_it_is_restored(self, live: PointerMove) -> None:
        assert live.release is not None
        scenarios.damage(live.release)
        stored_files.check_stored_files()
        assert list_alarm_names() == [], "it was read a moment ago"
        StoredFile.objects.update(read_at=timezone.now() - stored_files.READ_AGAIN_AFTER)
        stored_files.check_stored_files()
        assert "SOL model.onnx" in find_alarm(AlarmName.FILES).sentence
        assert "Restore the files" in find_alarm(AlarmName.FILES).remedy
        assert list_recorded(AlarmName.FILES) == ["alarm.raised"]
        scenarios.damage(live.release)  # the same bit once more
        stored_files.check_stored_files()
        assert list_recorded(AlarmName.FILES) == ["alarm.raised", "alarm.cleared"]

    def test_a_pass_reads_a_slice_and_the_next_one_goes_on(
        self, live: PointerMove, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        StoredFile.objects.all().delete()
        monkeypatch.setattr(stored_files, "SLICE_SECONDS", -1.0)
        stored_files.check_stored_files()
        assert StoredFile.objects.count() == 0
        monkeypatch.setattr(stored_files, "SLICE_SECONDS", 60.0)
        stored_files.check_stored_files()
        assert StoredFile.objects.count() == 18

    def test_files_that_cannot_be_read_for_long_are_a_warning(
        self, live: PointerMove, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(sha256: str, size: int) -> bool:
            raise artifact_store.StoreUnavailable("The file store does not answer.")

        monkeypatch.setattr(artifact_store, "is_intact", fail)
        monkeypatch.setattr(stored_files, "UNREAD_AFTER", timedelta(0))
        stored_files.check_stored_files()
        alarm = find_alarm(AlarmName.FILES)
        assert (alarm.is_critical, "could not be read" in alarm.sentence) == (False, True)

    def test_files_of_releases_that_are_no_longer_used_are_forgotten(self, live: PointerMove) -> None:
        StoredFile.objects.create(sha256="f" * 64, is_intact=False, read_at=timezone.now())
        stored_files.check_stored_files()
        assert not StoredFile.objects.filter(sha256="f" * 64).exists()


class TestReconcile:
    @pytest.fixture(autouse=True)
    def _in_use(self, settings: Any) -> None:
        settings.RECONCILE_LATE_SECONDS = 60
        scenarios.service_in_use()

    def fall_silent(self, by: timedelta = HOUR) -> None:
        ReconcilePass.objects.update(completed_at=timezone.now() - by)

    @pytest.mark.parametrize("by", [HOUR, -HOUR], ids=["an hour ago", "an hour ahead"])
    def test_a_pass_of_long_ago_or_of_a_wrong_clock_is_an_alarm(self, by: timedelta) -> None:
        reconcile_pass.record_pass()
        assert list_alarm_names() == []
        self.fall_silent(by)
        assert "manage.py reconcile" in find_alarm(AlarmName.RECONCILE).remedy
        reconcile_pass.record_pass()
        assert list_alarm_names() == []

    def test_no_pass_ever_is_an_alarm_once_the_pointer_is_old(self, settings: Any) -> None:
        assert list_alarm_names() == []
        settings.RECONCILE_LATE_SECONDS = 0
        assert "never" in find_alarm(AlarmName.RECONCILE).sentence

    def test_the_web_process_raises_it_and_reconcile_ends_it(self, client: Client) -> None:
        reconcile_pass.record_pass()
        self.fall_silent()
        assert client.get("/healthz").json() == {"ok": True, "alarms": ["reconcile"]}
        assert Alarm.objects.filter(name=AlarmName.RECONCILE, cleared_at=None).count() == 1
        cache.clear()
        assert client.get("/healthz").json()["alarms"] == ["reconcile"]
        for _ in range(2):  # the first pass finds the silence before it
            cache.clear()
            reconcile_once()
        assert client.get("/healthz").json()["alarms"] == []
        assert list_recorded(AlarmName.RECONCILE) == ["alarm.raised", "alarm.cleared"]

    def test_a_step_that_fails_keeps_no_other_from_its_turn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        reached = []

        def fail() -> None:
            raise RuntimeError("broken")

        steps = [fail, lambda: reached.append("the next step"), record_alarms]
        monkeypatch.setattr(reconcile, "STEPS", steps)
        reconcile_pass.record_pass()
        self.fall_silent()
        with pytest.raises(ExceptionGroup) as raised:
            reconcile_once()
        assert reached == ["the next step"]
        assert raised.value.exceptions[0].__notes__ == ["in the step fail"]
        assert list_recorded(AlarmName.RECONCILE) == ["alarm.raised"], "an incomplete pass ends no silence"


class TestRevisionLog:
    @pytest.fixture(autouse=True)
    def _signed(self) -> None:
        scenarios.service_in_use()
        signing.get_envelope()
        assert list_alarm_names() == []

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
    def test_a_folder_that_cannot_be_written_to_is_an_alarm_until_it_can(
        self, code: int, monkeypatch: pytest.MonkeyPatch, client: Client
    ) -> None:
        def fail(descriptor: int) -> None:
            raise OSError(code, os.strerror(code))

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", fail)
            alarm = find_alarm(AlarmName.REVISION_LOG)
            assert alarm.is_critical
            assert os.strerror(code) in alarm.remedy
            assert list_recorded(AlarmName.REVISION_LOG) == ["alarm.raised"]
            assert client.get("/healthz").json()["alarms"] == ["revision_log"]
        assert list_recorded(AlarmName.REVISION_LOG) == ["alarm.raised", "alarm.cleared"]

    def test_a_folder_that_is_gone_is_an_alarm(self, settings: Any) -> None:
        settings.SIGNING_KEYS_DIR = settings.SIGNING_KEYS_DIR / "gone"
        assert AlarmName.SIGNING in list_alarm_names()
        assert signing.find_log_problem() is not None

    def test_a_trial_leaves_nothing_behind(self, settings: Any) -> None:
        before = sorted(os.listdir(settings.SIGNING_KEYS_DIR))  # noqa: PTH208 - names are enough
        assert signing.find_log_problem() is None
        assert sorted(os.listdir(settings.SIGNING_KEYS_DIR)) == before  # noqa: PTH208

    def test_a_file_system_without_room_is_an_alarm_until_there_is_some(
        self, settings: Any, tmp_path: Path
    ) -> None:
        with small_disk(tmp_path / "keys", megabytes=1) as disk:
            for file in settings.SIGNING_KEYS_DIR.iterdir():
                shutil.copy2(file, disk.folder)
            settings.SIGNING_KEYS_DIR = disk.folder
            assert list_alarm_names() == []
            disk.fill()
            assert os.strerror(errno.ENOSPC) in find_alarm(AlarmName.REVISION_LOG).remedy
            disk.make_room()
            assert list_alarm_names() == []

    def test_a_disk_that_is_really_full_is_noticed(
        self, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """/dev/full answers every write as a full disk does."""
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda **options: open("/dev/full", "wb"))  # noqa: PTH123, SIM115
        assert "No space left" in (signing.find_log_problem() or "")


class TestClock:
    @pytest.fixture(autouse=True)
    def _in_use(self) -> None:
        scenarios.service_in_use()
        assert list_alarm_names() == []

    def shift(self, monkeypatch: pytest.MonkeyPatch, by: timedelta) -> None:
        now = timezone.now
        monkeypatch.setattr(timezone, "now", lambda: now() + by)

    @pytest.mark.parametrize(("by", "said"), [(HOUR, "minutes forward"), (-HOUR, "minutes back")])
    def test_a_jump_is_an_alarm_for_ten_minutes(
        self, by: timedelta, said: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patched:
            self.shift(patched, by)
            alarm = find_alarm(AlarmName.CLOCK)
            assert f"it jumped {said}" in alarm.sentence
            assert "timedatectl" in alarm.remedy
            if connection.vendor == "postgresql":
                side = "ahead of" if by > timedelta(0) else "behind"
                assert f"it is minutes {side} the database's" in alarm.sentence
        assert "jumped" in find_alarm(AlarmName.CLOCK).sentence, "it jumped once more"
        assert list_recorded(AlarmName.CLOCK) == ["alarm.raised"]
        uptime = clock._read_uptime() + clock.JUMP_SHOWN_SECONDS
        monkeypatch.setattr(clock, "_read_uptime", lambda: uptime)
        self.shift(monkeypatch, timedelta(seconds=clock.JUMP_SHOWN_SECONDS))
        monkeypatch.setattr(clock, "_compare_with_database", lambda: None)
        monkeypatch.setattr(clock, "_compare_with_redis", lambda: None)
        assert list_recorded(AlarmName.CLOCK) == ["alarm.raised", "alarm.cleared"]

    def test_slow_corrections_are_no_jump(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(clock, "_compare_with_database", lambda: None)
        monkeypatch.setattr(clock, "_compare_with_redis", lambda: None)
        for _ in range(5):
            self.shift(monkeypatch, timedelta(seconds=20))
            assert list_alarm_names() == []

    @pytest.mark.parametrize("by", [HOUR, -HOUR])
    def test_a_clock_that_most_owners_bots_contradict_is_an_alarm(self, by: timedelta) -> None:
        move = PointerMove.objects.get()

        def report(owner: str, instance: str, error: timedelta) -> None:
            heartbeat = scenarios.heartbeat(move, instance)
            sent = {**heartbeat.__dict__, "sent_at": timezone.now() + error}
            actor = Actor(owner, frozenset(), is_bot=True)
            receive_heartbeats([ReceivedHeartbeat(actor, type(heartbeat)(**sent))])

        report("one", "a", by)
        for number in range(4):
            report("two", str(number), timedelta(0))
        report("three", "a", timedelta(0))
        assert list_alarm_names() == [], "one owner, and no majority"
        report("three", "a", by)
        side = "behind" if by > timedelta(0) else "ahead of"
        assert f"it is minutes {side} the clocks of most bots" in find_alarm(AlarmName.CLOCK).sentence
        report("three", "a", timedelta(0))
        assert list_alarm_names() == []
        assert Bot.objects.get(name="one").clock_error_seconds == by.total_seconds()

    @pytest.mark.processes
    def test_a_clock_that_redis_contradicts_is_an_alarm(
        self, broker: redis.Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert list_alarm_names() == []
        with monkeypatch.context() as patched:
            patched.setattr(clock, "_compare_with_database", lambda: None)
            patched.setattr(clock._jumps, "find_jump", lambda: None)
            self.shift(patched, HOUR)
            assert "it is minutes ahead of Redis's" in find_alarm(AlarmName.CLOCK).sentence
        assert list_alarm_names() == []


class TestGuards:
    TABLE = "deploy_pointermove"
    NAME = "deploy_pointermove_no_update"

    @pytest.fixture(autouse=True)
    def _in_use(self) -> Any:
        scenarios.service_in_use()
        assert list_alarm_names() == []
        yield
        triggers.install()
        assert list_alarm_names() == []

    def execute(self, *statements: str) -> None:
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                cursor.execute(
                    "SET CONSTRAINTS ALL IMMEDIATE"
                )  # no table is altered while checks of its rows wait
            for statement in statements:
                cursor.execute(statement)

    @pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite's triggers have no functions")
    @pytest.mark.parametrize(
        "statements",
        [
            [
                f"CREATE OR REPLACE FUNCTION {NAME}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"
            ],
            [f"ALTER TABLE {TABLE} DISABLE TRIGGER {NAME}"],
            [f"ALTER TABLE {TABLE} ENABLE REPLICA TRIGGER {NAME}"],
            [
                f"DROP TRIGGER {NAME} ON {TABLE}",
                f"CREATE TRIGGER {NAME} BEFORE UPDATE ON {TABLE} FOR EACH ROW WHEN (false) EXECUTE FUNCTION {NAME}()",
            ],
            [
                f"DROP TRIGGER {NAME} ON {TABLE}",
                f"CREATE TRIGGER {NAME} BEFORE UPDATE OF revision ON {TABLE} FOR EACH ROW EXECUTE FUNCTION {NAME}()",
            ],
            [
                f"DROP TRIGGER {NAME} ON {TABLE}",
                f"CREATE TRIGGER {NAME} AFTER INSERT ON {TABLE} FOR EACH ROW EXECUTE FUNCTION {NAME}()",
            ],
            [
                f"DROP TRIGGER {NAME} ON {TABLE}",
                f"CREATE TRIGGER {NAME} BEFORE UPDATE ON deploy_alarm FOR EACH ROW EXECUTE FUNCTION {NAME}()",
            ],
        ],
        ids=[
            "its function",
            "disabled",
            "for replicas only",
            "a condition",
            "one column",
            "another event",
            "another table",
        ],
    )
    def test_a_guard_that_was_altered_in_postgresql_is_an_alarm(self, statements: list[str]) -> None:
        self.execute(*statements)
        assert self.NAME in find_alarm(AlarmName.GUARDS).sentence
        assert "manage.py migrate" in find_alarm(AlarmName.GUARDS).remedy
        self.execute(f"DROP TRIGGER IF EXISTS {self.NAME} ON deploy_alarm")

    @pytest.mark.skipif("connection.vendor != 'sqlite'", reason="of SQLite")
    def test_a_guard_that_was_altered_in_sqlite_is_an_alarm(self) -> None:
        body = f"CREATE TRIGGER {self.NAME} BEFORE UPDATE ON {self.TABLE} WHEN 0 BEGIN SELECT 1; END"
        self.execute(f"DROP TRIGGER {self.NAME}", body)
        assert self.NAME in find_alarm(AlarmName.GUARDS).sentence


def test_the_health_check_still_answers_when_the_database_does_not(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OperationalError("the database went away")

    monkeypatch.setattr(reconcile_pass, "find_problem", fail)
    assert client.get("/healthz").status_code == 503
