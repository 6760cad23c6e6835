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
    "training": (
        "Three coins, trained as the service does, against the reference loop (DataLoader, torch's default threads,"
        " one coin after the other). Both make the same number of updates. Goal: a ratio of at least 4."
    ),
    "runtime_predict": (
        "From 2,048 candles to a direction in the bot's client, against pandas features and torch in eval mode. Goal:"
        " a ratio of at least 4."
    ),
    "features": ("The 72 features of 1,000,000 candles, against pandas. Goal: a ratio of at least 3."),
    "candle_import": (
        "Five years of one-minute candles (2,628,000 rows) from a gzipped CSV to checked candles, against pandas with"
        " the same checks of rows. Then all that an import computes, in one process. Goal: a ratio of at least 0.5, a"
        " minute and 2 GiB."
    ),
    "diagnosis": (
        "From files to verdict for a gate window of 100,000 rows, with everything that the page draws. That includes"
        " the features of all 667,000 candles, and training's own figures recomputed. The peer is Evidently's"
        " classification preset with its tests, which gets the predictions of that window ready made. Ours runs as in"
        " the service, distributed over the cores. Evidently is installed into its own environment under build/ on the"
        " first run. Goal: a ratio of at least 10 warm and 8 cold."
    ),
    "push": (
        "From the commit of a move to the change in 1,000 connected bots, all on this machine. Each is the client"
        " that bots install (crpbot_runtime.AsyncClient); 500 share a process, keys and loaded predictors. Measured are the"
        " push, the verification of the signature, and the assignment of the loaded predictors. One bot in a hundred"
        " then decides with the new set. Acknowledgements follow, spread over five seconds, and count once they are in"
        " the database. The peer is the same number of bots that poll MLflow's registry for three coins as fast as it"
        " answers, without its authentication, which makes it much slower. Goal: a 99th percentile under 250 ms, and"
        " every acknowledgement within 10 s."
    ),
    "snapshots": (
        "What bots ask all day, from one web process with authentication. The peer is MLflow's registry with a worker"
        " for each core: an alias of each of three models. Both use the same cores, load generator and number of"
        " connections, in turns. MLflow is installed into its own environment under build/ on the first run. Goal: at"
        " least 200 times its reads."
    ),
}
HEAD = """# Benchmarks

Written by `make bench`. Every figure is a ratio of two ways to do one thing, timed in turns in one run, so a
machine that slows down slows both. Training on a GPU has its own benchmark, `make bench-gpu`, against the
reference loop on the same GPU. It has never been run, because no GPU was available, and neither has training on a
GPU. There the rows stay on the device and a step waits for nothing. Steps are not captured in CUDA graphs, because
that could not be tested.
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
    """0 if every benchmark met its goals."""
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
