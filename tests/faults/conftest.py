"""The faults, planted and judged once for all tests of a process."""

import pytest

from gates.catalogue.gate import GateOutcome
from tests.faults.bundle_factory import BundleFactory
from tests.faults.catalogue import FAULTS


@pytest.fixture(scope="session")
def factory(tmp_path_factory: pytest.TempPathFactory) -> BundleFactory:
    return BundleFactory(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="session")
def judged(factory: BundleFactory) -> dict[str, list[GateOutcome]]:
    """Every fault's outcomes under the full policy, by the fault's name."""
    return {fault.name: fault.plant(factory).outcomes() for fault in FAULTS}
