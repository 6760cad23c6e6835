from typing import Any

from django.core.management.base import CommandParser

from training.exchange import parse_since
from training.management.datasets import DatasetCommand
from training.services import coins, datasets


class Command(DatasetCommand):
    help = (
        "Fetch a coin's candles against USDT from an exchange, up to the last complete one. The same command continues an"
        " interrupted fetch."
    )

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("coin")
        parser.add_argument("--exchange", default="binance", help="its name in ccxt")
        parser.add_argument("--interval", default="1h")
        parser.add_argument("--since", required=True, metavar="2020-09-20", help="UTC")

    def store(self, options: dict[str, Any]) -> datasets.StoredDataset:
        return datasets.fetch_candles(
            coins.find_coin(options["coin"]),
            exchange=options["exchange"],
            interval=options["interval"],
            since=parse_since(options["since"]),
            actor=self.actor(options),
            report=self.stderr.write,
        )
