"""A gate's figure in a few characters, and the meter a page draws beside the verdict. It decides nothing."""

from dataclasses import dataclass

Range = tuple[float, float]


@dataclass(frozen=True)
class Meter:
    """A scale of 0…100: the allowed band, the measured marks, and the interval or spread around them."""

    band: Range
    marks: tuple[float, ...]
    span: Range | None = None

    @property
    def band_width(self) -> float:
        return self.band[1] - self.band[0]

    @property
    def span_width(self) -> float:
        return self.span[1] - self.span[0] if self.span else 0.0


@dataclass(frozen=True)
class Reading:
    """A gate's figures where there is room for a few characters only."""

    brief: str
    detail: str = ""
    meter: Meter | None = None


def scale(value: float, bottom: float, top: float) -> float:
    """Where a value lies on a scale of 0…100 from `bottom` to `top`; at the end where it lies beyond."""
    return max(0.0, min(100.0, 100 * (value - bottom) / (top - bottom)))
