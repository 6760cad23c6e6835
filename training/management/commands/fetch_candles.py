from typing import Any

from django.core.management.base import CommandParser

from accounts.commands import ActingCommand
from training import services
from training.exchange import parse_since
from training.presentation import dataset_document, dataset_sentence, is_refused


class Command(ActingCommand):
    help = "Fetch a coin's candles against USDT from an exchange, up to the last complete one."

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("coin")
        parser.add_argument("--exchange", default="binance", help="as ccxt names it")
        parser.add_argument("--interval", default="1h")
        parser.add_argument("--since", required=True, metavar="2020-09-20", help="UTC")

    def answer(self, **options: Any) -> dict[str, Any]:
        dataset = services.fetch_candles(
            services.find_coin(options["coin"]),
            exchange=options["exchange"],
            interval=options["interval"],
            since=parse_since(options["since"]),
            actor=self.actor(options),
        )
        return dataset_document(dataset)

    def say(self, answer: dict[str, Any]) -> str:
        return dataset_sentence(answer)

    def failed(self, answer: dict[str, Any]) -> bool:
        return is_refused(answer)
