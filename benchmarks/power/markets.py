"""One simulated market from candles to verdict: V7 trained, measured from its bytes and judged, coin by coin."""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import polars as pl

from gates.evaluation import evaluate
from gates.policy import DRAFTS, FULL_POLICY
from mlcore.bundle.format import Bundle
from mlcore.bundle.writer import write_bundle
from mlcore.data import candles
from mlcore.data.simulate import COINS, simulate
from mlcore.evaluation.measure import measure
from mlcore.fitting.fit import fit, prepare
from mlcore.fitting.recipes import RECIPES, Recipe
from mlcore.quality.simulated import SimulatorSettings, check_simulated_candles
from mlcore.verdict import Verdict

FULL = "full"
POLICIES: Mapping[str, Mapping[str, Any]] = {
    FULL: FULL_POLICY,
    **{draft.name: draft.document for draft in DRAFTS.values()},
}
YEARS_OF_HOURS = 43_800
"""Five years: what a desk that trades hourly bars has of a coin."""
SETTINGS = {"batch_size": 256, "patience": 5}
"""The recipe's 64 and 10 take six times as long, and give the same accuracy within a point in trials."""


@dataclass(frozen=True)
class Market:
    """Three coins simulated with one planted drift; what is learned of one tells nothing of another."""

    drift: float
    number: int
    bars: int = YEARS_OF_HOURS
    epochs: int = 50

    @property
    def seed(self) -> int:
        """No two markets share their candles, of whatever drift."""
        return round(1_000_000 * self.drift) + 1_000 + self.number


def judge(market: Market) -> dict[str, Any]:
    """What a release would have come to under each policy.

    Once every policy has refused a coin, the coins after it are not trained: they change nothing.
    """
    start = perf_counter()
    coins: dict[str, dict[str, Any]] = {}
    for coin in COINS:
        coins[coin] = judge_coin(market, coin)
        if all(any(found["refused_by"][policy] for found in coins.values()) for policy in POLICIES):
            break
    return {**asdict(market), "coins": coins, "seconds": round(perf_counter() - start, 1)}


def judge_coin(market: Market, coin: str) -> dict[str, Any]:
    """Which required gates of each policy refuse this coin's V7, and the figures that tell most."""
    frame = simulate(coin, market.bars, market.drift, market.seed)
    v7 = RECIPES["v7_fixed"].with_parameters(**SETTINGS, epochs=market.epochs)
    with tempfile.TemporaryDirectory() as name:
        candidate, v5 = (
            _trained(recipe, frame, coin, Path(name) / recipe.line) for recipe in (v7, RECIPES["v5"])
        )
        found = measure(candidate.folder, frame, expected_digest=candidate.digest, baseline=v5.folder)
    document = {**found, **_build_context(market, coin, frame)}
    naive, lead = found["skill"]["naive"] or {}, found["lead"]["over"] or {}
    return {
        "refused_by": {
            policy: {
                outcome.gate: outcome.verdict.value
                for outcome in evaluate(document, thresholds, coin=coin)
                if outcome.is_required and outcome.verdict is not Verdict.PASSED
            }
            for policy, thresholds in POLICIES.items()
        },
        "accuracy": found["accuracy"]["point"],
        "accuracy_lower": found["accuracy"]["lower"],
        "over_last_move": (naive.get("last_move") or {}).get("difference"),
        "over_last_move_lower": (naive.get("last_move") or {}).get("lower"),
        "over_base_rate": (lead.get("majority") or {}).get("difference"),
    }


def _trained(recipe: Recipe, frame: pl.DataFrame, coin: str, folder: Path) -> Bundle:
    trained = fit(prepare(frame, recipe), recipe, seed=0, device="cpu")
    return write_bundle(
        folder,
        trained,
        coin=coin,
        dataset_digest=candles.compute_digest(frame),
        simulated=True,
        code_version="power",
    )


def _build_context(market: Market, coin: str, frame: pl.DataFrame) -> Mapping[str, Any]:
    """As the service would know them: its first attempt, on candles judged against their own generator."""
    generator = SimulatorSettings(market.bars, market.drift, market.seed)
    judged = {
        "digest": candles.compute_digest(frame),
        "verdict": check_simulated_candles(frame, coin=coin, generator=generator).verdict.value,
        "sentence": "",
        "simulated": True,
    }
    return {
        "attempts": {"count": 1, "chain": "0" * 64, "window": None},
        "import": None,
        "candles": {"measured": judged, "training": judged},
    }
