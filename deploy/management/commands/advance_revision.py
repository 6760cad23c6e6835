from typing import Any

from django.core.management.base import CommandParser

from accounts.commands import ActingCommand
from common.commands import serialize
from deploy.api.decisions import Moves
from deploy.serving.advance import advance_revision


class Command(ActingCommand):
    help = "After a restore of the database: say the same under a higher revision, so that bots listen again."

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--by", type=int, required=True, help="how many revisions; the alarm names the least"
        )
        parser.add_argument("--reason", required=True, help="recorded in the audit history")

    def answer(self, **options: Any) -> dict[str, Any]:
        actor, reason = self.actor(options), options["reason"]
        return serialize(Moves.Output, advance_revision(options["by"], actor=actor, reason=reason))

    def format_answer(self, answer: dict[str, Any]) -> str:
        return f"revision {answer['revision']}: {answer['line'] or 'offline'} as before ({answer['reason']})"
