"""Judging candles when they come in, and asking later whether they passed."""

import json
import re
from collections.abc import Iterator
from typing import Any

import polars as pl
from django.db import transaction

from accounts.rules import GATE
from audit import services as audit
from audit.rules import to_canonical_json
from common.errors import Conflict
from mlcore.quality.market_checks import CandleReport, check_candles
from mlcore.quality.peers import PeerSeries
from mlcore.quality.simulated import SimulatorSettings, check_simulated_candles
from mlcore.verdict import WORST_FIRST, Verdict
from training import artifact_store
from training.models import Coin, Dataset

NEIGHBOURS_A_COIN = 3
"""The newest sound ones: enough to find another coin's candles, few enough to read within an upload."""

PASSED = Verdict.PASSED
COMPANY_CHECKS = ("other_coins", "same_coin")
_NAMED = re.compile(r"\bdataset ([0-9]+)\b")
_ORIGIN = re.compile(
    r"^simulated: drift (?P<drift>[0-9.eE+-]+), (?P<bars>[0-9,]+) bars, seed (?P<seed>[0-9]+)$"
)


class CandlesUnsound(Conflict):
    """Candles that did not pass, asked to carry a release."""

    title = "Candles did not pass"


def judge_candles(
    coin: Coin, frame: pl.DataFrame, *, is_simulated: bool, generator: SimulatorSettings | None = None
) -> CandleReport:
    """Simulated candles against their generator, real ones against a market and what else is stored of that time."""
    if is_simulated:
        return check_simulated_candles(frame, coin=coin.symbol, generator=generator)
    return check_candles(frame, coin=coin.symbol, peers=list(_load_peers(frame)))


def judgement_columns(judgement: CandleReport, generator: SimulatorSettings | None = None) -> dict[str, str]:
    """What a dataset's row keeps of it."""
    document = judgement.document()
    if generator is not None:
        document["generator"] = generator.document()
    return {"verdict": judgement.verdict, "judgement": to_canonical_json(document)}


def judged(dataset: Dataset) -> Dataset:
    """The dataset with its verdict; one from before there were verdicts is judged now, from its stored file.

    Raises FileLost when that is gone. What was once said of a dataset never changes.
    """
    if dataset.verdict:
        return dataset
    generator = generator_of(dataset)
    judgement = judge_candles(
        dataset.coin,
        artifact_store.read_candles(dataset),
        is_simulated=dataset.is_simulated,
        generator=generator,
    )
    columns = judgement_columns(judgement, generator)
    with transaction.atomic():
        audit.lock_head()
        if Dataset.objects.filter(pk=dataset.pk, verdict="").update(**columns):
            dataset.refresh_from_db(fields=list(columns))
            detail = {"digest": dataset.digest, "verdict": dataset.verdict, "against": against(dataset)}
            audit.record("dataset.judged", dataset, actor=GATE, detail=detail)
    dataset.refresh_from_db(fields=list(columns))
    return dataset


def require_sound(dataset: Dataset) -> Dataset:
    """The dataset, judged. Raises CandlesUnsound: withdrawn, or which check did not pass, with figure and threshold."""
    if not dataset.is_withdrawn:
        dataset = judged(dataset)
    if dataset.is_withdrawn or dataset.verdict != Verdict.PASSED:
        raise CandlesUnsound(f"{verdict_sentence(dataset)} Nothing that is to be released trains on them.")
    return dataset


def verdict_sentence(dataset: Dataset) -> str:
    """For a person: what stands against these candles, worst first, with figures and thresholds."""
    name = f"{dataset.coin}'s candles (dataset {dataset.pk})"
    if dataset.withdrawn_at is not None:
        by, day = dataset.withdrawn_by, f"{dataset.withdrawn_at:%Y-%m-%d}"
        return f"{name} were withdrawn by {by} on {day}: {dataset.withdrawn_reason.rstrip('.')}."
    if not dataset.verdict:
        return f"{name} were not judged yet."
    if dataset.verdict == Verdict.PASSED:
        return f"{name} passed every check."
    why = f"{name} did not pass: {'; '.join(against(dataset)) or dataset.verdict}."
    return " ".join([why, *_way_on(dataset)])


