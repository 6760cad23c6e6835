from typing import Any

from django.core.management.base import CommandParser

from accounts.commands import ActingCommand
from common.errors import InvalidInput
from deploy.api.keys import Keys
from deploy.models import SigningKey
from deploy.serving import key_decisions, keys


class Command(ActingCommand):
    help = (
        "List the keys that sign what bots are given; create, activate or retire one; export what a bot pins as its public"
        " key. To change the key: create, give bots what export prints, activate, retire the old one, export again."
    )

    def add_own_arguments(self, parser: CommandParser) -> None:
        actions = ["list", "create", "activate", "retire", "export"]
        parser.add_argument("do", choices=actions, nargs="?", default="list")
        parser.add_argument("key", nargs="?", default="", help="its id, or the beginning of it")
        parser.add_argument("--reason", default="", help="recorded in the audit history")

    def answer(self, **options: Any) -> dict[str, Any]:
        match options["do"]:
            case "export":
                return {"public_key": keys.export_public()}
            case "list":
                return {"keys": Keys.Output(SigningKey.objects.order_by("pk"), many=True).data}
        actor, reason = self.actor(options), options["reason"]
        if options["do"] == "create":
            key = key_decisions.create_key(actor=actor, reason=reason)
        else:
            if not options["key"]:
                raise InvalidInput("Say which key: `manage.py keys list` shows them.", field="key")
            change = key_decisions.activate_key if options["do"] == "activate" else key_decisions.retire_key
            key = change(keys.find(options["key"]), actor=actor, reason=reason)
        return {"keys": Keys.Output([key], many=True).data}

    def format_answer(self, answer: dict[str, Any]) -> str:
        if "public_key" in answer:
            return str(answer["public_key"])
        lines = [f"{key['key_id'][:12]}  {key['state']:<8} {key['public']}" for key in answer["keys"]]
        return "\n".join(lines) or f"There is no key yet. {keys.HOW_TO_BEGIN}"
