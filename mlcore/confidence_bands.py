"""The bands of confidence that predictions are counted in, by bots and by gates alike."""

from bisect import bisect_right

EDGES = tuple(round(0.3 + 0.02 * step, 2) for step in range(36))
"""Of the probability of the predicted class: 0.30, 0.32 … 1.00, as in the histogram of a measurement."""
BANDS = len(EDGES) - 1


def find_band(probability: float) -> int:
    """The index of the band. An edge belongs to the band above it; 1 belongs to the last band."""
    return min(max(bisect_right(EDGES, probability) - 1, 0), BANDS - 1)
