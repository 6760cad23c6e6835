"""Figures, times and names as text, for pages, commands and messages alike."""

from collections.abc import Sequence
from decimal import Decimal

_AGE_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))
_STATE_LABELS = {"pin": "pinned", "moving": "following"}


def format_percent(share: float, *, beside: float | None = None) -> str:
    """ "52.5 %"; with as many digits as it takes to tell the share from the threshold `beside`."""
    for digits in (1, 2, 3, 4):
        text = f"{100 * share:.{digits}f}"
        if beside is None or share == beside or float(text) != round(100 * beside, 6):
            break
    return f"{text} %"


def format_limit(share: float) -> str:
    """ "80 %": a threshold without unnecessary digits."""
    return f"{100 * share:.6g} %"


def format_signed(value: float) -> str:
    """ "−12,527" or "+9.30": a logit with its sign, in as few digits as possible."""
    sign = "+" if value > 0 else "−" if value < 0 else ""
    size = abs(value)
    if size >= 1e9:
        return f"{sign}{size:.3g}"
    if size >= 1000:
        return f"{sign}{size:,.0f}"
    return f"{sign}{size:.6g}" if size == int(size) else f"{sign}{size:.2f}"


def format_points(difference: float) -> str:
    """ "+2.0" or "−0.4": percentage points between two shares, with their sign."""
    text = format_gap(difference)
    sign = "" if float(text) == 0 else "+" if difference > 0 else "−"
    return f"{sign}{text}"


def format_gap(difference: float) -> str:
    """ "2.0": percentage points without their sign."""
    return f"{100 * abs(difference):.1f}"


def format_number(value: float, digits: int = 4) -> str:
    return f"{value:,.{digits}f}"


def format_count(count: float) -> str:
    return f"{count:,.0f}"


def format_parameter(value: object) -> str:
    """ "0.001", "64" or "true": a parameter as a person writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def format_gibibytes(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"


def format_usd(amount: Decimal | float) -> str:
    """ "$1.50", or "$0.0012" for a small amount."""
    value = Decimal(amount)
    return f"${value:,.4f}" if 0 < value < Decimal("0.1") else f"${value:,.2f}"


def format_exact_usd(amount: Decimal) -> str:
    """ "$1.50" or "$0.000001": two decimals, and more only when they are not zero."""
    whole, _, decimals = f"{amount:f}".partition(".")
    return f"${whole}.{decimals.rstrip('0').ljust(2, '0')}"


def format_duration(seconds: float) -> str:
    """ "1 h 4 min", "6 min 12 s", "12 s" or "0.4 s"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min")] if hours else [(minutes, "min"), (rest, "s")]
    return " ".join(f"{count:,} {unit}" for count, unit in parts if count)


def format_age(seconds: float) -> str:
    """ "38 minutes ago"."""
    if seconds < 1:
        return "just now"
    size, unit = next((size, unit) for size, unit in _AGE_UNITS if seconds >= size)
    count = int(seconds // size)
    return f"{count} {unit}{'' if count == 1 else 's'} ago"


def format_state(state: object) -> str:
    """ "awaiting approval": the name of a state in words."""
    return _STATE_LABELS.get(str(state), str(state).replace("_", " "))


def format_action(kind: str) -> str:
    """ "approve refused" for the audit event "release.approve.refused"; the object is known from the context."""
    return format_state(kind.partition(".")[2].replace(".", " "))


def format_list(names: list[str], *, at_most: int = 3) -> str:
    """ "a, b, c and 4 more", each name cut to 40 characters."""
    shown = ", ".join(name[:40] for name in names[:at_most])
    return f"{shown} and {len(names) - at_most} more" if len(names) > at_most else shown


def align_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """A line for each row, with the cells of each column below one another."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def shorten_digest(digest: str) -> str:
    """The first twelve digits, enough to tell digests apart."""
    return digest.removeprefix("sha256:")[:12]
