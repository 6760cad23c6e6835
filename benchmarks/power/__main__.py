"""How often V7 is released, by how much there is to learn; and how often the accuracy gate is fooled at its border.

    python -m benchmarks.power [--quick | --draw] [--results FILE] [--docs FOLDER]

Every model is measured once, and judged by the full policy and by each draft that comes with the code. Every result is a
line of FILE at once: an interrupted run goes on where it stopped. At the end a page for each policy and its pictures are
written to FOLDER. With --draw nothing is run: the pages are of what was found so far. With --quick a handful of tiny
markets show that it runs, and nothing else.
"""

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from time import perf_counter

from benchmarks.power import page
from benchmarks.power.jobs import Job, jobs
from benchmarks.power.markets import POLICIES
from benchmarks.power.results import Results

REPOSITORY = Path(__file__).resolve().parents[2]
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")


def run(todo: list[Job], path: Path, say: Callable[[str], None]) -> None:
    """Two at a time, and each result appended as soon as it is there."""
    for name in ONE_THREAD:
        os.environ[name] = "1"
    path.parent.mkdir(parents=True, exist_ok=True)
    context, start = multiprocessing.get_context("spawn"), perf_counter()
    with ProcessPoolExecutor(2, mp_context=context) as pool, path.open("a") as lines:
        running = [pool.submit(Job.line, job) for job in todo]
        for done, future in enumerate(as_completed(running), 1):
            lines.write(json.dumps(future.result()) + "\n")
            lines.flush()
            left = (perf_counter() - start) / done * (len(todo) - done) / 60
            say(f"\r{done:,} of {len(todo):,}, about {left:.0f} minutes left ")
    say("\n")


def main(arguments: list[str] | None = None) -> int:
    """0 when everything that is asked was reached."""
    options = _parser().parse_args(arguments)
    path = options.results or REPOSITORY / "var" / "power.jsonl"
    known = Results.read(path)
    todo = [] if options.draw else [job for job in jobs(options.quick) if not job.is_in(known)]
    if todo:
        run(todo, path, lambda text: print(text, end="", flush=True))
    found = [Results.read(path, policy) for policy in POLICIES]
    for results in found:
        page.write(results, options.docs)
        print(f"Under the policy {results.policy}:\n{page.summary(results)}")
    return 1 if any(results.shortfalls() for results in found) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.power", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few tiny markets: does it run")
    parser.add_argument("--draw", action="store_true", help="only the pages, of what was found so far")
    parser.add_argument("--results", type=Path, help="by default var/power.jsonl")
    parser.add_argument("--docs", type=Path, default=REPOSITORY / "docs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
