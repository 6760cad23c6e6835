from collections.abc import Iterator, Mapping
from typing import Any

from django.core.management.base import CommandParser

from accounts.commands import ActingCommand
from common.errors import InvalidInput
from deploy.api.keys import serialize_key
from deploy.bots import key_decisions
from deploy.models import SigningKey
from deploy.rules import KeyState
from deploy.serving import keys

_CHANGES = {
    "activate": key_decisions.activate_key,
    "retire": key_decisions.retire_key,
    "propose": key_decisions.propose_retirement,
}


class Command(ActingCommand):
    help = (
        "List the keys that sign what bots are given, and how many bots trust each; create, activate or retire one; export"
        " what a bot is given as its public key; import one that was made after a backup that was restored. To change the"
        " key: create, activate once every bot trusts it, retire the old one. To retire a key that some bots need takes two"
        " people: one proposes it, another approves it."
    )

    def add_own_arguments(self, parser: CommandParser) -> None:
        actions = ["list", "export", "create", "import", *_CHANGES, "approve"]
        parser.add_argument("do", choices=actions, nargs="?", default="list")
        parser.add_argument("key", nargs="?", default="", help="its id, or the beginning of it")
        parser.add_argument("--reason", default="", help="recorded in the audit history")
        parser.add_argument(
            "--cut-off", type=int, default=0, help="for approve: how many bots you saw would be cut off (0)"
        )

    def answer(self, **options: Any) -> dict[str, Any]:
        match options["do"]:
            case "export":
                return {"public_key": keys.export_public()}
            case "list":
                return {"keys": [serialize_key(key) for key in SigningKey.objects.order_by("pk")]}
        actor, reason, do = self.actor(options), options["reason"], options["do"]
        if do == "create":
            key = key_decisions.create_key(actor=actor, reason=reason)
        elif not options["key"]:
            raise InvalidInput("Say which key: `manage.py keys list` shows them.", field="key")
        elif do == "import":
            key = key_decisions.import_key(options["key"], actor=actor, reason=reason)
        elif do == "approve":
            key = key_decisions.approve_retirement(
                keys.find(options["key"]), actor=actor, reason=reason, cut_off=options["cut_off"]
            )
        else:
            key = _CHANGES[do](keys.find(options["key"]), actor=actor, reason=reason)
        return {"keys": [serialize_key(key)]}

    def format_answer(self, answer: dict[str, Any]) -> str:
        if "public_key" in answer:
            return str(answer["public_key"])
        lines = [line for key in answer["keys"] for line in _format_key(key)]
        return "\n".join(lines) or f"There is no key yet. {keys.HOW_TO_BEGIN}"


def _format_key(key: Mapping[str, Any]) -> Iterator[str]:
    yield f"{key['key_id'][:12]}  {key['state']:<8} {key['public']}"
    if key["state"] != KeyState.RETIRED:
        yield f"    trusted by {key['trusted_by']} of {key['bots']} bots; {key['cut_off']} trust no other key that signs"
        if key["retirement_proposed_by"]:
            yield f"    {key['retirement_proposed_by']} proposes to retire it: {key['retirement_reason']}"
