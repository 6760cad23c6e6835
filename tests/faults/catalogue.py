"""The faults: what is broken, how it is planted, and which gate must catch it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mlcore.bundle.format import MANIFEST_FILE, MODEL_FILE, SCALER_FILE, WEIGHTS_FILE
from tests.faults import broken_bytes as bytes_
from tests.faults import broken_candles as candles_
from tests.faults import broken_training as training
from tests.faults.workshop import Case, Workshop


@dataclass(frozen=True)
class Fault:
    """One way to break a good bundle or its data, planted for real."""

    name: str
    """Unique; the five failures of V6 begin with "v6: "."""
    breaks: str
    """What is wrong, and why it matters."""
    gate: str
    """The gate that must catch it, whoever else does."""
    plant: Callable[[Workshop], Case]


FAULTS = (
    Fault(
        "v6: certain of everything",
        "the temperature is lost: right as often, and sure of nearly every answer",
        "confidence",
        bytes_.temperature_lost,
    ),
    Fault("v6: always Down", "one direction's bias drowns the others", "class_balance", bytes_.always_down),
    Fault("v6: logits explode", "logits in the thousands", "logit_range", bytes_.logits_explode),
    Fault("v6: scaler not saved", "the network is fed unscaled features", "scaler", bytes_.scaler_missing),
    Fault(
        "v6: a single row crashes",
        "the graph fails on a batch of one, as the bot asks",
        "single_sample",
        bytes_.a_single_row_crashes,
    ),
    Fault(
        "batch norm skipped for one row",
        "one row alone is answered otherwise than in a batch",
        "single_sample",
        bytes_.batch_norm_skipped_for_one_row,
    ),
    Fault(
        "logits far from zero",
        "all logits 30 too high: no probability shows it",
        "logit_range",
        bytes_.logits_far_from_zero,
    ),
    Fault(
        "leans Down",
        "a little too often Down, and right most of the time",
        "class_balance",
        bytes_.leans_down,
    ),
    Fault("constant", "the same answer to everything", "class_balance", bytes_.constant),
    Fault(
        "ups and downs exchanged",
        "classes in another order than the bot reads them",
        "accuracy",
        bytes_.ups_and_downs_exchanged,
    ),
    Fault("a layer lost", "fc2 as it was before training", "accuracy", bytes_.a_layer_lost),
    Fault(
        "batch norm forgotten",
        "running means and variances as before training",
        "accuracy",
        bytes_.batch_norm_forgotten,
    ),
    Fault("NaN in a weight", "one of 18,432", "finite_weights", bytes_.not_a_number_in("fc1.weight")),
    Fault(
        "NaN in a batch norm buffer",
        "one running mean",
        "finite_weights",
        bytes_.not_a_number_in("bn2.running_mean"),
    ),
    Fault(
        "infinite logits",
        "one bias overflowed",
        "finite_weights",
        bytes_.not_a_number_in("fc4.bias", np.inf),
    ),
    Fault(
        "infinite variance",
        "a running variance overflowed: one channel is silent, every answer finite",
        "finite_weights",
        bytes_.infinite_variance,
    ),
    Fault("NaN in the scaler", "one mean is none", "scaler", bytes_.not_a_number_in_the_scaler),
    Fault("a scale of zero", "one feature divided by nothing", "scaler", bytes_.scale_of_zero),
    Fault(
        "scaler of another coin",
        "in the graph and beside it",
        "schema",
        bytes_.scaler_of_another_coin,
    ),
    Fault(
        "scaler file of another coin",
        "the graph scales by its own",
        "scaler",
        bytes_.scaler_file_of_another_coin,
    ),
    Fault("scaler applied twice", "two scalings in the graph", "scaler", bytes_.scaler_applied_twice),
    Fault(
        "imported without a scaler",
        "a checkpoint from outside that holds none",
        "scaler",
        bytes_.imported_without_scaler,
    ),
    Fault(
        "model of another coin",
        "ETH's, under a manifest that says BTC",
        "schema",
        bytes_.model_of_another_coin,
    ),
    Fault("scaler file rounded", "the graph scales by more digits", "scaler", bytes_.scaler_file_rounded),
    Fault(
        "scaler folded in twice",
        "in the graph, and again in the first layer",
        "accuracy",
        bytes_.scaler_folded_in_twice,
    ),
    Fault(
        "scaler folded away",
        "in the first layer only: nobody can see which scaler it is",
        "scaler",
        bytes_.scaler_folded_away,
    ),
    Fault(
        "features in alphabetical order",
        "network and scaler expect columns sorted by name",
        "schema",
        bytes_.features_in_alphabetical_order,
    ),
    Fault(
        "scaler's names in another order",
        "the figures stand in the right one",
        "scaler",
        bytes_.scaler_names_in_another_order,
    ),
    Fault(
        "digest of another schema",
        "its features mean something else than the bot's",
        "schema",
        bytes_.another_schema_digest,
    ),
    Fault(
        "graph of other weights",
        "the graph that serves is not of the weights file",
        "reload",
        bytes_.graph_of_other_weights,
    ),
    Fault("truncated graph", "half of model.onnx", "bundle", bytes_.truncated(MODEL_FILE)),
    Fault("truncated weights", "half of weights.safetensors", "bundle", bytes_.truncated(WEIGHTS_FILE)),
    Fault("truncated scaler", "half of scaler.json", "bundle", bytes_.truncated(SCALER_FILE)),
    Fault("truncated manifest", "half of manifest.json", "bundle", bytes_.truncated(MANIFEST_FILE)),
    Fault("a bit turned", "the lowest bit of one weight", "bundle", bytes_.one_bit_turned),
    Fault("a file missing", "no weights file", "bundle", bytes_.a_file_missing),
    Fault("graph swapped", "another seed's model.onnx", "bundle", bytes_.graph_swapped_for_another_seeds),
    Fault(
        "bundle swapped",
        "another bundle, sound in itself, under this one's digest",
        "bundle",
        bytes_.bundle_swapped_for_another,
    ),
    Fault("manifest edited", "one field, in canonical form", "bundle", bytes_.manifest_edited),
    Fault(
        "files of two writings",
        "a newer writing's weights under the older one's digest",
        "bundle",
        bytes_.files_of_two_writings,
    ),
    Fault(
        "last epoch kept",
        "the best epoch's figures, the last epoch's weights",
        "reload",
        training.last_epoch_kept,
    ),
    Fault(
        "labels shifted by a bar",
        "trained on the label of the bar after",
        "reload",
        training.labels_shifted_by_a_bar,
    ),
    Fault("labels shuffled", "trained on labels of other rows", "accuracy", training.labels_shuffled),
    Fault(
        "scaler of all rows",
        "fitted before the split, on the gate window too",
        "schema",
        training.scaler_of_all_rows,
    ),
    Fault("purge missing", "labels look across the borders", "window", training.purge_missing),
    Fault(
        "gate rows trained on",
        "the gate window lies in a longer history's training",
        "window",
        training.gate_rows_trained_on,
    ),
    Fault(
        "gate window before training",
        "judged on the past of what it learned",
        "window",
        training.gate_window_before_training,
    ),
    Fault(
        "noise learned by heart",
        "nothing to learn, and trained on the gate window too: 71 % of nothing",
        "window",
        training.gate_window_learned_by_heart,
    ),
    Fault("too few rows", "right often, in 950 bars", "accuracy", training.too_few_rows),
    Fault("right by luck", "over 0.65 by less than chance explains", "accuracy", training.right_by_luck),
    Fault(
        "forty seeds on one window",
        "the best of forty, good enough for a first",
        "attempts",
        training.forty_seeds_on_one_window,
    ),
    Fault(
        "too good to be true",
        "a column that was joined from tomorrow",
        "too_good",
        training.too_good_to_be_true,
    ),
    Fault(
        "repeats the last move",
        "often right on a market that trends, and no use",
        "skill",
        training.repeats_the_last_move,
    ),
    Fault(
        "worse than the fallback",
        "right often enough, and less than V5",
        "skill",
        training.worse_than_the_fallback,
    ),
    Fault(
        "future in a feature",
        "each bar is given the next one's return",
        "lookahead",
        training.future_in_a_feature,
    ),
    Fault(
        "history revised",
        "a feature's older half was filled in from what came next",
        "lookahead",
        training.history_revised,
    ),
    Fault(
        "candles drawn at random",
        "each price 0.8 to 1.2 times a level, 7,122 rows",
        "candles",
        candles_.trained_on(candles_.random_levels),
    ),
    Fault("candles shuffled", "the bars in another order", "candles", candles_.trained_on(candles_.shuffled)),
    Fault(
        "candles frozen", "the feed stood still for two days", "candles", candles_.trained_on(candles_.frozen)
    ),
    Fault(
        "candles smoothed", "eight-bar means for closes", "candles", candles_.trained_on(candles_.smoothed)
    ),
    Fault(
        "candles far too wild",
        "eight times the moves of a market",
        "candles",
        candles_.trained_on(candles_.ten_times_as_wild),
    ),
    Fault(
        "candles of another interval",
        "hours stamped as 5 minutes",
        "candles",
        candles_.trained_on(candles_.stamped_every_five_minutes),
    ),
    Fault(
        "candles with a volume made up",
        "drawn at random where the column was missing",
        "candles",
        candles_.trained_on(candles_.volume_made_up),
    ),
    Fault(
        "simulated candles as real",
        "a market with a planted drift, uploaded",
        "candles",
        candles_.trained_on(candles_.simulated_as_real),
    ),
    Fault("candles of another coin", "ETH's, under BTC's name", "candles", candles_.of_another_coin),
    Fault(
        "two coins with one series",
        "ETH's are these on another level",
        "candles",
        candles_.two_coins_one_series,
    ),
    Fault(
        "candles not of their generator",
        "said to be simulated, and made by something else",
        "candles",
        candles_.not_of_its_generator,
    ),
)
