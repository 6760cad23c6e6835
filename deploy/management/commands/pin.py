from typing import Any

from django.core.management.base import CommandParser

from accounts.commands import ActingCommand
from common.commands import serialize
from deploy.api.decisions import Moves
from deploy.releases import decide


class Command(ActingCommand):
    help = "Pin every bot to the fallback at once; offline when the fallback is not ready."

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--reason", required=True, help="recorded in the audit history")

    def answer(self, **options: Any) -> dict[str, Any]:
        return serialize(Moves.Output, decide.pin(actor=self.actor(options), reason=options["reason"]))

    def format_answer(self, answer: dict[str, Any]) -> str:
        return f"revision {answer['revision']}: {answer['line'] or 'offline, bots answer neutral'} ({answer['reason']})"
