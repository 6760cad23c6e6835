import signal
import threading
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser
from django.db import close_old_connections

from audit.database_roles import DatabaseRole, require_least_privilege
from deploy.alarms import detect
from deploy.reconcile import reconcile_once


class Command(BaseCommand):
    help = "Send lost messages again and advance releases, every few seconds. Runs until stopped."

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
                self._say_alarms()
                return
            stop.wait(settings.RECONCILE_EVERY_SECONDS)

    def _say_alarms(self) -> None:
        """Running on, it logs each alarm once, when it begins and when it ends."""
        for alarm in detect.list_alarms():
            self.stdout.write(f"ALARM: {alarm.sentence} {alarm.remedy}")

    def _look(self) -> None:
        close_old_connections()
        try:
            reconcile_once()
        except* Exception as errors:  # noqa: BLE001 - a database away for a while must not end the one who repairs
            for error in errors.exceptions:
                notes = " ".join(getattr(error, "__notes__", ()))
                self.stderr.write(f"failed {notes}, trying again: {error}")
