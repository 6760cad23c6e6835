from typing import Any

from django.core.management.base import CommandParser

from accounts.commands import ActingCommand
from mlcore.data.simulate import DEFAULT_DRIFT, DEMO_BARS
from training import services
from training.presentation import dataset_document, dataset_sentence, is_refused


class Command(ActingCommand):
    help = "Make up a market for a coin: with a drift to be learned, or (--drift 0) with nothing to learn."

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--coin", required=True)
        parser.add_argument("--bars", type=int, default=DEMO_BARS)
        parser.add_argument(
            "--drift", type=float, default=DEFAULT_DRIFT, help="a bar's drift in units of its volatility"
        )
        parser.add_argument("--seed", type=int, default=0)

    def answer(self, **options: Any) -> dict[str, Any]:
        dataset = services.simulate_candles(
            services.find_coin(options["coin"]),
            bars=options["bars"],
            drift=options["drift"],
            seed=options["seed"],
            actor=self.actor(options),
        )
        return dataset_document(dataset)

    def say(self, answer: dict[str, Any]) -> str:
        return dataset_sentence(answer)

    def failed(self, answer: dict[str, Any]) -> bool:
        return is_refused(answer)
