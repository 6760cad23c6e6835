"""The errors that mlcore raises. Every message says what is wrong and what to do about it."""


class MlcoreError(ValueError):
    """The base class of all of them."""


class CandlesRefused(MlcoreError):
    """A candle file, or a frame of candles, that is not valid.

    `row` is the 1-based data row in the file, without the header. It is None if the whole file is meant. `line` is the
    line of the file that holds it, as an editor counts; None where the file has no lines.
    """

    def __init__(
        self, reason: str, *, source: str = "the candles", row: int | None = None, line: int | None = None
    ) -> None:
        self.reason = reason
        self.source = source
        self.row = row
        self.line = line
        where = source if row is None else f"{source}, row {row:,}"
        if line is not None:
            where += f" (line {line:,} of the file)"
        super().__init__(f"{where}: {reason}")


class NotEnoughBars(MlcoreError):
    """Fewer bars than a feature schema, a label or a split needs."""


class FeaturesRefused(MlcoreError):
    """A row of features that is not finite. Missing values are never filled in."""


class BundleRefused(MlcoreError):
    """Files that do not match their manifest, or that cannot be run."""


class NotFinite(BundleRefused):
    """A model whose logits are NaN or infinite."""


class ImportRefused(MlcoreError):
    """A model file from outside that cannot become a bundle without guessing."""


class InvalidParameter(MlcoreError):
    """A recipe's parameter out of its bounds; `name` says which."""

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        super().__init__(f"{name}: {reason}")


MAX_SEED = 2**63 - 1


class ResumeRefused(MlcoreError):
    """A checkpoint that belongs to another fit, or that is damaged."""


def check_bounds(name: str, value: float, least: float, greatest: float) -> None:
    """Raises InvalidParameter unless least ≤ value ≤ greatest; NaN is refused too."""
    if not least <= value <= greatest:
        try:
            shown = f"{value:g}"
        except OverflowError:  # a whole number of hundreds of digits
            shown = "it"
        raise InvalidParameter(
            name, f"{shown} is out of bounds; choose a value from {least:g} to {greatest:g}"
        )
