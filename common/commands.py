"""The base of every management command: one answer, as text or as the API's JSON, and a clear refusal."""

import json
from abc import abstractmethod
from typing import Any

from django.core.checks import Tags
from django.core.management.base import BaseCommand, CommandParser
from rest_framework.serializers import BaseSerializer

from common.errors import DomainError


def serialize(serializer: type[BaseSerializer[Any]], obj: Any) -> dict[str, Any]:
    """The document that the API answers for `obj`: a command prints the same one."""
    document: dict[str, Any] = serializer(obj).data
    return document


class GateCommand(BaseCommand):
    """A command parses its arguments, calls one service and prints the answer.

    Exit status 0 when done, 1 when refused (or when `is_failure(answer)` is true), 2 for unusable arguments.
    """

    requires_system_checks = (Tags.compatibility, Tags.models, Tags.security)
    """What a command stands on. Those of pages and addresses would load every view, which takes as long as all the rest."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print the answer as one JSON document")
        self.add_own_arguments(parser)

    def add_own_arguments(self, parser: CommandParser) -> None:
        """Add the arguments of this command; --json is already there."""

    @abstractmethod
    def answer(self, **options: Any) -> Any:
        """Call one service and return a document that can be written as JSON."""

    def format_answer(self, answer: Any) -> str:
        return json.dumps(answer, indent=2, default=str)

    def is_failure(self, answer: Any) -> bool:
        return False

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            answer = self.answer(**options)
        except DomainError as refusal:
            if options["json"]:
                document = {"title": refusal.title, "status": refusal.status, "detail": refusal.message}
                self.stdout.write(json.dumps(document))
            else:
                self.stderr.write(self.style.ERROR(refusal.message))
            raise SystemExit(1) from None
        self.stdout.write(json.dumps(answer, default=str) if options["json"] else self.format_answer(answer))
        if self.is_failure(answer):
            raise SystemExit(1)
