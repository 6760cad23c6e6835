from typing import Any

from django.core.management.base import CommandParser

from accounts.commands import ActingCommand
from common.commands import serialize
from common.errors import InvalidInput
from gates.api import DraftOutput, PolicyDetail
from gates.models import GatePolicy
from gates.policy import DRAFTS
from gates.services import policies


class Command(ActingCommand):
    help = "List the policies, or the drafts that come with the code; propose a draft, or adopt a proposed policy."

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("do", choices=["list", "drafts", "propose", "adopt"], nargs="?", default="list")
        parser.add_argument("which", nargs="?", default="", help="the draft's name, or the policy's number")
        parser.add_argument("--reason", default="", help="recorded in the audit history")

    def answer(self, **options: Any) -> list[dict[str, Any]]:
        do, which = options["do"], options["which"]
        if do == "drafts":
            return [serialize(DraftOutput, draft) for draft in DRAFTS.values()]
        if do == "propose":
            changed = policies.propose_draft(which, actor=self.actor(options), reason=options["reason"])
        elif do == "adopt":
            if not which.isdecimal():
                raise InvalidInput("Name the policy to adopt by its number.")
            changed = policies.find_policy(int(which))
            policies.adopt_policy(changed, actor=self.actor(options), reason=options["reason"])
        else:
            return [serialize(PolicyDetail.Output, policy) for policy in self._list()]
        return [serialize(PolicyDetail.OutputWithDifferences, self._list().get(pk=changed.pk))]

    def _list(self) -> Any:
        return GatePolicy.objects.prefetch_related("adoptions")

    def format_answer(self, answer: list[dict[str, Any]]) -> str:
        return "\n".join(line for policy in answer for line in self._format(policy))

    def _format(self, policy: dict[str, Any]) -> list[str]:
        if "name" in policy:
            changes = [f"  {change['sentence']}\n    {change['why']}" for change in policy["changes"]]
            return [f"{policy['name']}: {policy['about']}", *changes]
        adopted = policy["adoptions"]
        state = f"adopted by {adopted[0]['adopted_by']}" if adopted else "not adopted"
        weaker = [f"  weaker than the baseline: {sentence}" for sentence in policy["weaker_than_baseline"]]
        head = f"policy {policy['number']}: proposed by {policy['proposed_by']}, {state}. {policy['reason']}"
        return [head, *weaker]
