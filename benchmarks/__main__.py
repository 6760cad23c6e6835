"""Every benchmark, one after the other, each in a process of its own; the figures go to docs/benchmarks.md.

    python -m benchmarks [--quick]

With --quick nothing is written: it shows that they run, not how fast.
"""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "benchmarks.md"
BENCHMARKS = {
    "training": "Three coins trained as the service does, against the reference loop (DataLoader, torch's default"
    " threads, one coin after the other), same number of updates. At least 4 is asked.",
    "runtime_predict": "From 2,048 candles to a direction in the bot's client, against pandas features and torch in eval"
    " mode. At least 4 is asked.",
    "features": "The 72 features of 1,000,000 candles, against pandas. At least 3 is asked.",
    "diagnosis": "A gate window of 100,000 rows, from files to verdict with everything the page draws (candles of some"
    " 667,000 bars: the features of all of them, training's own figures recomputed), against Evidently's classification"
    " preset with its tests, which is given the predictions of that window ready made. Ours in the surroundings that the"
    " service gives it, its work shared out over the cores. Evidently is installed into an environment of its own under"
    " build/, made on the first run. At least 10 warm and 8 cold is asked.",
    "push": "From the commit of a move to the flip in 1,000 connected bots, all on this machine and each the client that"
    " bots install (runtime.AsyncClient, 500 to a process, which share keys and loaded predictors): the envelope pushed, its"
    " signature verified, every coin's predictor at hand, one assignment; one bot in a hundred decides by it,"
    " once its process has changed over. Their acknowledgements follow, spread over five seconds, and count when they stand"
    " in the database. Below, as many"
    " bots polling MLflow's registry for three coins as fast as it answers, without its authentication, which makes it much"
    " slower. A 99th percentile under 250 ms and every acknowledgement within 10 s is asked.",
    "snapshots": "What bots ask all day, from one web process with authentication, against MLflow's registry (a worker a"
    " core): an alias of each of three models. Same cores, same load generator, as many connections, in turns. MLflow is"
    " installed into an environment of its own under build/, made on the first run. At least 200 times its reads is asked.",
}
HEAD = """# Benchmarks

Written by `make bench`. Every figure is a ratio of two ways to do one thing, timed in turns in one run: a machine
that slows down slows both. Training on a GPU has a benchmark of its own, `make bench-gpu`, against the reference loop on
that same GPU. It has never been run, for want of one, and neither has training on a GPU itself: there the rows stay on
the device and a step waits for nothing, but steps are not captured in CUDA graphs, which nobody could have tried.
"""


def run(name: str, options: list[str]) -> tuple[int, str]:
    """One benchmark's exit status and what it printed."""
    found = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *options],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    return found.returncode, found.stdout.strip()


def section(name: str, said: str) -> str:
    return f"\n## {name}\n\n{BENCHMARKS[name]}\n\n```\n{said}\n```\n"


def main() -> int:
    """0 when every benchmark reached what is asked of it."""
    options = sys.argv[1:]
    worst, page = 0, HEAD
    for name in BENCHMARKS:
        print(f"{name}: {BENCHMARKS[name]}", flush=True)
        status, said = run(name, options)
        print(f"{said}\n", flush=True)
        worst, page = max(worst, status), page + section(name, said)
    if not options:
        when = datetime.now(UTC).strftime("%Y-%m-%d")
        page += (
            f"\n{when}, {os.cpu_count()} cores, Python {platform.python_version()}, {platform.machine()}.\n"
        )
        PAGE.write_text(page)
    return worst


if __name__ == "__main__":
    sys.exit(main())