def refused_beside(dataset: Dataset) -> list[Dataset]:
    """The standing datasets that did not pass because of this one: each can be brought again once this is withdrawn."""
    rows = Dataset.objects.select_related("coin").standing().exclude(verdict__in=["", PASSED])
    return [row for row in rows.order_by("id") if dataset.pk in _refused_for(row)]


def withdrawn_peers(dataset: Dataset) -> list[int]:
    """The datasets that made this one fail and were withdrawn later. Its checks can be repeated without them."""
    peers = Dataset.objects.filter(pk__in=_refused_for(dataset)).exclude(withdrawn_at=None)
    return list(peers.values_list("pk", flat=True))


def _way_on(dataset: Dataset) -> list[str]:
    """What to do where a dataset that it was compared with is withdrawn."""
    return [
        f"Dataset {pk}, which it was compared with, was withdrawn since. Withdraw these candles too and import them"
        " again: they are then checked again."
        for pk in withdrawn_peers(dataset)
    ]


def _refused_for(dataset: Dataset) -> set[int]:
    """The datasets that its failed comparisons name."""
    rows = [r for r in checks_of(dataset) if r["check"] in COMPANY_CHECKS and r["verdict"] != PASSED]
    return {number for row in rows for number in _compared_with(row)}


def _compared_with(row: dict[str, Any]) -> set[int]:
    if "compared_with" in row:
        return {row["compared_with"]}
    # Verdicts from before it stood apart have it in their words alone, and those never change.
    return {int(number) for number in _NAMED.findall(row["observed"])}


def against(dataset: Dataset) -> list[str]:
    """Each check that did not pass, the worst first: `variance_ratio failed: 0.06 (0.50 … 1.40)`."""
    order = {str(verdict): place for place, verdict in enumerate(WORST_FIRST)}
    rows = [row for row in checks_of(dataset) if row["verdict"] != Verdict.PASSED]
    rows.sort(key=lambda row: order.get(row["verdict"], 0))
    return [
        f"{row['check']} {row['verdict']}: {row['observed']}, required {row['threshold']}" for row in rows
    ]


def checks_of(dataset: Dataset) -> list[dict[str, Any]]:
    """Every check's word: check, verdict, figure, observed, threshold, sentence. None of one not judged yet."""
    return list(document_of(dataset).get("checks", []))


def document_of(dataset: Dataset) -> dict[str, Any]:
    """The stored judgement; empty of one not judged yet."""
    found: dict[str, Any] = json.loads(dataset.judgement) if dataset.judgement else {}
    return found


def generator_of(dataset: Dataset) -> SimulatorSettings | None:
    """The settings a simulated dataset was made with, where they are known."""
    if not dataset.is_simulated:
        return None
    if kept := document_of(dataset).get("generator"):
        return SimulatorSettings(bars=kept["bars"], drift=kept["drift"], seed=kept["seed"])
    found = _ORIGIN.match(dataset.origin)
    if found is None:
        return None
    bars = int(found["bars"].replace(",", ""))
    return SimulatorSettings(bars=bars, drift=float(found["drift"]), seed=int(found["seed"]))


def _load_peers(frame: pl.DataFrame) -> Iterator[PeerSeries]:
    """Other real datasets that overlap in time and are not known to be bad; one whose file is lost tells nothing."""
    others = Dataset.objects.filter(
        is_simulated=False,
        withdrawn_at=None,
        verdict__in=["", Verdict.PASSED],
        first_at__lte=frame["timestamp"][-1],
        last_at__gte=frame["timestamp"][0],
    ).select_related("coin")
    for other_coin in Coin.objects.all():
        for other in others.filter(coin=other_coin).order_by("-id")[:NEIGHBOURS_A_COIN]:
            try:
                stored = artifact_store.read_candles(other)
            except artifact_store.FileLost:
                continue
            yield PeerSeries.from_frame(
                stored, coin=other_coin.symbol, name=f"dataset {other.pk}", number=other.pk
            )
