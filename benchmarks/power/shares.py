"""A share of trials with what is known about it: the exact (Clopper–Pearson) 95 % interval."""

from dataclasses import dataclass

_TAIL = 0.025


@dataclass(frozen=True)
class Share:
    hits: int
    trials: int
    """At least 1."""

    @property
    def share(self) -> float:
        return self.hits / self.trials

    @property
    def interval(self) -> tuple[float, float]:
        """Covers the true share in at least 95 of 100 such experiments (Clopper and Pearson 1934)."""
        from scipy.stats import beta  # type: ignore[import-untyped]

        misses = self.trials - self.hits
        lower = float(beta.ppf(_TAIL, self.hits, misses + 1)) if self.hits else 0.0
        upper = float(beta.ppf(1 - _TAIL, self.hits + 1, misses)) if misses else 1.0
        return lower, upper

    def __str__(self) -> str:
        lower, upper = self.interval
        return f"{self.share:.1%} of {self.trials:,} ({lower:.1%} – {upper:.1%})"
