"""How often V7 is released, by how much there is to learn; and how often the accuracy gate is fooled at its border.

    python -m benchmarks.power [--quick | --draw] [--policy NAME] [--results FILE] [--docs FOLDER]

Every result is a line of FILE at once: an interrupted run goes on where it stopped. At the end the page and its pictures
are written to FOLDER. With --draw nothing is run: the page is of what was found so far. With --quick a handful of tiny
markets show that it runs, and nothing else. With --policy the markets are judged by a draft that comes with the code, and
file and page have its name.
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
from benchmarks.power.markets import FULL, POLICIES
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
    policy = options.policy
    name = "power.jsonl" if policy == FULL else f"power-{policy}.jsonl"
    path = options.results or REPOSITORY / "var" / name
    known = Results.read(path, policy)
    todo = [] if options.draw else [job for job in jobs(options.quick, policy) if not job.is_in(known)]
    if todo:
        run(todo, path, lambda text: print(text, end="", flush=True))
    found = Results.read(path, policy)
    page.write(found, options.docs)
    print(page.summary(found))
    return 1 if found.shortfalls() else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.power", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few tiny markets: does it run")
    parser.add_argument("--draw", action="store_true", help="only the page, of what was found so far")
    parser.add_argument(
        "--policy", choices=list(POLICIES), default=FULL, help="what the markets are judged by"
    )
    parser.add_argument("--results", type=Path, help="by default var/power.jsonl, or that of the policy")
    parser.add_argument("--docs", type=Path, default=REPOSITORY / "docs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
