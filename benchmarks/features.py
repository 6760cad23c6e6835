"""Features of a long history, candles to a matrix, against pandas.

python -m benchmarks.features [--quick]
"""

import argparse
import sys

import pandas as pd

from benchmarks.goals import Goal, check_goals
from benchmarks.interleaved import compare
from benchmarks.pandas_features import relative72
from mlcore.data.simulate import simulate
from mlcore.features.indicators import SCHEMAS, compute_features

GOAL = 3.0


def main() -> int:
    """Print the ratio; 1 when it misses the goal."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the bars: does it run, not how fast")
    is_quick = parser.parse_args().quick
    bars, rounds = (100_000, 2) if is_quick else (1_000_000, 5)
    candles = simulate("BTC", bars, drift=0.0, seed=1)
    table = pd.DataFrame({name: candles[name].to_numpy() for name in candles.columns[1:]})
    comparison = compare(
        lambda: compute_features(candles, SCHEMAS["relative72"]),
        lambda: relative72(table).to_numpy(),
        rounds=rounds,
        calls=1,
    )
    print(f"relative72 of {bars:,} candles: {comparison}; goal {GOAL:g}")
    return check_goals(Goal("features, against pandas", comparison.ratio, GOAL))


if __name__ == "__main__":
    sys.exit(main())
