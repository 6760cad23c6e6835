"""A minute of fuzzing: a reader reads what it gets, or raises the error that it documents. `make fuzz` runs longer."""

from pathlib import Path
from random import Random

import pytest

from tests.fuzz import harness
from tests.fuzz.readers import READERS, Reader, Target
from tests.long_tests import long_except

pytestmark = pytest.mark.slow
SHORT = ("candle text", "imported model", "snapshot envelope")


@pytest.mark.parametrize(
    "reader",
    long_except(READERS.values(), lambda reader: reader.name in SHORT),
    ids=lambda reader: reader.name.replace(" ", "-"),
)
def test_a_reader_only_reads_or_refuses(reader: Reader, tmp_path: Path) -> None:
    tally = harness.fuzz(reader, seed="test", count=reader.quick_inputs, seconds=300, kept=tmp_path)
    assert tally.violations == []
    assert tally.inputs == reader.quick_inputs
    # Inputs that are all refused, or all read, would not reach the places where faults are.
    assert tally.read > 0
    assert tally.contained <= 10


@pytest.mark.parametrize("is_sandboxed", [True, False])
def test_memory_held_by_earlier_inputs_ends_a_sandboxed_process_only(
    is_sandboxed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of the sandbox has a process of its own. A bot's process stays, and so would what it holds."""
    monkeypatch.setattr(harness.resource, "setrlimit", lambda *limits: None)
    made = iter([b"a", b"b"])

    def make(rng: Random) -> bytes:
        try:
            return next(made)
        except StopIteration:
            raise MemoryError from None

    reader = Reader(
        "a reader", lambda: Target(make, lambda data: None, ()), is_sandboxed=is_sandboxed, quick_inputs=9
    )
    if is_sandboxed:
        assert harness.run_child(reader, "1", 0, 9, 60, tmp_path).read == 2
    else:
        with pytest.raises(MemoryError):
            harness.run_child(reader, "1", 0, 9, 60, tmp_path)
