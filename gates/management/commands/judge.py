from typing import Any

from django.core.management.base import CommandParser

from accounts.commands import ActingCommand
from common.commands import serialize
from gates.api import Diagnoses
from gates.presentation import format_table
from gates.services import judging, policies


class Command(ActingCommand):
    help = "Judge an old diagnosis again by another policy, from what was measured then. Nothing is measured."

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("diagnosis", type=int, help="the diagnosis' number")
        parser.add_argument(
            "--policy", type=int, metavar="N", help="by this policy; else by the one in force"
        )

    def answer(self, **options: Any) -> dict[str, Any]:
        number = options["policy"]
        policy = policies.policy_in_force() if number is None else policies.find_policy(number)
        diagnosis = judging.find_diagnosis(options["diagnosis"])
        return serialize(Diagnoses.Output, judging.judge_again(diagnosis, policy, actor=self.actor(options)))

    def is_failure(self, answer: dict[str, Any]) -> bool:
        return bool(answer["verdict"] != "passed")

    def format_answer(self, answer: dict[str, Any]) -> str:
        return format_table(answer)
