from typing import Any

from django.core.management.base import CommandParser

from mlcore.data.simulate import DEFAULT_DRIFT, DEMO_BARS
from training.management.datasets import DatasetCommand
from training.services import coins, datasets


class Command(DatasetCommand):
    help = "Simulate a market for a coin: with a drift that a model can learn, or (--drift 0) with nothing to learn."

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--coin", required=True)
        parser.add_argument("--bars", type=int, default=DEMO_BARS)
        parser.add_argument(
            "--drift", type=float, default=DEFAULT_DRIFT, help="drift of one bar in units of its volatility"
        )
        parser.add_argument("--seed", type=int, default=0)

    def store(self, options: dict[str, Any]) -> datasets.StoredDataset:
        return datasets.simulate_candles(
            coins.find_coin(options["coin"]),
            bars=options["bars"],
            drift=options["drift"],
            seed=options["seed"],
            actor=self.actor(options),
        )
