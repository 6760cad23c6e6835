from typing import Any

from django.core.management.base import CommandParser

from accounts.commands import ActingCommand
from deploy import services


class Command(ActingCommand):
    help = "Hold every bot on the fallback, at once; on nothing when the fallback is not fit."

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--reason", required=True, help="recorded in the audit history")

    def answer(self, **options: Any) -> dict[str, Any]:
        move = services.pin(actor=self.actor(options), reason=options["reason"])
        line = move.release.line if move.release else None
        return {"revision": move.revision, "kind": move.kind, "line": line, "reason": move.reason}

    def format_answer(self, answer: dict[str, Any]) -> str:
        return f"revision {answer['revision']}: {answer['line'] or 'offline, bots answer neutral'} ({answer['reason']})"
