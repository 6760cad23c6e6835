"""From candles to a direction: the bot's runtime against pandas features and torch in eval mode.

    python -m benchmarks.runtime_predict [--quick]

Both sides hold the same trained network, loaded and warm, and get the last 2,048 bars in memory in their own library's
form. The runtime's side is `Client.predict`, as a bot calls it: it also checks the candles, which the peer does not.
Then the same network on windows of bars, whose features its graph computes, and the same call for each: the 99th percentile.
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import torch
from safetensors.torch import load_file

from benchmarks.goals import Goal, check_goals
from benchmarks.interleaved import compare, in_turns
from benchmarks.pandas_features import relative72
from crpbot_runtime import Client
from mlcore.bundle import format as bundle_format
from mlcore.bundle.writer import write_bundle
from mlcore.data.candles import compute_digest
from mlcore.data.simulate import simulate
from mlcore.features.indicators import SCHEMAS
from mlcore.fitting.fit import fit, prepare
from mlcore.fitting.network import Network
from mlcore.fitting.recipes import RECIPES
from tests.runtime.stub_service import TOKEN, Release, StubService

GOAL = 4.0
COIN = "BTC"
WINDOWS = ("window64", "window2048")
TOLERANCE = 1e-4
"""Of a probability: both sides are float32 networks behind float64 features."""


def main() -> int:
    """Print the ratio; 1 when it misses the goal, 2 when the two sides do not say the same."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds, to see that it runs")
    rounds = 10 if parser.parse_args().quick else 60
    torch.set_num_threads(1)
    candles = simulate(COIN, bars=6_000, drift=1.2, seed=1)
    with tempfile.TemporaryDirectory() as folder:
        written = _bundle(candles, Path(folder) / "relative72")
        client = _client(written, Path(folder) / "cache")
        ours, peer = _runtime(client, candles), _pandas_and_torch(written, candles)
        if not np.allclose(ours(), peer(), atol=TOLERANCE):
            print(f"the two sides differ: {ours()} and {peer()}")
            return 2
        compared = compare(ours, peer, rounds=rounds, calls=5)
        print(_describe_times("relative72", ours, rounds))
        client.close()
        for name in WINDOWS:
            written = _bundle(candles, Path(folder) / name, input=name)
            with _client(written, Path(folder) / f"cache-{name}") as of_windows:
                print(_describe_times(name, _runtime(of_windows, candles), rounds))
    print(f"candles to direction, runtime against pandas and torch: {compared}; goal {GOAL:g}")
    return check_goals(Goal("prediction, against pandas and torch", compared.ratio, GOAL))


def _describe_times(name: str, predict: Callable[[], object], rounds: int) -> str:
    """Single calls, as a bot makes them; the first does not count."""
    (seconds,) = in_turns(predict, rounds=30 * rounds)
    middle, slow = 1000 * np.quantile(seconds, [0.5, 0.99])
    return f"{name}, candles to direction: p50 {middle:.2f} ms, p99 {slow:.2f} ms of {len(seconds):,} calls"


def _bundle(candles: pl.DataFrame, folder: Path, **settings: str) -> Path:
    recipe = RECIPES["v7_fixed"].with_parameters(epochs=2, **settings)
    trained = fit(prepare(candles, recipe), recipe, seed=1, device="cpu")
    written = write_bundle(
        folder / COIN,
        trained,
        coin=COIN,
        dataset_digest=compute_digest(candles),
        simulated=True,
        code_version="benchmark",
    )
    return written.folder


def _client(written: Path, cache_dir: Path) -> Client:
    """A client that follows a release of this one bundle; the stub service is stopped when it returns."""
    service = StubService()
    try:
        service.point_at(Release(1, "v7_fixed", {COIN: written}))
        client = Client(
            service.url, TOKEN, service.public_key, cache_dir, fresh_for_s=3600, max_age_s=math.inf
        )
        if problem := client.refresh().problem:
            raise problem
        return client
    finally:
        service.stop()


def _runtime(client: Client, candles: pl.DataFrame) -> Callable[[], list[float]]:
    window = candles.tail(SCHEMAS["relative72"].lookback)
    return lambda: list(client.predict(COIN, window).probabilities.values())


def _pandas_and_torch(written: Path, candles: pl.DataFrame) -> Callable[[], list[float]]:
    window = pd.DataFrame(candles.tail(SCHEMAS["relative72"].lookback).to_dict(as_series=False))
    scaler = json.loads((written / bundle_format.SCALER_FILE).read_text())
    mean, scale = np.array(scaler["mean"]), np.array(scaler["scale"])
    network = Network()
    network.load_state_dict(load_file(written / bundle_format.WEIGHTS_FILE))
    network.eval()

    def predict() -> list[float]:
        row = relative72(window).iloc[[-1]].to_numpy()
        scaled = torch.from_numpy(((row - mean) / scale).astype(np.float32))
        with torch.no_grad():
            return torch.softmax(network(scaled), dim=1)[0].tolist()

    return predict


if __name__ == "__main__":
    sys.exit(main())
