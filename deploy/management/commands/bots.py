from typing import Any

from common.commands import GateCommand
from deploy.management.fleet_report import build_fleet_report, format_fleet_report


class Command(GateCommand):
    help = (
        "Print the fleet report: what each bot runs, compared with what it must run. Exit status 1 if a bot is a problem, as"
        " in the board's alarms: behind, a mixture, or silent for longer than a restart takes (CRPBOT_BOT_LATE_SECONDS)."
    )

    def answer(self, **options: Any) -> dict[str, Any]:
        return build_fleet_report()

    def format_answer(self, answer: dict[str, Any]) -> str:
        return format_fleet_report(answer)

    def is_failure(self, answer: dict[str, Any]) -> bool:
        return bool(answer["problems"])
