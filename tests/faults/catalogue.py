"""The faults: what is broken, how it is planted, and which gate must catch it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mlcore.bundle.format import MANIFEST_FILE, MODEL_FILE, SCALER_FILE, WEIGHTS_FILE
from mlcore.features.labels import Label
from mlcore.features.splits import Shares
from tests.faults import candle_faults, declared_faults, file_faults, recipe_faults, training_faults
from tests.faults.bundle_factory import BundleFactory, Case


@dataclass(frozen=True)
class Fault:
    """One way to break a good bundle or its data, planted for real."""

    name: str
    """Unique; the five failures of V6 begin with "v6: "."""
    breaks: str
    """What is wrong, and why it matters."""
    gate: str
    """The gate that must catch it, even if others do too."""
    plant: Callable[[BundleFactory], Case]


FAULTS = (
    Fault(
        "v6: certain of everything",
        "the temperature is lost: right as often, and sure of nearly every answer",
        "confidence",
        file_faults.temperature_lost,
    ),
    Fault(
        "v6: always Down", "one direction's bias drowns the others", "class_balance", file_faults.always_down
    ),
    Fault("v6: logits explode", "logits in the thousands", "logit_range", file_faults.logits_explode),
    Fault(
        "v6: scaler not saved", "the network is fed unscaled features", "scaler", file_faults.scaler_missing
    ),
    Fault(
        "v6: a single row crashes",
        "the graph fails on a batch of one, as the bot asks",
        "single_sample",
        file_faults.a_single_row_crashes,
    ),
    Fault(
        "batch norm skipped for one row",
        "one row alone is answered otherwise than in a batch",
        "single_sample",
        file_faults.batch_norm_skipped_for_one_row,
    ),
    Fault(
        "batch norm skipped in a batch",
        "a batch is answered otherwise than one row alone",
        "single_sample",
        file_faults.batch_norm_skipped_in_a_batch,
    ),
    Fault(
        "looks ahead through its batch",
        "each row is answered from the row behind it",
        "single_sample",
        file_faults.looks_ahead_through_its_batch,
    ),
    Fault(
        "logits far from zero",
        "all logits 30 too high: no probability shows it",
        "logit_range",
        file_faults.logits_far_from_zero,
    ),
    Fault(
        "leans Down",
        "a little too often Down, and right most of the time",
        "class_balance",
        file_faults.leans_down,
    ),
    Fault("constant", "the same answer to everything", "class_balance", file_faults.constant),
    Fault(
        "ups and downs exchanged",
        "classes in another order than the bot reads them",
        "accuracy",
        file_faults.ups_and_downs_exchanged,
    ),
    Fault("a layer lost", "fc2 as it was before training", "accuracy", file_faults.a_layer_lost),
    Fault(
        "batch norm forgotten",
        "running means and variances as before training",
        "accuracy",
        file_faults.batch_norm_forgotten,
    ),
    Fault("NaN in a weight", "one of 18,432", "finite_weights", file_faults.not_a_number_in("fc1.weight")),
    Fault(
        "NaN in a batch norm buffer",
        "one running mean",
        "finite_weights",
        file_faults.not_a_number_in("bn2.running_mean"),
    ),
    Fault(
        "infinite logits",
        "one bias overflowed",
        "finite_weights",
        file_faults.not_a_number_in("fc4.bias", np.inf),
    ),
    Fault(
        "infinite variance",
        "a running variance overflowed: one channel is silent, every answer finite",
        "finite_weights",
        file_faults.infinite_variance,
    ),
    Fault("NaN in the scaler", "one mean is none", "scaler", file_faults.not_a_number_in_the_scaler),
    Fault("a scale of zero", "one feature divided by nothing", "scaler", file_faults.scale_of_zero),
    Fault(
        "scaler of another coin",
        "in the graph and beside it",
        "schema",
        file_faults.scaler_of_another_coin,
    ),
    Fault(
        "scaler file of another coin",
        "the graph scales by its own",
        "scaler",
        file_faults.scaler_file_of_another_coin,
    ),
    Fault("scaler applied twice", "two scalings in the graph", "scaler", file_faults.scaler_applied_twice),
    Fault(
        "imported without a scaler",
        "a checkpoint from outside that holds none",
        "scaler",
        file_faults.imported_without_scaler,
    ),
    Fault(
        "model of another coin",
        "ETH's, under a manifest that says BTC",
        "schema",
        file_faults.model_of_another_coin,
    ),
    Fault(
        "scaler file rounded", "the graph scales by more digits", "scaler", file_faults.scaler_file_rounded
    ),
    Fault(
        "scaler folded in twice",
        "in the graph, and again in the first layer",
        "accuracy",
        file_faults.scaler_folded_in_twice,
    ),
    Fault(
        "scaler folded away",
        "in the first layer only: nobody can see which scaler it is",
        "scaler",
        file_faults.scaler_folded_away,
    ),
    Fault(
        "features in alphabetical order",
        "network and scaler expect columns sorted by name",
        "schema",
        file_faults.features_in_alphabetical_order,
    ),
    Fault(
        "scaler's names in another order",
        "the figures stand in the right one",
        "scaler",
        file_faults.scaler_names_in_another_order,
    ),
    Fault(
        "digest of another schema",
        "its features mean something else than the bot's",
        "schema",
        file_faults.another_schema_digest,
    ),
    Fault(
        "graph of other weights",
        "the graph that serves is not of the weights file",
        "reload",
        file_faults.graph_of_other_weights,
    ),
    Fault("truncated graph", "half of model.onnx", "bundle", file_faults.truncated(MODEL_FILE)),
    Fault("truncated weights", "half of weights.safetensors", "bundle", file_faults.truncated(WEIGHTS_FILE)),
    Fault("truncated scaler", "half of scaler.json", "bundle", file_faults.truncated(SCALER_FILE)),
    Fault("truncated manifest", "half of manifest.json", "bundle", file_faults.truncated(MANIFEST_FILE)),
    Fault("a bit turned", "the lowest bit of one weight", "bundle", file_faults.one_bit_turned),
    Fault("a file missing", "no weights file", "bundle", file_faults.a_file_missing),
    Fault(
        "graph swapped", "another seed's model.onnx", "bundle", file_faults.graph_swapped_for_another_seeds
    ),
    Fault(
        "bundle swapped",
        "another bundle, sound in itself, under this one's digest",
        "bundle",
        file_faults.bundle_swapped_for_another,
    ),
    Fault("manifest edited", "one field, in canonical form", "bundle", file_faults.manifest_edited),
    Fault(
        "files of two writings",
        "a newer writing's weights under the older one's digest",
        "bundle",
        file_faults.files_of_two_writings,
    ),
    Fault(
        "last epoch kept",
        "the best epoch's figures, the last epoch's weights",
        "reload",
        training_faults.last_epoch_kept,
    ),
    Fault(
        "labels shifted by a bar",
        "trained on the label of the bar after",
        "reload",
        training_faults.labels_shifted_by_a_bar,
    ),
    Fault("labels shuffled", "trained on labels of other rows", "accuracy", training_faults.labels_shuffled),
    Fault(
        "scaler of all rows",
        "fitted before the split, on the gate window too",
        "schema",
        training_faults.scaler_of_all_rows,
    ),
    Fault("purge missing", "labels look across the borders", "window", training_faults.purge_missing),
    Fault(
        "gate rows trained on",
        "the gate window lies in a longer history's training",
        "window",
        training_faults.gate_rows_trained_on,
    ),
    Fault(
        "gate window before training",
        "judged on the past of what it learned",
        "window",
        training_faults.gate_window_before_training,
    ),
    Fault(
        "noise learned by heart",
        "nothing to learn, and trained on the gate window too: 71 % of nothing",
        "window",
        training_faults.gate_window_learned_by_heart,
    ),
    Fault("too few rows", "right often, in 950 bars", "accuracy", training_faults.too_few_rows),
    Fault(
        "right by luck", "over 0.65 by less than chance explains", "accuracy", training_faults.right_by_luck
    ),
    Fault(
        "forty seeds on one window",
        "the best of forty, good enough for a first",
        "attempts",
        training_faults.forty_seeds_on_one_window,
    ),
    Fault(
        "too good to be true",
        "a column that was joined from tomorrow",
        "too_good",
        training_faults.too_good_to_be_true,
    ),
    Fault(
        "repeats the last move",
        "often right on a market that trends, and no use",
        "skill",
        training_faults.repeats_the_last_move,
    ),
    Fault(
        "worse than V5",
        "right often enough, and less than V5 on the same candles",
        "skill",
        training_faults.worse_than_v5,
    ),
    Fault(
        "future in a feature",
        "each bar is given the next one's return",
        "lookahead",
        training_faults.future_in_a_feature,
    ),
    Fault(
        "history revised",
        "a feature's older half was filled in from what came next",
        "lookahead",
        training_faults.history_revised,
    ),
    Fault(
        "candles drawn at random",
        "each price 0.8 to 1.2 times a level, 7,122 rows",
        "candles",
        candle_faults.train_on(candle_faults.random_levels),
    ),
    Fault(
        "candles shuffled",
        "the bars in another order",
        "candles",
        candle_faults.train_on(candle_faults.shuffled),
    ),
    Fault(
        "candles frozen",
        "the feed stood still for two days",
        "candles",
        candle_faults.train_on(candle_faults.frozen),
    ),
    Fault(
        "candles smoothed",
        "eight-bar means for closes",
        "candles",
        candle_faults.train_on(candle_faults.smoothed),
    ),
    Fault(
        "candles far too wild",
        "eight times the moves of a market",
        "candles",
        candle_faults.train_on(candle_faults.ten_times_as_wild),
    ),
    Fault(
        "candles of another interval",
        "hours stamped as 5 minutes",
        "candles",
        candle_faults.train_on(candle_faults.stamped_every_five_minutes),
    ),
    Fault(
        "candles with a volume made up",
        "drawn at random where the column was missing",
        "candles",
        candle_faults.train_on(candle_faults.volume_made_up),
    ),
    Fault(
        "simulated candles as real",
        "a market with a planted drift, uploaded",
        "candles",
        candle_faults.train_on(candle_faults.simulated_as_real),
    ),
    Fault("candles of another coin", "ETH's, under BTC's name", "candles", candle_faults.of_another_coin),
    Fault(
        "two coins with one series",
        "ETH's are these on another level",
        "candles",
        candle_faults.two_coins_one_series,
    ),
    Fault(
        "candles not of their generator",
        "said to be simulated, and made by something else",
        "candles",
        candle_faults.not_of_its_generator,
    ),
    Fault(
        "declared: a better loss",
        "0.05 less than it has on the stop window",
        "reload",
        declared_faults.declared(lambda said: said["stop"].update(loss=said["stop"]["loss"] - 0.05)),
    ),
    Fault(
        "declared: a better accuracy",
        "five points more than it has on the stop window",
        "reload",
        declared_faults.declared(lambda said: said["stop"].update(accuracy=said["stop"]["accuracy"] + 0.05)),
    ),
    Fault(
        "declared: fewer stop rows",
        "figures of rows that were chosen",
        "reload",
        declared_faults.declared(lambda said: said["stop"].update(rows=said["stop"]["rows"] - 100)),
    ),
    Fault(
        "declared: figures of its fit window",
        "they are better where it was fitted",
        "reload",
        declared_faults.fit_figures,
    ),
    Fault(
        "declared: figures of another loss",
        "smoothed and weighted, as its training minimised it",
        "reload",
        declared_faults.weighted_figures,
    ),
    Fault(
        "declared: figures of another model",
        "another seed's, which was not the one brought",
        "reload",
        declared_faults.figures_of_another_model,
    ),
    Fault(
        "declared: figures before a last change",
        "fitted on a little further after they were written down",
        "reload",
        declared_faults.changed_after_declaring,
    ),
    Fault(
        "declared: other cuts",
        "classes cut elsewhere than its candles are",
        "reload",
        declared_faults.declared(lambda said: said["labels"].update(cuts=[-0.1, 0.1])),
    ),
    Fault(
        "declared: classes in another order",
        "up first, as its own code reads it",
        "reload",
        declared_faults.classes_in_another_order,
    ),
    Fault(
        "declared: another horizon",
        "labels of four bars, by windows of eight",
        "window",
        declared_faults.declared(lambda said: said["labels"].update(horizon=4)),
    ),
    Fault(
        "declared: a longer horizon all through",
        "cuts and windows follow it, and it was trained for eight bars",
        "reload",
        declared_faults.declared_as(label=Label(horizon=16)),
    ),
    Fault(
        "declared: a fixed percentage",
        "trained on terciles; the cuts follow the percentage",
        "reload",
        declared_faults.declared_as(label=declared_faults.OF_PERCENT),
    ),
    Fault(
        "declared: barriers",
        "trained on terciles; the cuts follow the barriers",
        "reload",
        declared_faults.declared_as(label=declared_faults.OF_BARRIERS),
    ),
    Fault(
        "declared: a shifted window",
        "the fit window begins a day later",
        "window",
        declared_faults.declared(lambda said: said["windows"]["fit"].update(first_at="2021-01-31T00:00:00Z")),
    ),
    Fault(
        "declared: a longer fit window",
        "it reaches to where the gate window begins",
        "window",
        declared_faults.declared(
            lambda said: said["windows"]["fit"].update(last_at=said["windows"]["stop"]["last_at"])
        ),
    ),
    Fault(
        "declared: windows exchanged",
        "the gate window is where it was fitted",
        "window",
        declared_faults.declared(
            lambda said: said["windows"].update(fit=said["windows"]["gate"], gate=said["windows"]["fit"])
        ),
    ),
    Fault(
        "declared: other candles in a window",
        "its stop window holds other bars",
        "window",
        declared_faults.declared(lambda said: said["windows"]["stop"].update(digest="sha256:" + "0" * 64)),
    ),
    Fault(
        "declared: windows without a purge",
        "labels look across the borders",
        "window",
        declared_faults.windows_without_purge,
    ),
    Fault(
        "declared: another split",
        "60 % for the fit, with the windows of 70 %",
        "window",
        declared_faults.declared(lambda said: said["split"].update(fit_percent=60)),
    ),
    Fault(
        "declared: another split all through",
        "windows and cuts follow it, the figures do not",
        "reload",
        declared_faults.declared_as(shares=Shares(60, 25)),
    ),
    Fault(
        "declared: a swapped dataset",
        "another market, all entries as they are on it",
        "schema",
        declared_faults.another_market,
    ),
    Fault(
        "declared: a swapped dataset without a scaler",
        "another market, and the figures of its own",
        "reload",
        declared_faults.another_market_without_scaler,
    ),
    Fault(
        "declared: candles that nobody has",
        "nothing can be recomputed",
        "window",
        declared_faults.candles_not_at_hand,
    ),
    Fault(
        "declared: candles that did not pass",
        "the feed stood still for two days",
        "candles",
        declared_faults.candles_that_did_not_pass,
    ),
    Fault(
        "declared: no scaler, and scaled elsewhere",
        "its own code scales before the graph",
        "reload",
        declared_faults.scaled_elsewhere,
    ),
    Fault(
        "declared: a scaler that it lacks",
        "it needs none, and does not say so",
        "scaler",
        declared_faults.scaler_left_out,
    ),
    Fault(
        "declared: another schema",
        "raw72 for a network of relative72",
        "schema",
        declared_faults.another_schema,
    ),
    Fault(
        "declared: columns sorted by name",
        "before they reached the model, and no scaler to tell",
        "reload",
        declared_faults.sorted_columns,
    ),
    Fault(
        "declared: features of the next bar",
        "each row was given those of the bar after it",
        "reload",
        declared_faults.features_a_bar_later,
    ),
    Fault(
        "declared: reads ahead in its window",
        "trained on windows that end a horizon after their row",
        "reload",
        declared_faults.reads_ahead_in_its_window,
    ),
    Fault(
        "declared: reads the next row of its batch",
        "a graph of windows, answered from the one behind",
        "single_sample",
        declared_faults.reads_the_next_row_of_its_batch,
    ),
    Fault(
        "declared: memorised the gate rows",
        "a tree that learned them by heart; all its declaration is true",
        "window",
        declared_faults.memorised(lambda rows: rows.split.gate),
    ),
    Fault(
        "declared: memorised all after its fit window",
        "its stop figures too are by heart, and true",
        "window",
        declared_faults.memorised(lambda rows: slice(rows.split.stop.start, rows.split.gate.stop)),
    ),
    Fault(
        "declared: memorised its stop rows",
        "fine figures that are true, and fresh candles",
        "accuracy",
        declared_faults.memorised(lambda rows: rows.split.stop, is_fresh=True),
    ),
    Fault(
        "declared: memorised a simulated market",
        "one that was made before it came",
        "window",
        declared_faults.memorised_simulated_market,
    ),
    Fault(
        "declared: NaN that no row reaches",
        "in a leaf of a tree: every answer is finite",
        "finite_weights",
        declared_faults.not_a_number_that_no_row_reaches,
    ),
    Fault(
        "declared: the fortieth on one window",
        "good enough for a first",
        "attempts",
        declared_faults.forty_models_on_one_window,
    ),
    Fault(
        "own recipe: logits far from zero",
        "all 30 too high: no probability shows it",
        "logit_range",
        recipe_faults.logits_far_from_zero,
    ),
    Fault(
        "own recipe: reads the next row of its batch",
        "a batch is answered from the rows behind; the worker's figures are of single rows",
        "single_sample",
        recipe_faults.reads_the_next_row_of_its_batch,
    ),
    Fault(
        "own recipe: memorised its stop rows",
        "which it is given for early stopping: fine figures, and all are true",
        "accuracy",
        recipe_faults.memorised_its_stop_rows,
    ),
    Fault(
        "own recipe: NaN that no row reaches",
        "in a leaf of a tree: every answer is finite",
        "finite_weights",
        recipe_faults.not_a_number_that_no_row_reaches,
    ),
)
