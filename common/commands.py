"""What every command of the service has in common: one answer, as text or JSON, and a clear refusal."""

import json
from abc import abstractmethod
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from common.errors import DomainError


class GateCommand(BaseCommand):
    """A command is one more interface: it parses, calls one service and prints what that answers.

    Exit status 0 when done, 1 when refused (or when `failed(answer)` says so), 2 for unusable arguments.
    """

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print the answer as one JSON document")
        self.add_own_arguments(parser)

    def add_own_arguments(self, parser: CommandParser) -> None:
        """What this command takes besides --json."""

    @abstractmethod
    def answer(self, **options: Any) -> Any:
        """Call one service; what it returns must be ready for JSON."""

    def say(self, answer: Any) -> str:
        return json.dumps(answer, indent=2, default=str)

    def failed(self, answer: Any) -> bool:
        return False

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            answer = self.answer(**options)
        except DomainError as refusal:
            if options["json"]:
                document = {"title": refusal.title, "status": refusal.status, "detail": refusal.message}
                self.stdout.write(json.dumps(document))
            else:
                self.stderr.write(self.style.ERROR(refusal.message))
            raise SystemExit(1) from None
        self.stdout.write(json.dumps(answer, default=str) if options["json"] else self.say(answer))
        if self.failed(answer):
            raise SystemExit(1)
