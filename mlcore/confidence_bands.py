"""Into which bands of certainty predictions are counted: by the bot while it predicts, and by who judges that."""

from bisect import bisect_right

EDGES = tuple(round(0.3 + 0.02 * step, 2) for step in range(36))
"""Of the probability of the class said: 0.30, 0.32 … 1.00, as in the histogram of a measurement."""
BANDS = len(EDGES) - 1


def find_band(probability: float) -> int:
    """The band that a probability falls into; an edge belongs to the band above it, 1 to the last."""
    return min(max(bisect_right(EDGES, probability) - 1, 0), BANDS - 1)
