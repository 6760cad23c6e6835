from typing import Any

from django.core.management.base import CommandParser

from accounts.commands import ActingCommand
from common.commands import serialize
from deploy.api.bots import Bots
from deploy.bots.retirement import retire_bot


class Command(ActingCommand):
    help = "Retire a silent bot that will not come back: it is gone, and raises no alarm. A heartbeat brings it back."

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="of its token's user, as `manage.py bots` prints it")
        parser.add_argument("instance", help="as in desk-1")
        parser.add_argument("--reason", required=True, help="recorded in the audit history")

    def answer(self, **options: Any) -> dict[str, Any]:
        bot = retire_bot(
            options["name"], options["instance"], actor=self.actor(options), reason=options["reason"]
        )
        return serialize(Bots.Output, bot)

    def format_answer(self, answer: dict[str, Any]) -> str:
        return (
            f"{answer['name']} ({answer['instance']}) is {answer['state']}; its next heartbeat brings it back"
        )
