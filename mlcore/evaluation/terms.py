"""Terms that stability and drift are both measured and judged in."""

TERCILES = ("calm", "usual", "wild")
"""Of the gate window's bars, by volatility."""

DRIFTED = 0.25
"""A population stability index above this is commonly read as another distribution (Siddiqi 2006)."""
