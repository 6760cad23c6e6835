"""Training: reproducible to the bit, stoppable and resumable at any moment, and it learns what there is to learn."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn
from torch.nn import functional

from mlcore.data import simulate
from mlcore.errors import MlcoreError, ResumeRefused
from mlcore.features.indicators import SCHEMAS
from mlcore.fitting.fit import EpochReport, Prepared, Trained, fit, prepare, resolve_device
from mlcore.fitting.network import build_network
from mlcore.fitting.recipes import RECIPES, Recipe
from tests.mlcore.trained_networks import (
    LONG_RECIPE,
    compute_gate_accuracy,
    load_network,
    simulate_long_market,
)

V7 = RECIPES["v7_fixed"]
QUICK = V7.with_parameters(epochs=3, batch_size=256)


@pytest.fixture(scope="module")
def small() -> pl.DataFrame:
    return simulate.simulate("ETH", 3_000, drift=1.2, seed=2)


@pytest.fixture(scope="module")
def prepared(small: pl.DataFrame) -> Prepared:
    return prepare(small, QUICK)


@pytest.fixture(scope="module")
def uninterrupted(prepared: Prepared) -> Trained:
    return fit(prepared, QUICK, seed=7, device="cpu")


class Interrupted(Exception):
    pass


def interrupted_after(epoch: int, prepared: Prepared, seed: int = 7) -> bytes:
    """A fit stopped from outside after an epoch: what it left behind."""
    kept = b""

    def stop(report: EpochReport, checkpoint: bytes) -> None:
        nonlocal kept
        kept = checkpoint
        if report.number == epoch:
            raise Interrupted

    with pytest.raises(Interrupted):
        fit(prepared, QUICK, seed=seed, device="cpu", on_epoch=stop)
    return kept


def same_bits(one: Trained, other: Trained) -> bool:
    return {name: array.tobytes() for name, array in one.weights.items()} == {
        name: array.tobytes() for name, array in other.weights.items()
    }


def test_equal_seed_and_data_give_equal_bits(prepared: Prepared, uninterrupted: Trained) -> None:
    assert same_bits(fit(prepared, QUICK, seed=7, device="cpu"), uninterrupted)


def test_another_seed_gives_other_weights(prepared: Prepared, uninterrupted: Trained) -> None:
    assert not same_bits(fit(prepared, QUICK, seed=8, device="cpu"), uninterrupted)


def test_the_callers_threads_and_random_state_change_no_bit(
    prepared: Prepared, uninterrupted: Trained
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.manual_seed(99)
        state = torch.get_rng_state()
        assert same_bits(fit(prepared, QUICK, seed=7, device="cpu"), uninterrupted)
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_fit_stopped_after_an_epoch_goes_on_to_the_same_weights(
    epoch: int, prepared: Prepared, uninterrupted: Trained
) -> None:
    resumed = fit(prepared, QUICK, seed=7, device="cpu", resume_from=interrupted_after(epoch, prepared))
    assert same_bits(resumed, uninterrupted)
    assert [r.train_loss for r in resumed.epochs] == [r.train_loss for r in uninterrupted.epochs]
    assert resumed.best_epoch == uninterrupted.best_epoch


KILLED_SCRIPT = """
import sys
from pathlib import Path
from tests.mlcore.trained_networks import LONG_RECIPE, simulate_long_market
from mlcore.fitting.fit import fit, prepare

folder = Path(sys.argv[1])

def keep(report, checkpoint):
    (folder / "unfinished").write_bytes(checkpoint)
    (folder / "unfinished").replace(folder / "checkpoint")

