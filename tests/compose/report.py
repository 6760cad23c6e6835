"""docs/production-trial.md: each step of the trial with its time, written while the trial runs."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.compose.errors import TrialFailed

Note = Callable[[str], None]


class Step(NamedTuple):
    """One row of the table."""

    name: str
    seconds: float
    seen: str


class Report:
    """The steps so far."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.failed = ""

    @contextmanager
    def step(self, name: str) -> Iterator[Note]:
        """Time a step; what it notes stands beside its time. A failed step ends the trial."""
        sys.stdout.write(f"{len(self.steps) + 1}. {name} … ")
        sys.stdout.flush()
        start, seen = time.monotonic(), list[str]()
        try:
            yield seen.append
        except TrialFailed as failure:
            self.failed = f"{name}: {failure}"
            sys.stdout.write("failed\n")
            raise
        self.steps.append(Step(name, time.monotonic() - start, "; ".join(seen)))
        sys.stdout.write(f"{self.steps[-1].seconds:.1f} s  {self.steps[-1].seen}\n")
        sys.stdout.flush()

    def write(self, file: Path, introduction: str) -> None:
        rows = [
            f"| {number} | {step.name} | {step.seconds:.1f} | {step.seen} |"
            for number, step in enumerate(self.steps, 1)
        ]
        total = sum(step.seconds for step in self.steps)
        lines = [introduction, "| | step | seconds | seen |", "| --- | --- | ---: | --- |", *rows, ""]
        lines.append(f"Together {total / 60:.0f} minutes.")
        file.write_text("\n".join(lines) + "\n")
