"""Figures as a trader reads them."""


def percent(share: float, *, beside: float | None = None) -> str:
    """ "52.5 %"; with as many digits as it takes to tell it from the threshold it stands `beside`."""
    for digits in (1, 2, 3, 4):
        text = f"{100 * share:.{digits}f}"
        if beside is None or share == beside or float(text) != round(100 * beside, 6):
            break
    return f"{text} %"


def limit(share: float) -> str:
    """A threshold, without needless digits: "80 %"."""
    return f"{100 * share:.6g} %"


def signed(value: float) -> str:
    """ "−12,527" or "+9.30": a logit with its sign, no longer than it need be."""
    sign = "+" if value > 0 else "−" if value < 0 else ""
    size = abs(value)
    if size >= 1e9:
        return f"{sign}{size:.3g}"
    if size >= 1000:
        return f"{sign}{size:,.0f}"
    return f"{sign}{size:.6g}" if size == int(size) else f"{sign}{size:.2f}"


def listed(names: list[str], *, at_most: int = 3) -> str:
    """ "a, b, c and 4 more", each name cut so that the whole stays short."""
    shown = ", ".join(name[:40] for name in names[:at_most])
    return f"{shown} and {len(names) - at_most} more" if len(names) > at_most else shown


def points(difference: float) -> str:
    """ "+2.0" or "−0.4": percentage points between two shares, with their sign."""
    text = size(difference)
    sign = "" if float(text) == 0 else "+" if difference > 0 else "−"
    return f"{sign}{text}"


def size(difference: float) -> str:
    """ "2.0": percentage points without their sign."""
    return f"{100 * abs(difference):.1f}"
