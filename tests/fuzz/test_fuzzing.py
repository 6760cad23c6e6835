"""A minute of fuzzing: a reader reads what it gets, or raises the error that it documents. `make fuzz` runs longer."""

from pathlib import Path

import pytest

from tests.fuzz import harness
from tests.fuzz.readers import READERS, Reader

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("reader", READERS.values(), ids=lambda reader: reader.name.replace(" ", "-"))
def test_a_reader_only_reads_or_refuses(reader: Reader, tmp_path: Path) -> None:
    tally = harness.fuzz(reader, seed="test", count=reader.quick_inputs, seconds=300, kept=tmp_path)
    assert tally.violations == []
    assert tally.inputs == reader.quick_inputs
    # Inputs that are all refused, or all read, would not reach the places where faults are.
    assert tally.read > 0
    assert tally.contained <= 10
