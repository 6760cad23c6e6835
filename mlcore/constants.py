"""Names and sizes that training, measuring, gates and pages share. Imports nothing, so every module may import it."""

CLASSES = ("down", "neutral", "up")
"""The three classes, in the order of labels 0, 1, 2 and of a network's logits."""

N_FEATURES = 72
HIDDEN_WIDTHS = (256, 128, 64)
LAYER_WIDTHS = (N_FEATURES, *HIDDEN_WIDTHS, len(CLASSES))
"""The perceptron unless a recipe says otherwise: input, three hidden layers, logits."""

NAIVE_FORECASTERS = ("majority", "last_move", "reversal")
"""Always the most common class; the class of the last move; the class of the last move, reversed."""

ONE_WAY_FORECASTERS = ("all_down", "all_up")
"""A model's own calls of neutral, with each move that it calls named down, or up: what they are worth without direction."""

VOLATILITY_TERCILES = ("calm", "usual", "wild")
"""The bars of the gate window, by volatility."""

PSI_DRIFTED = 0.25
"""A population stability index above this is commonly read as another distribution (Siddiqi 2006)."""
