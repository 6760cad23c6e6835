from typing import Any

from django.core.management.base import CommandParser

from accounts.commands import ActingCommand
from deploy.releases import coins
from training.api.datasets import Coins
from training.models import Coin
from training.services.coins import find_coin


class Command(ActingCommand):
    help = "List the coins, add one, or decide which of them every release must carry."

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("do", choices=["list", "add", "require", "release"], nargs="?", default="list")
        parser.add_argument("symbol", nargs="?", default="", help="as in BTC")
        parser.add_argument("--name", default="", help="of a coin that is added, as in Bitcoin")
        parser.add_argument("--reason", default="", help="recorded in the audit history")
        parser.add_argument(
            "--confirmed",
            action="store_true",
            help="confirm the consequences; without it they are listed, and nothing changes",
        )

    def answer(self, **options: Any) -> list[dict[str, Any]]:
        if options["do"] == "add":
            coins.add_coin(
                options["symbol"], name=options["name"], actor=self.actor(options), reason=options["reason"]
            )
        elif options["do"] != "list":
            coins.set_required(
                find_coin(options["symbol"]),
                options["do"] == "require",
                actor=self.actor(options),
                reason=options["reason"],
                is_confirmed=options["confirmed"],
            )
        return [dict(coin) for coin in Coins.Output(Coin.objects.all(), many=True).data]

    def format_answer(self, answer: list[dict[str, Any]]) -> str:
        return "\n".join(
            f"{coin['symbol']:<12} {'required' if coin['is_required'] else 'not required':<13} {coin['name']}".rstrip()
            for coin in answer
        )
