from typing import Any

from common.commands import GateCommand
from deploy.bots import fleet_report


class Command(GateCommand):
    help = (
        "List the bots: what each says it runs against what it must, as page Bots and GET /api/v1/bots/ do. Exit status 1"
        " where one is an alarm, as on the board: behind, or silent for longer than a restart takes"
        " (CRPBOT_BOT_LATE_SECONDS), or on a mixture."
    )

    def answer(self, **options: Any) -> dict[str, Any]:
        return fleet_report.roll_call()

    def format_answer(self, answer: dict[str, Any]) -> str:
        return fleet_report.as_lines(answer)

    def is_failure(self, answer: dict[str, Any]) -> bool:
        return fleet_report.is_troubled(answer)
