"""Five years of one-minute candles from a gzipped CSV, against pandas, and a whole import with its memory.

python -m benchmarks.candle_import [--quick]
"""

import argparse
import gzip
import io
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
import polars as pl

from benchmarks.goals import Goal, check_goals
from benchmarks.interleaved import compare
from mlcore.data.readers import read_file

GOAL = 0.5
"""pandas is told the format, and names no row of a fault."""
MAX_SECONDS, MAX_GIB = 60.0, 2.0
WHOLE = """
import sys
from pathlib import Path
from mlcore.data import candles, readers
from mlcore.quality.market_checks import check_candles
found = readers.read_file(Path(sys.argv[1]).read_bytes(), "a")
data = candles.encode_canonical(found.frame)
check_candles(candles.decode_canonical(data), coin="BTC", peers=[])
"""
"""What an import computes, in one process: the service distributes it over two, the sandbox and itself."""


def main() -> int:
    """Print ratio, seconds and memory; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="a twentieth of the rows: does it run, not how fast"
    )
    is_quick = parser.parse_args().quick
    rows, rounds = (131_400, 2) if is_quick else (2_628_000, 3)
    data = _make_file(rows)
    comparison = compare(
        lambda: read_file(data, "a"), lambda: _read_with_pandas(data), rounds=rounds, calls=1
    )
    print(f"{rows:,} rows of CSV.gz to checked candles: {comparison}; goal {GOAL:g}")
    seconds, gib = _measure_whole(data)
    print(
        f"read, encoded and judged: {seconds:.1f} s, {gib:.2f} GiB; goal {MAX_SECONDS:g} s and {MAX_GIB:g} GiB"
    )
    return check_goals(
        Goal("reading, against pandas", comparison.ratio, GOAL),
        Goal("a whole import", seconds, MAX_SECONDS, "s", is_maximum=True),
        Goal("memory of a whole import", gib, MAX_GIB, "GiB", is_maximum=True),
    )


def _make_file(rows: int) -> bytes:
    rng = np.random.default_rng(1)
    close = np.round(30_000 * np.exp(np.cumsum(rng.normal(0, 4e-4, rows))), 2)
    opened = np.append(close[0], close[:-1])
    frame = pl.DataFrame(
        {
            "timestamp": np.arange(rows) * 60_000 + 1_577_836_800_000,
            "open": opened,
            "high": np.maximum(opened, close) + np.round(rng.gamma(2, 2, rows), 2),
            "low": np.minimum(opened, close) - np.round(rng.gamma(2, 2, rows), 2),
            "close": close,
            "volume": np.round(rng.gamma(2, 2, rows), 5),
        }
    )
    return gzip.compress(frame.write_csv().encode(), 6)


def _read_with_pandas(data: bytes) -> pd.DataFrame:
    """The same checks of rows: finite, above zero, high and low enclose, times ascend on a grid."""
    table = pd.read_csv(io.BytesIO(gzip.decompress(data)))
    numbers = table[["open", "high", "low", "close", "volume"]].to_numpy(float)
    steps = np.diff(table["timestamp"].to_numpy())
    opened, high, low, close, volume = numbers.T
    is_valid = (
        np.isfinite(numbers).all()
        and (numbers[:, :4] > 0).all()
        and (volume >= 0).all()
        and (high >= np.maximum(opened, close)).all()
        and (low <= np.minimum(opened, close)).all()
        and (steps > 0).all()
        and (steps % pd.Series(steps).mode()[0] == 0).all()
    )
    if not is_valid:
        raise ValueError("these candles are not valid")
    return table.assign(timestamp=pd.to_datetime(table["timestamp"], unit="ms", utc=True))


def _measure_whole(data: bytes) -> tuple[float, float]:
    """Seconds and peak GiB of a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "candles"
        path.write_bytes(data)
        start = perf_counter()
        subprocess.run([sys.executable, "-c", WHOLE, str(path)], check=True)
        seconds = perf_counter() - start
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20


if __name__ == "__main__":
    sys.exit(main())
