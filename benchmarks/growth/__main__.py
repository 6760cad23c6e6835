"""The growth table: the same things on histories of 10³ and 10⁴ releases, as ratios, against the goals.

    python -m benchmarks.growth [--sizes 100,1000,10000] [--url postgres://…]

Each size has a database of its own on one PostgreSQL server: that of --url, whose user may create databases, or one of the
pgserver wheel that lives as long as the run. Ten thousand releases take about twenty minutes and six gigabytes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from benchmarks.environments import REPOSITORY


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes", default="1000,10000", help="releases of each history, the last two are compared"
    )
    parser.add_argument("--url", help="a PostgreSQL server; else one is started")
    parser.add_argument(
        "--kept", action="store_true", help="write the table again from the figures of the last run"
    )
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_measure_one(options.one)))
        return 0
    from benchmarks.growth.table import report

    sizes = [int(size) for size in options.sizes.split(",")]
    if not options.kept:
        with tempfile.TemporaryDirectory(prefix="crpbot-growth-", ignore_cleanup_errors=True) as folder:
            url = options.url or _start_server(folder)
            for size in sizes:
                kept = _find_kept(size)
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_text(json.dumps(_run_one(url, size, Path(folder)), indent=1))
    return report({size: json.loads(_find_kept(size).read_text()) for size in sizes})


def _find_kept(size: int) -> Path:
    return REPOSITORY / "build" / "growth" / f"{size}.json"


def _start_server(folder: str) -> str:
    from tests.postgres import start

    return start(folder)


def _run_one(url: str, size: int, folder: Path) -> dict[str, Any]:
    """Measure one size in a process and a database of its own, with a Redis of its own."""
    from crpbot.demo.processes import REDIS_SERVER

    name = f"growth_{size}"
    print(f"a history of {size:,} releases", file=sys.stderr)
    _create_database(url, name)
    state = folder / name
    state.mkdir()
    environment = os.environ | {
        "CRPBOT_STATE_DIR": str(state),
        "CRPBOT_DATABASE_URL": _name_database(url, name),
        "CRPBOT_REDIS_URL": f"unix://{state}/redis.sock",
        "CRPBOT_LOG_LEVEL": "ERROR",
        "CRPBOT_RATE_READS": "",
        "CRPBOT_RATE_DECISIONS": "",
        "CRPBOT_RATE_BOTS": "",
        "CRPBOT_RELEASE_DEADLINE_SECONDS": "86400",
        "DJANGO_SETTINGS_MODULE": "crpbot.settings",
    }
    redis = subprocess.Popen(
        [REDIS_SERVER, "--port", "0", "--unixsocket", f"{state}/redis.sock", "--save", ""],
        stdout=subprocess.DEVNULL,
    )
    try:
        command = [sys.executable, "-m", "benchmarks.growth", "--one", str(size)]
        answer = subprocess.run(
            command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
    finally:
        redis.terminate()
        redis.wait()
        _drop_database(url, name)
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return found


def _measure_one(size: int) -> dict[str, Any]:
    import time

    import django

    django.setup()
    from django.conf import settings

    settings.ALLOWED_HOSTS = [*settings.ALLOWED_HOSTS, "testserver"]
    from benchmarks.growth import history, measure, served

    start = time.perf_counter()
    built = history.build(size)
    print(f"built in {time.perf_counter() - start:.0f} s", file=sys.stderr)
    reads = measure.measure_reads(built.release, times=5)
    print(f"reads measured after {time.perf_counter() - start:.0f} s", file=sys.stderr)
    decisions = measure.measure_decisions(built.release, times=5)
    print(f"decisions measured after {time.perf_counter() - start:.0f} s", file=sys.stderr)
    taken = reads | decisions | measure.measure_verify(pins=50)
    web = served.measure(built.bots)
    print(f"served after {time.perf_counter() - start:.0f} s", file=sys.stderr)
    coins = measure.measure_coins(30)
    return {
        "taken": {name: asdict(one) for name, one in taken.items()},
        "served": web,
        "coins": {name: asdict(one) for name, one in coins.items()},
    }


def _name_database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def _create_database(url: str, name: str) -> None:
    _drop_database(url, name)
    _execute(url, f'CREATE DATABASE "{name}"')


def _drop_database(url: str, name: str) -> None:
    _execute(url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def _execute(url: str, statement: str) -> None:
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)


if __name__ == "__main__":
    sys.exit(main())
