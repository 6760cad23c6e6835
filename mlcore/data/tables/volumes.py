"""Which column is the volume of the coin: by its name, and by what its figures are to the prices."""

import math
from collections.abc import Mapping, Sequence

from mlcore.data.tables.names import QUOTES, VOLUMES, find_asset, find_one, is_amount, is_volume
from mlcore.errors import CandlesRefused

LEVEL = 0.01
"""By how much money may differ from volume times price, as a share: both are rounded."""
_FEWEST_TRADED, _FEWEST_MOVES = 5, 10
"""Rows in which something was traded. Fewer prove nothing, and a factor takes more to prove."""

_DOLLARS_A_CONTRACT = (1.0, 10.0, 100.0)
"""Of inverse contracts, as on BitMEX, Bybit and Binance: their volume is money."""
_COINS_A_CONTRACT = (1e-4, 1e-3, 1e-2, 0.1, 10.0, 100.0, 1000.0)

Samples = Sequence[Mapping[int, object]]
"""A few rows, {position: value}."""
Figures = Sequence[float]


def find_volume(
    known: Sequence[str], names: Sequence[str], samples: Samples, symbol: int | None, notes: list[str]
) -> int | None:
    """The position of the volume by its name. `symbol` is that of the coin's name. Raises CandlesRefused."""
    volumes = [name if is_volume(names[at], name) else "" for at, name in enumerate(known)]
    if (at := find_one(volumes, names, VOLUMES)) is not None:
        return at
    of = {at: asset for at, name in enumerate(names) if (asset := find_asset(name))}
    if not of:
        return None
    traded = str(samples[0].get(symbol, "")).strip().lower() if samples and symbol is not None else ""
    candidates = [at for at, asset in of.items() if traded.startswith(asset)] or [
        at for at, asset in of.items() if asset not in QUOTES
    ]
    listed = ", ".join(names[at].strip() for at in of)
    if not candidates:
        raise CandlesRefused(f"{listed} counts money, not coins; export the volume of the coin")
    if len(candidates) != 1:
        raise CandlesRefused(f"cannot tell which volume is the coin's: {listed}; name that column volume")
    notes.append(f"volume taken from {names[candidates[0]].strip()}")
    return candidates[0]


def prove_volume(
    chosen: Mapping[str, int],
    known: Sequence[str],
    names: Sequence[str],
    samples: Samples,
    notes: list[str],
) -> int:
    """The position of the volume in coins, where the figures of other columns tell that another one is it.

    Exchanges call money or contracts `volume` too. Money is volume times price, so its share of the volume lies between
    low and high wherever something was traded. Raises CandlesRefused where the volume is money, and no column is coins.
    """
    at = chosen["volume"]
    others = [
        other
        for other, name in enumerate(known)
        if other not in chosen.values() and (is_amount(name) or find_asset(names[other]))
    ]
    needed = (chosen["low"], chosen["high"], at)
    traded = [row for row in samples if all((read_figure(row.get(column)) or 0) > 0 for column in needed)]
    if len(traded) < _FEWEST_TRADED or not others:
        return at
    low, high, volume = (_list_figures(traded, column) for column in needed)
    amounts = {column: _list_figures(traded, column) for column in others}
    amounts = {column: each for column, each in amounts.items() if min(each) > 0 and len(set(each)) > 1}
    if any(is_money(money, volume, low, high) for money in amounts.values()):
        return at
    coins = [
        column
        for column, figures in amounts.items()
        if any(is_money(_scale(volume, size), figures, low, high) for size in _DOLLARS_A_CONTRACT)
    ]
    coins = coins or [
        column
        for column, figures in amounts.items()
        if _are_proportional(volume, figures)
        and any(is_money(money, figures, low, high) for money in amounts.values())
    ]
    if len(coins) == 1:
        taken, other = names[coins[0]].strip()[:40], names[at].strip()[:40]
        notes.append(f"volume taken from {taken}, as its figures show: {other} counts money or contracts")
        return coins[0]
    others = coins or [
        column for column, figures in amounts.items() if _follows_price(volume, figures, low, high)
    ]
    others = others or [
        column
        for column, figures in amounts.items()
        if any(is_money(figures, _scale(volume, size), low, high) for size in _COINS_A_CONTRACT)
    ]
    if others:
        listed = ", ".join(names[column].strip()[:40] for column in others)
        raise CandlesRefused(
            f"{names[at].strip()[:40]} counts money or contracts, not coins, as the figures of {listed} show: write the"
            " volume in coins, and leave those columns out"
        )
    return at


def _list_figures(rows: Samples, column: int) -> list[float]:
    return [read_figure(row.get(column)) or 0.0 for row in rows]


def is_money(money: Figures, volume: Figures, low: Figures, high: Figures) -> bool:
    """Whether it is volume times price in each of these rows, in which something was traded."""
    return all(
        bottom * (1 - LEVEL) <= paid / traded <= top * (1 + LEVEL)
        for paid, traded, bottom, top in zip(money, volume, low, high, strict=True)
    )


def _scale(figures: Figures, factor: float) -> list[float]:
    return [figure * factor for figure in figures]


def _are_proportional(first: Figures, second: Figures) -> bool:
    shares = [one / other for one, other in zip(first, second, strict=True)]
    return max(shares) <= min(shares) * (1 + LEVEL)


def _follows_price(money: Figures, volume: Figures, low: Figures, high: Figures) -> bool:
    """Whether money is volume times price times one factor, in bars that no single price is in."""
    least = max(paid / traded / top for paid, traded, top in zip(money, volume, high, strict=True))
    most = min(paid / traded / bottom for paid, traded, bottom in zip(money, volume, low, strict=True))
    return (
        len(low) >= _FEWEST_MOVES and least <= most * (1 + LEVEL / 10) and max(low) > min(high) * (1 + LEVEL)
    )


def read_figure(value: object) -> float | None:
    """A number, also with a decimal comma; None for anything else."""
    text = str(value).strip()
    try:
        number = float(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
