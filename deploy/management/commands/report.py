from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from common.commands import GateCommand
from common.errors import InvalidInput, NotFound
from deploy.models import Release
from deploy.reports.comparison import Comparison
from deploy.reports.document import document
from deploy.reports.standalone import standalone
from deploy.reports.stored import report
from deploy.reports.text import words


class Command(GateCommand):
    help = "Hold a release against another: which of the five V6 failures are fixed, and every gate of every coin."

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("release", type=int, help="the release's number")
        parser.add_argument(
            "--against",
            type=int,
            metavar="N",
            help="another release; else what was live when it was launched",
        )
        parser.add_argument(
            "--html", type=Path, metavar="FILE", help="write it as one file that needs no network"
        )

    def answer(self, **options: Any) -> dict[str, Any]:
        release = Release.objects.filter(pk=options["release"]).select_related("status", "policy").first()
        if release is None:
            raise NotFound(f"There is no release {options['release']}.")
        self.found = report(release, options["against"])
        answer = document(self.found)
        return {**answer, **_written(self.found, options["html"])} if options["html"] else answer

    def format_answer(self, answer: dict[str, Any]) -> str:
        file = f"\n\nwritten to {answer['file']}, {answer['bytes']:,} bytes" if "file" in answer else ""
        return words(self.found) + file


def _written(found: Comparison, path: Path) -> dict[str, Any]:
    content = standalone(found, at=timezone.now()).encode()
    try:
        path.write_bytes(content)
    except OSError as error:
        raise InvalidInput(
            f"The report cannot be written to {path}: {error.strerror}.", field="html"
        ) from error
    return {"file": str(path), "bytes": len(content)}
