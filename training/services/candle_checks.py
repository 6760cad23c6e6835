"""Checking candles when they are stored, and asking later whether they passed."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import polars as pl

from audit.hash_chain import to_canonical_json
from common.errors import Conflict
from mlcore.quality.market_checks import check_candles
from mlcore.quality.peers import PeerSeries
from mlcore.quality.result import CandleReport
from mlcore.quality.simulated import SimulatorSettings, check_simulated_candles
from mlcore.verdict import WORST_FIRST, Verdict
from training import artifact_store
from training.models import Coin, Dataset

PEERS_PER_COIN = 3
"""The newest passed datasets: enough to recognise another coin's candles, few enough to read during an upload."""

PEER_CHECKS = ("other_coins", "same_coin")


class CandlesNotPassed(Conflict):
    """A release was to use candles that did not pass."""

    title = "Candles did not pass"


def check_dataset(
    coin: Coin, frame: pl.DataFrame, *, is_simulated: bool, generator: SimulatorSettings | None = None
) -> CandleReport:
    """Check simulated candles against their simulator, real ones against market statistics and stored peers."""
    if is_simulated:
        return check_simulated_candles(frame, coin=coin.symbol, generator=generator)
    return check_candles(frame, coin=coin.symbol, peers=list(_load_peers(frame)))


def build_columns(report: CandleReport, generator: SimulatorSettings | None = None) -> dict[str, str]:
    """The columns of a dataset that keep its report."""
    document = report.document()
    if generator is not None:
        document["generator"] = asdict(generator)
    return {"verdict": report.verdict, "check_results": to_canonical_json(document)}


def require_passed(dataset: Dataset) -> Dataset:
    """Return the dataset. Raises CandlesNotPassed when it was withdrawn or a check did not pass."""
    if dataset.is_withdrawn or dataset.verdict != Verdict.PASSED:
        raise CandlesNotPassed(f"{format_verdict(dataset)} A release must not train on them.")
    return dataset


def format_verdict(dataset: Dataset) -> str:
    """One sentence for a person: the checks that did not pass, worst first, with figures and thresholds."""
    name = f"{dataset.coin}'s candles (dataset {dataset.pk})"
    if dataset.withdrawn_at is not None:
        by, day = dataset.withdrawn_by, f"{dataset.withdrawn_at:%Y-%m-%d}"
        return f"{name} were withdrawn by {by} on {day}: {dataset.withdrawn_reason.rstrip('.')}."
    if dataset.verdict == Verdict.PASSED:
        return f"{name} passed every check."
    failures = f"{name} did not pass: {'; '.join(list_failed_checks(dataset)) or dataset.verdict}."
    remedies = (
        f"Dataset {pk}, which it was compared with, was withdrawn since. Withdraw these candles too and import them"
        " again: they are then checked again."
        for pk in list_withdrawn_peers(dataset)
    )
    return " ".join([failures, *remedies])


def list_datasets_refused_for(dataset: Dataset) -> list[Dataset]:
    """The datasets that failed in comparison with this one: import them again once this one is withdrawn."""
    rows = Dataset.objects.select_related("coin").not_withdrawn().exclude(verdict=Verdict.PASSED)
    return [row for row in rows.order_by("id") if dataset.pk in _list_failed_peers(row)]


def list_withdrawn_peers(dataset: Dataset) -> list[int]:
    """The datasets that this one failed against and that were withdrawn later. Its verdict never changes."""
    peers = Dataset.objects.filter(pk__in=_list_failed_peers(dataset)).exclude(withdrawn_at=None)
    return list(peers.values_list("pk", flat=True))


def _list_failed_peers(dataset: Dataset) -> set[int]:
    """The numbers of the datasets named in failed comparisons."""
    return {
        row["compared_with"]
        for row in load_checks(dataset)
        if row["check"] in PEER_CHECKS and row["verdict"] != Verdict.PASSED and "compared_with" in row
    }


def list_failed_checks(dataset: Dataset) -> list[str]:
    """Each check that did not pass, worst first: `variance_ratio failed: 0.06, required 0.50 … 1.40`."""
    rows = [row for row in load_checks(dataset) if row["verdict"] != Verdict.PASSED]
    return [
        f"{row['check']} {row['verdict']}: {row['observed']}, required {row['threshold']}"
        for row in sort_worst_first(rows)
    ]


def sort_worst_first(checks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(checks, key=lambda row: WORST_FIRST.index(Verdict(row["verdict"])))


def load_checks(dataset: Dataset) -> list[dict[str, Any]]:
    """The result of every check: check, verdict, figure, observed, threshold, sentence."""
    return list(load_check_results(dataset).get("checks", []))


def load_check_results(dataset: Dataset) -> dict[str, Any]:
    """The stored document of CandleReport."""
    document: dict[str, Any] = json.loads(dataset.check_results or "{}")
    return document


def _load_peers(frame: pl.DataFrame) -> Iterator[PeerSeries]:
    """Other real datasets of the same time that passed; one whose file is lost is skipped."""
    others = Dataset.objects.filter(
        is_simulated=False,
        withdrawn_at=None,
        verdict=Verdict.PASSED,
        first_at__lte=frame["timestamp"][-1],
        last_at__gte=frame["timestamp"][0],
    ).select_related("coin")
    for other_coin in Coin.objects.all():
        for other in others.filter(coin=other_coin).order_by("-id")[:PEERS_PER_COIN]:
            try:
                stored = artifact_store.read_candles(other)
            except artifact_store.FileLost:
                continue
            yield PeerSeries.from_frame(
                stored, coin=other_coin.symbol, name=f"dataset {other.pk}", number=other.pk
            )
