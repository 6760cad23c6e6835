"""What the service would know of candles: their own verdict, by the very checks that judge what comes in."""

from dataclasses import dataclass
from typing import Any

import polars as pl

from mlcore.data import candles
from mlcore.quality.market_checks import Judgement, judge
from mlcore.quality.peers import Neighbour
from mlcore.quality.simulated import Generator, judge_simulated
from mlcore.verdict import Verdict


@dataclass(frozen=True)
class CandleFacts:
    """What is said of candles beside the candles: whose they are, who made them, what else is stored."""

    coin: str = "BTC"
    generator: Generator | None = None
    """The settings they were simulated by; None for a market's."""
    neighbours: tuple[Neighbour, ...] = ()


MARKET_CANDLES = CandleFacts()


def judged(frame: pl.DataFrame, facts: CandleFacts) -> dict[str, Any]:
    """As `gates.context` has it of a stored dataset."""
    judgement = _judgement(frame, facts)
    against = [check.finding for check in judgement.checks if check.finding.verdict is not Verdict.PASSED]
    return {
        "digest": candles.digest(frame),
        "verdict": judgement.verdict.value,
        "sentence": " ".join(finding.sentence for finding in against),
        "simulated": facts.generator is not None,
    }


_alone: dict[tuple[str, str, Generator | None], Judgement] = {}
"""Judgements of candles that nothing else is stored beside: most faults are of the same ones."""


def _judgement(frame: pl.DataFrame, facts: CandleFacts) -> Judgement:
    if facts.neighbours:
        return judge(frame, coin=facts.coin, neighbours=facts.neighbours)
    key = candles.digest(frame), facts.coin, facts.generator
    if key not in _alone:
        _alone[key] = (
            judge_simulated(frame, coin=facts.coin, generator=facts.generator)
            if facts.generator
            else judge(frame, coin=facts.coin)
        )
    return _alone[key]
