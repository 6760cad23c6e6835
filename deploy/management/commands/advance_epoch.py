from typing import Any

from django.core.management.base import CommandParser

from accounts.commands import ActingCommand
from deploy import services


class Command(ActingCommand):
    help = "After the database was brought back from a backup: say the same under a higher epoch, so that bots listen again."

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--by", type=int, required=True, help="how many epochs; the alarm names the least"
        )
        parser.add_argument("--reason", required=True, help="stands in the audit history")

    def answer(self, **options: Any) -> dict[str, Any]:
        move = services.advance_epoch(options["by"], actor=self.actor(options), reason=options["reason"])
        line = move.release.line if move.release else None
        return {"epoch": move.epoch, "kind": move.kind, "line": line, "reason": move.reason}

    def say(self, answer: dict[str, Any]) -> str:
        return f"epoch {answer['epoch']}: {answer['line'] or 'offline'} as before ({answer['reason']})"