fit(prepare(simulate_long_market(), LONG_RECIPE), LONG_RECIPE, seed=7, device="cpu", on_epoch=keep)
"""


def checkpoint_of_a_killed_fit(folder: Path) -> bytes:
    child = subprocess.Popen([sys.executable, "-c", KILLED_SCRIPT, str(folder)])
    try:
        while not (folder / "checkpoint").exists():
            assert child.poll() is None, "the fit ended before it could be killed"
            time.sleep(0.005)
        time.sleep(0.17)
    finally:
        os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    return (folder / "checkpoint").read_bytes()


@pytest.mark.slow
def test_a_fit_killed_in_mid_epoch_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    """A real process, a real SIGKILL, at a moment nobody chose."""
    checkpoint = checkpoint_of_a_killed_fit(tmp_path)
    prepared, numbers = prepare(simulate_long_market(), LONG_RECIPE), []
    resumed = fit(
        prepared,
        LONG_RECIPE,
        seed=7,
        device="cpu",
        resume_from=checkpoint,
        on_epoch=lambda report, _: numbers.append(report.number),
    )
    assert 1 < numbers[0] <= numbers[-1] == 12
    assert same_bits(resumed, fit(prepared, LONG_RECIPE, seed=7, device="cpu"))


@pytest.mark.parametrize(
    ("recipe", "seed", "bars"),
    [(QUICK, 8, 3_000), (QUICK.with_parameters(learning_rate=0.002), 7, 3_000), (QUICK, 7, 2_999)],
    ids=["another seed", "another recipe", "another dataset"],
)
def test_a_checkpoint_of_another_fit_is_refused(
    recipe: Recipe, seed: int, bars: int, prepared: Prepared
) -> None:
    checkpoint = interrupted_after(1, prepared)
    other = prepare(simulate.simulate("ETH", 3_000, 1.2, 2)[:bars], recipe)
    with pytest.raises(ResumeRefused, match="another recipe, seed or dataset; start the run again"):
        fit(other, recipe, seed=seed, device="cpu", resume_from=checkpoint)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:1000] + bytes([data[1000] ^ 1]) + data[1001:],
        lambda data: b"\x80\x04" + data,
    ],
    ids=["empty", "cut off", "one bit turned", "a pickle's first bytes"],
)
def test_a_damaged_checkpoint_is_refused(damage: Callable[[bytes], bytes], prepared: Prepared) -> None:
    with pytest.raises(ResumeRefused, match="start the run again"):
        fit(prepared, QUICK, seed=7, device="cpu", resume_from=damage(interrupted_after(1, prepared)))


def test_every_epoch_is_reported(uninterrupted: Trained) -> None:
    assert [report.number for report in uninterrupted.epochs] == [1, 2, 3]
    for report in uninterrupted.epochs:
        assert report.epochs == 3
        assert 0 < report.train_loss < 2
        assert 0 < report.validation_loss < 2
        assert 0 <= report.validation_accuracy <= 1
        assert report.rows_per_second * report.seconds == pytest.approx(1_943, abs=30)


def test_the_best_epoch_is_restored_not_the_last(prepared: Prepared) -> None:
    recipe = QUICK.with_parameters(epochs=20, patience=3, learning_rate=0.01)
    trained = fit(prepared, recipe, seed=1, device="cpu")
    losses = [report.validation_loss for report in trained.epochs]
    assert trained.best_epoch == int(np.argmin(losses)) + 1 < len(losses)
    features, labels = (torch.from_numpy(array) for array in prepared.stop)
    weights = torch.from_numpy(prepared.class_weights)
    loss = functional.cross_entropy(load_network(trained)(features), labels, weights, label_smoothing=0.15)
    assert float(loss.detach()) == pytest.approx(min(losses), rel=1e-6)


def test_patience_stops_a_fit_that_no_longer_improves(prepared: Prepared) -> None:
    recipe = QUICK.with_parameters(epochs=50, patience=2, learning_rate=0.01)
    trained = fit(prepared, recipe, seed=1, device="cpu")
    assert len(trained.epochs) == trained.best_epoch + 2 < 50


def test_v6_keeps_its_last_epoch(v6: Trained) -> None:
    assert v6.best_epoch == len(v6.epochs) == 10


def test_a_last_batch_of_one_row_is_dropped_and_not_fatal(prepared: Prepared) -> None:
    rows = len(prepared.fit[1])
    size = next(size for size in range(16, 4096) if rows % size == 1)
    trained = fit(prepared, V7.with_parameters(epochs=1, batch_size=size), seed=0, device="cpu")
    assert int(trained.weights["bn1.num_batches_tracked"]) == rows // size


def test_a_loss_that_is_no_number_stops_the_fit_with_advice(prepared: Prepared) -> None:
    poisoned = replace(prepared, class_weights=np.array([np.nan, 1, 1], np.float32))
    with pytest.raises(MlcoreError, match="the loss is nan after epoch 1: lower the learning rate"):
        fit(poisoned, QUICK, seed=0, device="cpu")


def test_label_smoothing_is_pytorchs_at_one_and_a_half_times_the_share() -> None:
    """ε over the other K − 1 classes is ε·K/(K − 1) over all K: 0.1 there is 0.15 here, at equal class weights."""
    logits, labels = torch.randn(200, 3, dtype=torch.float64), torch.randint(0, 3, (200,))
    spread = torch.full((200, 3), 0.1 / 2, dtype=torch.float64)
    spread.scatter_(1, labels.unsqueeze(1), 0.9)
    plan = (-spread * functional.log_softmax(logits, dim=1)).sum(dim=1).mean()
    ours = nn.CrossEntropyLoss(
        weight=torch.ones(3, dtype=torch.float64), label_smoothing=V7.label_smoothing or 0
    )
    assert float(ours(logits, labels)) == pytest.approx(float(plan), rel=1e-12)


def test_scaler_cuts_and_class_weights_see_the_fit_window_alone(
    small: pl.DataFrame, prepared: Prepared
) -> None:
    last_fit_bar = int(prepared.examples.bars[prepared.examples.split.fit][-1])
    future = pl.int_range(pl.len()) > last_fit_bar + 8
    prices = pl.col("open", "high", "low", "close")
    changed = prepare(
        small.with_columns(pl.when(future).then(prices * 3).otherwise(prices).name.keep()), QUICK
    )
    assert changed.cuts == prepared.cuts
    assert np.array_equal(changed.scaler.mean, prepared.scaler.mean)
    assert np.array_equal(changed.scaler.scale, prepared.scaler.scale)
    assert np.array_equal(changed.class_weights, prepared.class_weights)


def test_a_feature_that_never_moves_is_scaled_by_one(small: pl.DataFrame) -> None:
    silent = prepare(small.with_columns(pl.lit(0.0).alias("volume")), QUICK)
    names = SCHEMAS["relative72"].columns
    assert silent.scaler.scale[names.index("volume_ratio")] == 1
    assert np.isfinite(silent.fit[0]).all()


def test_the_scaler_is_the_standard_one(prepared: Prepared) -> None:
    features, _ = prepared.fit
    assert np.abs(features.mean(axis=0)).max() < 1e-3
    assert np.abs(features.std(axis=0) - 1).max() < 1e-3


def test_initial_weights_depend_on_the_seed_alone() -> None:
    first, again, other = (
        build_network((0.3, 0.3, 0.2), seed).state_dict()["fc1.weight"] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_v7_learns_a_planted_drift(v7: Trained) -> None:
    assert compute_gate_accuracy(v7) > 0.68


def test_v5_learns_a_planted_drift_too(v5: Trained) -> None:
    assert compute_gate_accuracy(v5) > 0.65


@pytest.mark.slow
def test_v7_finds_nothing_in_a_market_without_drift() -> None:
    frame = simulate.simulate("BTC", 12_000, drift=0.0, seed=1)
    recipe = V7.with_parameters(epochs=3)
    assert compute_gate_accuracy(fit(prepare(frame, recipe), recipe, seed=0, device="cpu")) < 0.42


def test_auto_is_the_device_there_is() -> None:
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu") == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a cuda device here")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(MlcoreError, match="this machine has none"):
        resolve_device("cuda")


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(MlcoreError, match="choose auto, cpu or cuda"):
        resolve_device("tpu")
