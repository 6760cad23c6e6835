from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from audit import heads, services
from audit.models import AuditHead
from common.commands import GateCommand
from common.errors import Conflict, NotFound


class Command(GateCommand):
    help = (
        "Check the audit chain from its first event to its head, what it says of the tables, and heads that were kept"
        " outside the database."
    )

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--heads",
            type=Path,
            metavar="FILE",
            help="kept audit heads to compare with, such as a copy from another machine (default: CRPBOT_AUDIT_HEADS_FILE)",
        )

    def answer(self, **options: Any) -> dict[str, Any]:
        kept = _read_heads(options["heads"])  # before the chain is read, which then holds all of them
        broken = services.verify(kept)
        if broken:
            raise Conflict(f"The audit chain is broken at {len(broken)} place(s). {'; '.join(broken[:20])}")
        head = AuditHead.objects.filter(pk=1).first()
        return {
            "events": head.seq if head else 0,
            "head": head.hash if head else None,
            "kept": len(kept),
            "sound": True,
        }

    def format_answer(self, answer: dict[str, Any]) -> str:
        return (
            f"The chain of {answer['events']} events is sound, and holds {answer['kept']} heads that were kept elsewhere."
            f" Head: {answer['head']}"
        )


def _read_heads(chosen: Path | None) -> list[heads.KeptHead]:
    """Raises NotFound for a chosen file that cannot be read. Without one, no head was kept so far."""
    try:
        return heads.read_own(chosen or Path(settings.AUDIT_HEADS_FILE))
    except FileNotFoundError:
        if chosen is None:
            return []
        raise NotFound(f"{chosen} does not exist: name a file of kept audit heads.") from None
    except OSError as error:
        raise NotFound(f"{chosen or settings.AUDIT_HEADS_FILE} cannot be read: {error}") from error
