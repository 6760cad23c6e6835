import platform
from typing import Any

from django.core.management.base import CommandParser

from accounts.rules import Actor
from audit.command import GateCommand
from audit.errors import InvalidInput, NotFound
from gates import services
from gates.models import Diagnosis
from training import services as training
from training.models import Bundle, Dataset

WORDS = {"passed": "✓ passed", "failed": "✗ failed", "inconclusive": "? inconclusive", "error": "! error"}


class Command(GateCommand):
    help = "Measure bundles here and now, in a process of their own, and judge them by the policy in force."

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
            services.diagnose_here(
                bundle,
                _dataset(bundle, options["dataset"]),
                actor=actor,
                worker_name=f"diagnose on {platform.node()}",
            )
            for bundle in _bundles(options["coin"], options["bundle"])
        ]
        return [_described(diagnosis) for diagnosis in diagnoses]

    def failed(self, answer: list[dict[str, Any]]) -> bool:
        return any(diagnosis["verdict"] != "passed" for diagnosis in answer)

    def say(self, answer: list[dict[str, Any]]) -> str:
        return "\n\n".join(_table(diagnosis) for diagnosis in answer)


def _bundles(coin: str | None, prefix: str | None) -> list[Bundle]:
    rows = Bundle.objects.select_related("coin", "dataset").order_by("coin__symbol", "-id")
    if coin:
        rows = rows.filter(coin__symbol=coin.upper())
    if prefix:
        return [
            _one(list(rows.filter(digest__startswith=f"sha256:{prefix.removeprefix('sha256:')}")), prefix)
        ]
    newest = list({bundle.coin_id: bundle for bundle in reversed(rows)}.values())
    if not newest:
        raise NotFound(
            f"There is no bundle{f' of {coin}' if coin else ''} yet: train one first (`train`, `release`)."
        )
    return sorted(newest, key=lambda bundle: bundle.coin.symbol)


def _one(found: list[Bundle], prefix: str) -> Bundle:
    if not found:
        raise NotFound(f"No bundle's digest begins with {prefix!r}.")
    if len(found) > 1:
        raise InvalidInput(
            f"{len(found)} bundles begin with {prefix!r}: give more of the digest.", field="bundle"
        )
    return found[0]


def _dataset(bundle: Bundle, pk: int | None) -> Dataset:
    if pk is None:
        return bundle.dataset or training.latest_dataset(bundle.coin)
    dataset = Dataset.objects.select_related("coin").filter(pk=pk).first()
    if dataset is None:
        raise NotFound(f"There is no dataset {pk}.")
    return dataset


def _described(diagnosis: Diagnosis) -> dict[str, Any]:
    return {
        "diagnosis": diagnosis.pk,
        "coin": diagnosis.coin.symbol,
        "line": diagnosis.bundle.line,
        "bundle": diagnosis.bundle.digest,
        "dataset": diagnosis.dataset_id,
        "simulated": diagnosis.dataset.is_simulated,
        "policy": diagnosis.policy.number,
        "verdict": diagnosis.verdict,
        "digest": diagnosis.digest,
        "gates": [
            {
                "gate": result.gate,
                "required": result.is_required,
                "verdict": result.verdict,
                "figure": result.figure,
                "observed": result.observed,
                "threshold": result.threshold,
                "sentence": result.sentence,
            }
            for result in diagnosis.results.all()
        ],
    }


def _table(diagnosis: dict[str, Any]) -> str:
    simulated = ", simulated" if diagnosis["simulated"] else ""
    title = (
        f"{diagnosis['coin']} {diagnosis['line']} {diagnosis['bundle'][:19]} on dataset {diagnosis['dataset']}{simulated}, "
        f"policy {diagnosis['policy']}: {diagnosis['verdict'].upper()}"
    )
    rows = [_row(gate) for gate in diagnosis["gates"]]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]])
        for row in rows
    ]
    against = [f"  {gate['sentence']}" for gate in diagnosis["gates"] if gate["verdict"] != "passed"]
    return "\n".join([title, *lines, *against])


def _row(gate: dict[str, Any]) -> tuple[str, str, str, str]:
    name = gate["gate"] + ("" if gate["required"] else " (advisory)")
    return WORDS[gate["verdict"]], name, gate["observed"], gate["threshold"]
