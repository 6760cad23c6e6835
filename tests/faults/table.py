"""All faults, one after the other, and then healthy bundles: who caught what, as lines of a table."""

from collections.abc import Iterator
from dataclasses import dataclass

from gates.catalogue.gate import GateOutcome
from gates.policy import FULL_POLICY
from mlcore.data.simulate import COINS, simulate
from mlcore.quality.simulated import SimulatorSettings
from tests.faults.catalogue import FAULTS, Fault
from tests.faults.judged_candles import CandleFacts
from tests.faults.workshop import RECIPE, Workshop, caught_by

REQUIRED = tuple(name for name, entry in FULL_POLICY["gates"].items() if entry["required"])

HEALTHY_BARS, HEALTHY_DRIFT = 30_000, 1.5
SEEDS = range(7)


@dataclass(frozen=True)
class Caught:
    """What became of one fault."""

    fault: Fault
    by: tuple[str, ...]
    """The required gates that did not pass."""

    @property
    def is_caught(self) -> bool:
        return self.fault.gate in self.by

    @property
    def row(self) -> tuple[str, str, str]:
        others = ", ".join(gate for gate in self.by if gate != self.fault.gate)
        found = "yes" if self.is_caught else "MISSED"
        return self.fault.name, f"{self.fault.gate}: {found}", others or "alone"


@dataclass(frozen=True)
class Healthy:
    """A sound bundle of a market in which there is something to learn."""

    coin: str
    seed: int
    refused_by: tuple[str, ...]

    @property
    def row(self) -> tuple[str, str, str]:
        said = f"REFUSED by {', '.join(self.refused_by)}" if self.refused_by else "passed"
        return f"healthy: {self.coin}, seed {self.seed}", said, ""


def faults(shop: Workshop) -> Iterator[Caught]:
    for fault in FAULTS:
        yield Caught(fault, tuple(caught_by(fault.plant(shop).outcomes())))


def healthy(shop: Workshop, seeds: range = SEEDS) -> Iterator[Healthy]:
    """One bundle a coin and seed, each of candles of its own."""
    for seed in seeds:
        for coin in COINS:
            yield Healthy(coin, seed, tuple(caught_by(_healthy(shop, coin, seed))))


def _healthy(shop: Workshop, coin: str, seed: int) -> list[GateOutcome]:
    made = SimulatorSettings(HEALTHY_BARS, HEALTHY_DRIFT, 100 + seed)
    frame = simulate(coin, made.bars, made.drift, made.seed)
    recipe = RECIPE.with_parameters(epochs=30, patience=6, batch_size=256)
    good = shop.trained_on(frame, recipe=recipe, seed=seed, coin=coin, simulated=True)
    return good.case_of(CandleFacts(coin, made)).outcomes()


def alone_somewhere(found: list[Caught]) -> set[str]:
    """The gates without which at least one of these faults would have passed."""
    return {caught.by[0] for caught in found if len(caught.by) == 1}
