"""docs/production-trial.md: each step of the trial with its time, written while the trial runs.

docs/production-trial.json keeps the figures of the last two runs, from which the page is made.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.compose.errors import TrialFailed

Note = Callable[[str], None]
Run = Mapping[str, Any]
RUNS_KEPT = 2


class Step(NamedTuple):
    """One row of the table."""

    name: str
    seconds: float
    seen: str


class Report:
    """The steps so far."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.load = 0.0
        """The highest load average so far: with more than there are cores, every time is longer."""

    @contextmanager
    def step(self, name: str) -> Iterator[Note]:
        """Time a step; what it notes stands beside its time. A failed step ends the trial."""
        sys.stdout.write(f"{len(self.steps) + 1}. {name} … ")
        sys.stdout.flush()
        start, seen = time.monotonic(), list[str]()
        try:
            yield seen.append
        except TrialFailed:
            sys.stdout.write("failed\n")
            raise
        self.load = max(self.load, os.getloadavg()[0])
        self.steps.append(Step(name, time.monotonic() - start, "; ".join(seen)))
        sys.stdout.write(f"{self.steps[-1].seconds:.1f} s  {self.steps[-1].seen}\n")
        sys.stdout.flush()

    def build_run(self, machine: str, began_at: str) -> Run:
        """This run, to be kept beside the page."""
        steps = [{**step._asdict(), "seconds": round(step.seconds, 1)} for step in self.steps]
        return {"began_at": began_at, "machine": machine, "load": round(self.load), "steps": steps}


def keep(run: Run, file: Path) -> list[Run]:
    """Add a run to those that are kept; returns the last two, the older first."""
    earlier = json.loads(file.read_text()) if file.exists() else []
    runs: list[Run] = [*earlier, run][-RUNS_KEPT:]
    file.write_text(json.dumps(runs, indent=1, ensure_ascii=False) + "\n")
    return runs


def write_page(page: Path, introduction: str, runs: Sequence[Run]) -> None:
    """The table of the newest run, with the times of each run that had the same steps."""
    newest = runs[-1]
    names = [step["name"] for step in newest["steps"]]
    alike = [run for run in runs if [step["name"] for step in run["steps"]] == names]
    begun = [
        f"- {run['began_at']}, {run['machine']}, load average up to {run['load']}: {_format_minutes(run)} in all."
        for run in alike
    ]
    columns = " | ".join(f"run {number}, s" for number in range(1, len(alike) + 1))
    lines = [introduction, *begun, "", f"| | step | {columns} | seen in the last run |"]
    lines.append(f"| --- | --- |{' ---: |' * len(alike)} --- |")
    for number, step in enumerate(newest["steps"]):
        seconds = " | ".join(f"{run['steps'][number]['seconds']:.1f}" for run in alike)
        lines.append(f"| {number + 1} | {step['name']} | {seconds} | {step['seen']} |")
    page.write_text("\n".join(lines) + "\n")


def _format_minutes(run: Run) -> str:
    return f"{sum(step['seconds'] for step in run['steps']) / 60:.0f} minutes"
