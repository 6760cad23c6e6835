from typing import Any

from audit import services
from audit.models import AuditHead
from common.commands import GateCommand
from common.errors import Conflict


class Command(GateCommand):
    help = "Check the audit chain from its first event to its head."

    def answer(self, **options: Any) -> dict[str, Any]:
        broken = services.verify()
        if broken:
            raise Conflict(f"The audit chain is broken at {len(broken)} place(s). {'; '.join(broken[:20])}")
        head = AuditHead.objects.filter(pk=1).first()
        return {"events": head.seq if head else 0, "head": head.hash if head else None, "sound": True}

    def format_answer(self, answer: dict[str, Any]) -> str:
        return f"The chain of {answer['events']} events is sound. Head: {answer['head']}"
