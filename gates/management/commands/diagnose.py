import platform
from typing import Any

from django.core.management.base import CommandParser

from accounts.roles import Actor
from common.commands import GateCommand, serialize
from common.errors import NotFound
from gates.api import Diagnoses
from gates.presentation import format_table
from gates.services import measuring
from training.models import Bundle, Dataset
from training.services import bundles, datasets


class Command(GateCommand):
    help = "Measure bundles now, each in its own process, and judge them by the policy in force."

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--coin", metavar="BTC", help="the newest bundle of this coin; else of every coin"
        )
        parser.add_argument(
            "--bundle", metavar="DIGEST", help="this bundle: the beginning of its digest is enough"
        )
        parser.add_argument(
            "--dataset",
            type=int,
            metavar="N",
            help="measure on this dataset; else on the one it was trained from",
        )

    def answer(self, **options: Any) -> list[dict[str, Any]]:
        actor = Actor("the command line", is_system=True)
        diagnoses = [
            measuring.diagnose_here(
                bundle,
                _dataset(bundle, options["dataset"]),
                actor=actor,
                worker_name=f"diagnose on {platform.node()}",
            )
            for bundle in _bundles(options["coin"], options["bundle"])
        ]
        return [serialize(Diagnoses.Output, diagnosis) for diagnosis in diagnoses]

    def is_failure(self, answer: list[dict[str, Any]]) -> bool:
        return any(diagnosis["verdict"] != "passed" for diagnosis in answer)

    def format_answer(self, answer: list[dict[str, Any]]) -> str:
        return "\n\n".join(format_table(diagnosis) for diagnosis in answer)


def _bundles(coin: str | None, prefix: str | None) -> list[Bundle]:
    rows = Bundle.objects.select_related("coin", "dataset").order_by("coin__symbol", "-id")
    if coin:
        rows = rows.filter(coin__symbol=coin.upper())
    if prefix:
        return [bundles.find_bundle(prefix, coin=coin)]
    newest = list({bundle.coin_id: bundle for bundle in reversed(rows)}.values())
    if not newest:
        raise NotFound(
            f"There is no bundle{f' of {coin}' if coin else ''} yet: train one first (`train`, `release`)."
        )
    return sorted(newest, key=lambda bundle: bundle.coin.symbol)


def _dataset(bundle: Bundle, pk: int | None) -> Dataset:
    if pk is not None:
        return datasets.find_dataset(pk)
    return bundle.dataset or datasets.latest_dataset(bundle.coin)
