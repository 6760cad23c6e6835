from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from common.commands import GateCommand
from common.errors import InvalidInput
from deploy.api.releases import find_release
from deploy.api.reports import ReleaseReport
from deploy.reports.comparison import Comparison
from deploy.reports.standalone import render_standalone
from deploy.reports.stored import compare_releases
from deploy.reports.text import format_report


class Command(GateCommand):
    help = "Compare a release with another: which of the five V6 failures are fixed, and every gate of every coin."

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
        comparison = self.comparison = compare_releases(find_release(options["release"]), options["against"])
        answer = dict(ReleaseReport.Output(comparison).data)
        return {**answer, **_write(comparison, options["html"])} if options["html"] else answer

    def format_answer(self, answer: dict[str, Any]) -> str:
        file = f"\n\nwritten to {answer['file']}, {answer['bytes']:,} bytes" if "file" in answer else ""
        return format_report(self.comparison) + file


def _write(comparison: Comparison, path: Path) -> dict[str, Any]:
    content = render_standalone(comparison, at=timezone.now()).encode()
    try:
        path.write_bytes(content)
    except OSError as error:
        raise InvalidInput(
            f"The report cannot be written to {path}: {error.strerror}.", field="html"
        ) from error
    return {"file": str(path), "bytes": len(content)}
