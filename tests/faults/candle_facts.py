"""What the service knows about candles: their verdict, by the same checks that judge uploads."""

from dataclasses import dataclass
from typing import Any

import polars as pl

from mlcore.data import candles
from mlcore.quality.market_checks import check_candles
from mlcore.quality.peers import PeerSeries
from mlcore.quality.result import CandleReport
from mlcore.quality.simulated import SimulatorSettings, check_simulated_candles
from mlcore.verdict import Verdict


@dataclass(frozen=True)
class CandleFacts:
    """The coin of candles, how they were made, and what other candles are stored."""

    coin: str = "BTC"
    generator: SimulatorSettings | None = None
    """The settings that they were simulated with; None for real candles."""
    peers: tuple[PeerSeries, ...] = ()


REAL_CANDLES = CandleFacts()


def judge_candles(frame: pl.DataFrame, facts: CandleFacts) -> dict[str, Any]:
    """As `gates.context` reports it for a stored dataset."""
    report = _report_on(frame, facts)
    problems = [check.finding for check in report.checks if check.finding.verdict is not Verdict.PASSED]
    return {
        "digest": candles.compute_digest(frame),
        "verdict": report.verdict.value,
        "sentence": " ".join(finding.sentence for finding in problems),
        "simulated": facts.generator is not None,
    }


_reports: dict[tuple[str, str, SimulatorSettings | None], CandleReport] = {}
"""Reports of candles without peers; most faults use the same candles."""


def _report_on(frame: pl.DataFrame, facts: CandleFacts) -> CandleReport:
    if facts.peers:
        return check_candles(frame, coin=facts.coin, peers=facts.peers)
    key = candles.compute_digest(frame), facts.coin, facts.generator
    if key not in _reports:
        _reports[key] = (
            check_simulated_candles(frame, coin=facts.coin, generator=facts.generator)
            if facts.generator
            else check_candles(frame, coin=facts.coin)
        )
    return _reports[key]
