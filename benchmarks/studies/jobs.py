"""The parts of the benchmark of studies, each for one seed."""

import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from benchmarks.studies.release import judge_best
from benchmarks.studies.search import Setting, find_best, measure_optimism, search
from studies.rules import Objective, Sampler

SEEDS = 10
BARS = {"search": 4_000, "long": 12_000}
"""Of the parts that search where there is something to learn."""
NOTHING_TO_LEARN = 20


@dataclass(frozen=True)
class Job:
    """One seed of one part of the benchmark."""

    part: str
    seed: int
    is_quick: bool = False

    def run(self) -> dict[str, Any]:
        began = process_time()
        found = release_noise(self) if self.part == "noise" else compare(self)
        return {**asdict(self), **found, "cpu_seconds": round(process_time() - began, 1)}


def list_jobs(is_quick: bool) -> Iterator[Job]:
    for part, seeds in (("search", SEEDS), ("noise", NOTHING_TO_LEARN), ("long", SEEDS)):
        for seed in range(1, (1 if is_quick else seeds) + 1):
            yield Job(part, seed, is_quick)


def _shrink(setting: Setting, is_quick: bool) -> Setting:
    return replace(setting, bars=2_000, trials=8, epochs=2) if is_quick else setting


def compare(job: Job) -> dict[str, Any]:
    """The same market searched twice, by TPE with pruning and at random without, each with as many trials."""
    found: dict[str, Any] = {}
    for sampler in Sampler:
        setting = Setting(
            1.2, job.seed, sampler=sampler.value, prunes=sampler == Sampler.TPE, bars=BARS[job.part]
        )
        setting = _shrink(setting, job.is_quick)
        began, studied = perf_counter(), search(setting)
        best = find_best(setting, studied)
        found[sampler.value] = {
            "seconds": round(perf_counter() - began, 1),
            "epochs": studied.epochs,
            "updates": studied.updates,
            "complete": len(studied.models),
            "trials": len(studied.trials),
            "values": dict(studied.trials[best].values),
            **measure_optimism(setting, studied),
        }
    return found


def release_noise(job: Job) -> dict[str, Any]:
    """A study where there is nothing to learn, and the gates' verdict of a release from its best trial."""
    setting = _shrink(Setting(0.0, job.seed, objective=Objective.ACCURACY.value), job.is_quick)
    studied = search(setting)
    best = studied.models[find_best(setting, studied)]
    with tempfile.TemporaryDirectory() as folder:
        refused_by = judge_best(setting, best, Path(folder))
    return {**measure_optimism(setting, studied), "trials": len(studied.trials), "refused_by": refused_by}
