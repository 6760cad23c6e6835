"""Whether a study of 40 trials finds better parameters than 40 random ones, and what studies release without a signal.

    python -m benchmarks.studies [--quick | --draw] [--results FILE] [--docs FOLDER]

Every result is a line of FILE at once: an interrupted run goes on where it stopped. At the end docs/studies.md is written.
With --draw nothing is run. With --quick tiny studies show that it runs, and nothing else.
"""

import argparse
import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from benchmarks.studies import page
from benchmarks.studies.jobs import Job, list_jobs

REPOSITORY = Path(__file__).resolve().parents[2]
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")


def run(todo: list[Job], path: Path) -> None:
    """Two at a time, and each result appended as soon as it is there."""
    for name in ONE_THREAD:
        os.environ[name] = "1"
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool,
        path.open("a") as lines,
    ):
        running = [pool.submit(Job.run, job) for job in todo]
        for done, future in enumerate(as_completed(running), 1):
            lines.write(json.dumps(future.result()) + "\n")
            lines.flush()
            print(f"{done} of {len(todo)}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """0 when everything that is asked was reached."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="tiny studies: does it run")
    parser.add_argument("--draw", action="store_true", help="only the page, of what was found so far")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "var" / "studies.jsonl")
    parser.add_argument("--docs", type=Path, default=REPOSITORY / "docs")
    options = parser.parse_args(arguments)
    known = page.read(options.results)
    done = {(row["part"], row["seed"]) for row in known}
    todo = [job for job in list_jobs(options.quick) if (job.part, job.seed) not in done]
    if todo and not options.draw:
        run(todo, options.results)
    rows = page.read(options.results)
    text = page.write(rows)
    (options.docs / "studies.md").write_text(text)
    print("\n".join(page.summarize(rows)))
    return 1 if page.list_shortfalls(rows) else 0


if __name__ == "__main__":
    sys.exit(main())
