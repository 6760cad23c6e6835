from collections.abc import Mapping
from typing import Any

from common.commands import GateCommand
from deploy.prune import prune_all


class Command(GateCommand):
    help = (
        "Delete at once what reconcile deletes in parts: expired sessions, old workers, log lines, acknowledgements and live"
        " windows, and stored files that no row names. What a decision rests on stays (rule 30)."
    )

    def answer(self, **options: Any) -> Mapping[str, int]:
        return dict(prune_all())

    def format_answer(self, answer: Mapping[str, int]) -> str:
        return "\n".join(f"{kind}: {count:,} deleted" for kind, count in answer.items())
