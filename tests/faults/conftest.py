"""The faults, each planted and judged once for all tests of a process."""

from collections.abc import Mapping
from typing import Any

import pytest

from gates.catalogue.gate import GateOutcome
from gates.evaluation import evaluate
from gates.policy import FULL_POLICY
from tests.faults.bundle_factory import BundleFactory
from tests.faults.catalogue import FAULTS


@pytest.fixture(scope="session")
def factory(tmp_path_factory: pytest.TempPathFactory) -> BundleFactory:
    return BundleFactory(tmp_path_factory.mktemp("workshop"))


class PlantedFaults(dict[str, list[GateOutcome]]):
    """Every fault's outcomes under the full policy, by the fault's name. A fault is planted when it is first asked for."""

    def __init__(self, factory: BundleFactory) -> None:
        super().__init__()
        self._factory = factory
        self._faults = {fault.name: fault for fault in FAULTS}
        self._read: dict[str, tuple[dict[str, Any], str]] = {}

    def __missing__(self, name: str) -> list[GateOutcome]:
        self[name] = self.under(FULL_POLICY, name)
        return self[name]

    def under(self, policy: Mapping[str, Any], name: str) -> list[GateOutcome]:
        """The same under another policy; it is planted and measured once."""
        if name not in self._read:
            case = self._faults[name].plant(self._factory)
            self._read[name] = case.document(), case.candle_facts.coin
        document, coin = self._read[name]
        return evaluate(document, policy, coin=coin)


@pytest.fixture(scope="session")
def judged(factory: BundleFactory) -> PlantedFaults:
    return PlantedFaults(factory)
