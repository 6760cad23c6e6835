"""The command of each decision about a release: help, arguments and service come from the table of decisions."""

from typing import Any, ClassVar

from django.core.management.base import CommandParser

from accounts.commands import ActingCommand
from deploy.api.releases import find_release, serialize_release
from deploy.pointer import pointer
from deploy.releases.decide import decide
from deploy.releases.decision_table import DECISIONS, ReleaseDecision
from deploy.rules import Action


class DecisionCommand(ActingCommand):
    """Decides about one release, with a reason. It answers with the release, as the API does, and the revision."""

    row: ClassVar[ReleaseDecision]

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("release", type=int, help="the release's number")
        parser.add_argument("--reason", required=True, help="recorded in the audit history")
        if self.row.is_revision_needed:
            parser.add_argument(
                "--revision", type=int, help="the revision you looked at; refused if the pointer moved since"
            )

    def answer(self, **options: Any) -> dict[str, Any]:
        release, before = find_release(options["release"]), pointer.get_current()
        revision = options.get("revision")
        if revision is None:
            revision = before.revision if before else 0
        decide(
            self.row.action, release, actor=self.actor(options), reason=options["reason"], revision=revision
        )
        move = pointer.get_current()
        return {**serialize_release(release), "revision": move.revision if move else None}

    def format_answer(self, answer: dict[str, Any]) -> str:
        move = pointer.get_current()
        line = (move.release.line if move.release else "nothing") if move else ""
        state = "cancelled" if answer["is_cancelled"] else answer["state"]
        where = f"the pointer: {line} (revision {answer['revision']})" if line else "there is no pointer yet"
        return f"release {answer['id']} is {state}; {where}"


def build_command(action: str) -> type[DecisionCommand]:
    row = DECISIONS[Action(action)]
    return type("Command", (DecisionCommand,), {"row": row, "help": row.help})
