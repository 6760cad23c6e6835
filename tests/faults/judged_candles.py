"""What the service would know of candles: their own verdict, by the very checks that judge what comes in."""

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
    """What is said of candles beside the candles: whose they are, who made them, what else is stored."""

    coin: str = "BTC"
    generator: SimulatorSettings | None = None
    """The settings they were simulated by; None for a market's."""
    peers: tuple[PeerSeries, ...] = ()


MARKET_CANDLES = CandleFacts()


def judged(frame: pl.DataFrame, facts: CandleFacts) -> dict[str, Any]:
    """As `gates.context` has it of a stored dataset."""
    judgement = _judgement(frame, facts)
    against = [check.finding for check in judgement.checks if check.finding.verdict is not Verdict.PASSED]
    return {
        "digest": candles.compute_digest(frame),
        "verdict": judgement.verdict.value,
        "sentence": " ".join(finding.sentence for finding in against),
        "simulated": facts.generator is not None,
    }


_alone: dict[tuple[str, str, SimulatorSettings | None], CandleReport] = {}
"""Judgements of candles that nothing else is stored beside: most faults are of the same ones."""


def _judgement(frame: pl.DataFrame, facts: CandleFacts) -> CandleReport:
    if facts.peers:
        return check_candles(frame, coin=facts.coin, peers=facts.peers)
    key = candles.compute_digest(frame), facts.coin, facts.generator
    if key not in _alone:
        _alone[key] = (
            check_simulated_candles(frame, coin=facts.coin, generator=facts.generator)
            if facts.generator
            else check_candles(frame, coin=facts.coin)
        )
    return _alone[key]
