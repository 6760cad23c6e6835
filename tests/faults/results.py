"""Judges all faults and then healthy bundles: which gate caught which fault, as rows of a table."""

from collections.abc import Iterator
from dataclasses import dataclass

from gates.catalogue.gate import GateOutcome
from gates.policy import FULL_POLICY
from mlcore.data.simulate import COINS, simulate
from mlcore.quality.simulated import SimulatorSettings
from tests.faults.bundle_factory import RECIPE, BundleFactory, list_catching_gates
from tests.faults.candle_facts import CandleFacts
from tests.faults.catalogue import FAULTS, Fault

REQUIRED = tuple(name for name, entry in FULL_POLICY["gates"].items() if entry["required"])

HEALTHY_BARS, HEALTHY_DRIFT = 30_000, 1.5
SEEDS = range(7)


@dataclass(frozen=True)
class FaultResult:
    """The gates that caught one fault."""

    fault: Fault
    caught_by: tuple[str, ...]
    """The required gates that did not pass."""

    @property
    def is_caught(self) -> bool:
        return self.fault.gate in self.caught_by

    @property
    def row(self) -> tuple[str, str, str]:
        others = ", ".join(gate for gate in self.caught_by if gate != self.fault.gate)
        answer = "yes" if self.is_caught else "MISSED"
        return self.fault.name, f"{self.fault.gate}: {answer}", others or "alone"


@dataclass(frozen=True)
class HealthyResult:
    """The gates that refused a healthy bundle; there should be none."""

    coin: str
    seed: int
    refused_by: tuple[str, ...]

    @property
    def row(self) -> tuple[str, str, str]:
        verdict = f"REFUSED by {', '.join(self.refused_by)}" if self.refused_by else "passed"
        return f"healthy: {self.coin}, seed {self.seed}", verdict, ""


def judge_faults(factory: BundleFactory) -> Iterator[FaultResult]:
    for fault in FAULTS:
        yield FaultResult(fault, tuple(list_catching_gates(fault.plant(factory).outcomes())))


def judge_healthy(factory: BundleFactory, seeds: range = SEEDS) -> Iterator[HealthyResult]:
    """One bundle per coin and seed, each on candles of its own."""
    for seed in seeds:
        for coin in COINS:
            yield HealthyResult(coin, seed, tuple(list_catching_gates(_judge_market(factory, coin, seed))))


def _judge_market(factory: BundleFactory, coin: str, seed: int) -> list[GateOutcome]:
    settings = SimulatorSettings(HEALTHY_BARS, HEALTHY_DRIFT, 100 + seed)
    frame = simulate(coin, settings.bars, settings.drift, settings.seed)
    recipe = RECIPE.with_parameters(epochs=30, patience=6, batch_size=256)
    good = factory.train_on(frame, recipe=recipe, seed=seed, coin=coin, simulated=True)
    return good.case_of(CandleFacts(coin, settings)).outcomes()


def find_sole_catchers(results: list[FaultResult]) -> set[str]:
    """The gates without which at least one of these faults would have passed."""
    return {result.caught_by[0] for result in results if len(result.caught_by) == 1}
