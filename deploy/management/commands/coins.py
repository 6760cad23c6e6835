from typing import Any

from django.core.management.base import CommandParser

from accounts.commands import ActingCommand
from deploy import services
from training.models import Coin
from training.services import find_coin


class Command(ActingCommand):
    help = "List the coins, add one, or say which of them a release must carry."

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("do", choices=["list", "add", "require", "release"], nargs="?", default="list")
        parser.add_argument("symbol", nargs="?", default="", help="as in BTC")
        parser.add_argument("--name", default="", help="of a coin that is added, as in Bitcoin")
        parser.add_argument("--reason", default="", help="recorded in the audit history")
        parser.add_argument(
            "--confirmed",
            action="store_true",
            help="require or release it, knowing what follows; told without",
        )

    def answer(self, **options: Any) -> list[dict[str, Any]]:
        if options["do"] == "add":
            services.add_coin(
                options["symbol"], name=options["name"], actor=self.actor(options), reason=options["reason"]
            )
        elif options["do"] != "list":
            services.set_required(
                find_coin(options["symbol"]),
                options["do"] == "require",
                actor=self.actor(options),
                reason=options["reason"],
                is_confirmed=options["confirmed"],
            )
        return [
            {"symbol": coin.symbol, "name": coin.name, "is_required": coin.is_required}
            for coin in Coin.objects.all()
        ]

    def format_answer(self, answer: list[dict[str, Any]]) -> str:
        return "\n".join(
            f"{coin['symbol']:<12} {'required' if coin['is_required'] else 'not required':<13} {coin['name']}".rstrip()
            for coin in answer
        )
