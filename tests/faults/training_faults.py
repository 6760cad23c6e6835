"""Faults in how a bundle was trained, or in the candles it was trained and judged on."""

from dataclasses import replace

import numpy as np
import polars as pl

from mlcore.data.simulate import simulate
from mlcore.features import labels
from mlcore.features.scaler import Scaler
from mlcore.features.splits import Split
from mlcore.fitting.fit import prepare
from mlcore.quality.simulated import SimulatorSettings
from tests.faults.bundle_factory import BARS, NOISE, RECIPE, BundleFactory, Case, HealthyBundle
from tests.faults.candle_facts import CandleFacts
from tests.faults.formula_faults import (
    Formulas,
    replace_formulas,
    use_next_bar_in_older_half,
    use_next_bars_return,
)
from tests.faults.markets import generate_predictable


def last_epoch_kept(factory: BundleFactory) -> Case:
    """Trained on well past its best epoch, whose figures are reported; the weights are the last epoch's."""
    longer = RECIPE.with_parameters(epochs=16, patience=16, label_smoothing=0.0)
    recipe = replace(longer, dropout=(0.0, 0.0, 0.0), restores_best=False)
    kept = factory.train_on(factory.good.frame, recipe=recipe)
    best = min(kept.trained.epochs, key=lambda epoch: epoch.validation_loss)
    assert best.number < len(kept.trained.epochs)
    reported = {
        "loss": best.validation_loss,
        "accuracy": best.validation_accuracy,
        "rows": kept.document["training"]["validation"]["rows"],
        "epoch": best.number,
    }
    training = {**kept.document["training"], "best_epoch": best.number, "validation": reported}
    return factory.rewrite(kept, reports=False, training=training)


def labels_shifted_by_a_bar(factory: BundleFactory) -> Case:
    """Each bar was given the label of the bar after it."""
    rows = factory.good.prepared
    return factory.train_on(factory.good.frame, prepared=replace(rows, labels=np.roll(rows.labels, -1))).case


def labels_shuffled(factory: BundleFactory) -> Case:
    """A frame sorted by another column than the labels': the network learned nothing."""
    rows = factory.good.prepared
    shuffled = np.random.default_rng(0).permutation(rows.labels)
    return factory.train_on(factory.good.frame, prepared=replace(rows, labels=shuffled)).case


def scaler_of_all_rows(factory: BundleFactory) -> Case:
    """As the original code does it: the scaler was fitted before the split, on the gate window too."""
    rows = factory.good.prepared
    scaler = Scaler.fit(rows.examples.features)
    return factory.train_on(factory.good.frame, prepared=replace(rows, scaler=scaler)).case


def purge_missing(factory: BundleFactory) -> Case:
    """The labels of the fit window's last bars look into the window that stops training, and those into the gate's."""
    rows = factory.good.prepared
    split = rows.examples.split
    unpurged = Split(slice(0, split.stop.start), slice(split.stop.start, split.gate.start), split.gate)
    return factory.train_on(
        factory.good.frame, prepared=replace(rows, examples=replace(rows.examples, split=unpurged))
    ).case


def gate_rows_trained_on(factory: BundleFactory) -> Case:
    """Trained on a longer history, judged on a shorter one whose gate window the longer one's training holds."""
    longer = generate_predictable(BARS + 4_000, noise=NOISE, seed=8)
    return _judged_on(factory.train_on(longer), longer.head(BARS))


def gate_window_before_training(factory: BundleFactory) -> Case:
    """Judged on the years before those it was trained on: it may have learned what came of them."""
    history = generate_predictable(2 * BARS, noise=NOISE, seed=9)
    return _judged_on(factory.train_on(history.tail(BARS)), history.head(BARS))


def gate_window_learned_by_heart(factory: BundleFactory) -> Case:
    """A market without anything to learn, and a network that was trained on all of it, the gate window too.

    This is how networks trained on noise came to show 71 %.
    """
    made = SimulatorSettings(8_000, drift=0.0, seed=5)
    frame = simulate("BTC", made.bars, made.drift, made.seed)
    rows = prepare(frame, RECIPE)
    split = rows.examples.split
    everything = Split(slice(0, split.gate.stop), split.stop, split.gate)
    recipe = RECIPE.with_parameters(epochs=40, patience=40, label_smoothing=0.0)
    good = factory.train_on(
        frame,
        prepared=replace(rows, examples=replace(rows.examples, split=everything)),
        recipe=replace(recipe, dropout=(0.0, 0.0, 0.0), restores_best=False),
        simulated=True,
    )
    return replace(good.case, candle_facts=CandleFacts(generator=made))


def _judged_on(good: HealthyBundle, frame: pl.DataFrame) -> Case:
    return replace(good.case, frame=frame, training_frame=good.frame)


def too_few_rows(factory: BundleFactory) -> Case:
    """Right often enough, on a gate window of some 950 bars."""
    return factory.train_on(generate_predictable(6_550, noise=0.0, seed=3)).case


def right_by_luck(factory: BundleFactory) -> Case:
    """Over 0.65 on its gate window, by less than chance explains."""
    return factory.train_on(generate_predictable(BARS, noise=0.6, seed=3)).case


def forty_seeds_on_one_window(factory: BundleFactory) -> Case:
    """HealthyBundle enough for a first try; it is the best of forty."""
    return replace(factory.train_on(generate_predictable(BARS, noise=0.5, seed=3)).case, attempts=40)


def too_good_to_be_true(factory: BundleFactory) -> Case:
    """Opens that know the class of the next eight bars in 92 of 100, as a column does that was joined from tomorrow.

    V5 finds it too, so only the accuracy itself tells.
    """
    recipe = RECIPE.with_parameters(epochs=16, patience=16)
    frame = generate_predictable(BARS, noise=0.05, seed=3, gaps=0.25, lies=0.08)
    return factory.train_on(frame, recipe=recipe).case


def repeats_the_last_move(factory: BundleFactory) -> Case:
    """On a market that trends, a network that learned to say what the last eight bars did: often right, and no use."""
    made = SimulatorSettings(24_000, drift=1.8, seed=7)
    frame = simulate("BTC", made.bars, made.drift, made.seed)
    rows = prepare(frame, RECIPE)
    moves = labels.compute_past_returns(frame["close"].to_numpy())[rows.examples.bars]
    said = replace(rows, labels=labels.assign_classes(moves, rows.cuts))
    good = factory.train_on(frame, prepared=said, simulated=True)
    case = factory.rewrite(replace(good, trained=replace(good.trained, prepared=rows)))
    return replace(case, candle_facts=CandleFacts(generator=made))


def worse_than_v5(factory: BundleFactory) -> Case:
    """Right often enough, and less often than the regression on the same candles: it was stopped too early."""
    return factory.train_on(generate_predictable(BARS, noise=0.0, seed=3, gaps=0.25)).case


def future_in_a_feature(factory: BundleFactory) -> Case:
    """The code that computes features gives each bar the next one's return."""
    return _train_with(factory, use_next_bars_return())


def history_revised(factory: BundleFactory) -> Case:
    """The older half of one feature was filled in afterwards from what came next; whatever is computed today is sound."""
    return _train_with(factory, use_next_bar_in_older_half())


def _train_with(factory: BundleFactory, formulas: Formulas) -> Case:
    with replace_formulas(formulas):
        good = factory.train_on(factory.good.frame)
    return replace(good.case, formulas=formulas)
