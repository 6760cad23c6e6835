"""The faults, planted and judged once for all tests of a process."""

import pytest

from gates.catalogue.gate import GateOutcome
from tests.faults.catalogue import FAULTS
from tests.faults.workshop import Workshop


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="session")
def judged(shop: Workshop) -> dict[str, list[GateOutcome]]:
    """Every fault's outcomes under the full policy, by the fault's name."""
    return {fault.name: fault.plant(shop).outcomes() for fault in FAULTS}
