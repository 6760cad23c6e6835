"""The faults, each planted and judged once for all tests of a process."""

import pytest

from gates.catalogue.gate import GateOutcome
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

    def __missing__(self, name: str) -> list[GateOutcome]:
        self[name] = self._faults[name].plant(self._factory).outcomes()
        return self[name]


@pytest.fixture(scope="session")
def judged(factory: BundleFactory) -> PlantedFaults:
    return PlantedFaults(factory)
