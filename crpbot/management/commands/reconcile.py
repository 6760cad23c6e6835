import signal
import threading
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser
from django.db import DatabaseError, InterfaceError, close_old_connections

from audit.database_roles import DatabaseRole, require_least_privilege
from common.errors import DomainError
from crpbot.backup import journal, schedule
from deploy.alarms import detect
from deploy.reconcile import STEPS, reconcile_once


class Command(BaseCommand):
    help = (
        "Send lost messages again, advance releases, and make backups when they are due, every few seconds. Runs until"
        " stopped."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="look once and end")

    def handle(self, *args: Any, **options: Any) -> None:
        require_least_privilege(DatabaseRole.APPLICATION)
        stop = threading.Event()
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, lambda *_: stop.set())
        while not stop.is_set():
            self._look()
            if options["once"]:
                self._carry_out_backup()
                self._say_alarms()
                return
            self._start_backup()
            stop.wait(settings.RECONCILE_EVERY_SECONDS)

    def _start_backup(self) -> None:
        try:
            schedule.start_waiting()
        except (DatabaseError, InterfaceError, OSError) as error:
            self.stderr.write(f"a backup was not started, trying again: {error}")

    def _carry_out_backup(self) -> None:
        """In this process, which would else end before the one that it started."""
        try:
            schedule.carry_out_waiting()
        except DomainError as failure:
            self.stderr.write(failure.message)

    def _say_alarms(self) -> None:
        """Running on, it logs each alarm once, when it begins and when it ends."""
        for alarm in detect.list_alarms():
            self.stdout.write(f"ALARM: {alarm.sentence} {alarm.remedy}")

    def _look(self) -> None:
        close_old_connections()
        try:
            reconcile_once((schedule.look, journal.write, *STEPS))
        except* Exception as errors:  # noqa: BLE001 - a database away for a while must not end the one who repairs
            for error in errors.exceptions:
                notes = " ".join(getattr(error, "__notes__", ()))
                self.stderr.write(f"failed {notes}, trying again: {error}")
