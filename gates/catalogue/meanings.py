"""What each threshold of a policy means, for who sets it."""

from collections.abc import Mapping

MEANINGS: Mapping[tuple[str, str], str] = {
    ("single_sample", "rows"): "How many single rows must have been compared with the batch.",
    ("confidence", "level"): "A prediction above this probability counts as nearly certain.",
    ("confidence", "share_below"): "Less than this share of predictions may be nearly certain.",
    ("class_balance", "least"): "Each direction must be said at least this often.",
    ("class_balance", "most"): "No direction may be said more often than this.",
    ("logit_range", "least"): "No logit may lie below this.",
    ("logit_range", "greatest"): "No logit may lie above this.",
    ("accuracy", "above"): "The share of bars it must be right in; a third is chance.",
    ("accuracy", "judged_by"): "The lower end of the 95 % interval, or the bare figure.",
    ("accuracy", "least_rows"): "With fewer bars than this nobody can tell.",
    (
        "accuracy",
        "least_block_bars",
    ): "How long the bootstrap's blocks must be: labels overlap, regimes last.",
    ("lookahead", "rows"): "How many rows must have been computed anew without their future.",
    ("reload", "loss"): "How far the stored bytes' loss may lie from the one that training reported.",
    ("reload", "accuracy"): "How far their accuracy may; one row is always allowed to tip over.",
    (
        "skill",
        "above_naive",
    ): "By how much the interval must clear every forecaster that needs no model: 0.01 is a point.",
    ("skill", "above_v5"): "By how much it must clear v5 on the same bars; −0.02 lets it lose two points.",
    ("skill", "least_block_bars"): "How long the bootstrap's blocks must be: labels overlap, regimes last.",
    ("too_good", "above"): "Right more often than this is a leak until somebody shows otherwise.",
    (
        "attempts",
        "above",
    ): "What the interval must clear after it was widened for every attempt on one window.",
    (
        "calibration",
        "ece",
    ): "How far its certainty may lie from how often it is right, on average: 0.01 is a point.",
    (
        "calibration",
        "brier",
    ): "The mean squared error of its probabilities, 0 … 2; ⅔ is what a third each would get.",
    (
        "stability",
        "falls_by",
    ): "How far a month or a third of the bars may fall below the whole: 0.01 is a point.",
    ("stability", "least_rows"): "Months with fewer bars are not looked at.",
    ("latency", "p99_ms"): "Within how many milliseconds 99 of 100 single rows must be answered.",
    ("drift", "share"): "The share of features that may have moved notably (PSI above 0.25).",
    ("drift", "psi"): "No feature's PSI may be above this.",
    ("live logit_range", "least"): "No logit may lie below this.",
    ("live logit_range", "greatest"): "No logit may lie above this.",
    ("live logit_range", "predictions"): "With fewer predictions of a bot nobody can tell.",
    ("live confidence", "level"): "A prediction above this probability counts as nearly certain.",
    ("live confidence", "share_below"): "Less than this share of predictions may be nearly certain.",
    ("live confidence", "predictions"): "With fewer predictions of a bot nobody can tell.",
    ("live class_balance", "least"): "Each direction must be said at least this often.",
    ("live class_balance", "most"): "No direction may be said more often than this.",
    (
        "live class_balance",
        "predictions",
    ): "A healthy model's shares wander: over fewer predictions they say nothing.",
    (
        "live feature_range",
        "share_below",
    ): "Less than this share of features may lie outside what training saw.",
    ("live feature_range", "predictions"): "With fewer predictions of a bot nobody can tell.",
}


def meaning(gate: str, parameter: str) -> str:
    """Empty for a threshold that nobody has described. A live gate is named `live confidence`."""
    return MEANINGS.get((gate, parameter), "")
