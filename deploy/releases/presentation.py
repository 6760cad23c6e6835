"""A release as text, for a terminal."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from deploy.models import Release, ReleaseCoin
from deploy.outcomes import list_release_coins
from deploy.rules import ReleaseState
from training.rules import JobState
from training.services.lines import show_recipe

_SIGNS = {"passed": "✓", "failed": "✗"}
"""Of the verdicts that a figure explains; *inconclusive* and *error* are written out."""


def describe_terms(release: Release, release_coins: Sequence[ReleaseCoin]) -> str:
    """What its models see and predict: as measured, and before that as its settings ask for."""
    labels = [row.diagnosis.document.get("label") for row in release_coins if row.diagnosis is not None]
    measured = dict.fromkeys(
        f"{label.get('text')}, from {label.get('input')}"
        for label in labels
        if isinstance(label, Mapping) and isinstance(label.get("text"), str)
    )
    if measured:
        return "; ".join(measured)
    recipe = show_recipe(release.line, release.parameters)
    return "" if recipe is None else f"{recipe.label.text}, from {recipe.schema}"


def format_gate_table(coins: Sequence[Mapping[str, Any]], *, width: int = 100) -> str:
    """Gates down, coins across, from the coins of a release as the API serializes them; lines of about `width` letters.

    Each cell has the verdict and the observed figure. An advisory gate says so beside its name.
    """
    by_coin = {coin["coin"]: {result["gate"]: result for result in coin["gates"]} for coin in coins}
    first = {gate: result for results in reversed(by_coin.values()) for gate, result in results.items()}
    gates = list(dict.fromkeys(gate for results in by_coin.values() for gate in results))
    if not gates:
        return ""
    rows = [["gate", *by_coin, "passes when"]]
    for gate in gates:
        name = gate if first[gate]["is_required"] else f"{gate} (advisory)"
        cells = [_format_result(results.get(gate)) for results in by_coin.values()]
        rows.append([name, *cells, first[gate]["threshold"]])
    names = max(len(word) for row in rows for word in row[0].split())
    other = max(14, (width - names) // (len(coins) + 1) - 2)
    widths = [names, *[other] * (len(coins) + 1)]
    return "\n".join(line for row in rows for line in _wrap_row(row, widths))


def _wrap_row(row: list[str], widths: list[int]) -> list[str]:
    """The lines of one row."""
    cells = [textwrap.wrap(text, size) or [""] for text, size in zip(row, widths, strict=True)]
    return [
        "  ".join(text.ljust(size) for text, size in zip(line, widths, strict=True)).rstrip()
        for line in zip_longest(*cells, fillvalue="")
    ]


def _format_result(result: dict[str, Any] | None) -> str:
    if result is None:
        return "—"
    return f"{_SIGNS.get(result['verdict'], result['verdict'] + ':')} {result['observed']}"


def format_progress(release: Release) -> str:
    """The progress of each coin, on one line."""
    return f"release {release.pk} ({release.line}): " + ", ".join(
        f"{p.coin.symbol} {_format_progress(p, release.state)}" for p in list_release_coins(release)
    )


def _format_progress(release_coin: ReleaseCoin, state: str) -> str:
    if release_coin.diagnosis is not None:
        return f"judged: {release_coin.diagnosis.verdict}"
    if state != ReleaseState.BUILDING:
        return "not measured"
    if release_coin.bundle is not None:
        return "being measured"
    if release_coin.run is None:
        return "about to start"
    if release_coin.run.state != JobState.RUNNING:
        return release_coin.run.state
    return f"epoch {release_coin.run.epoch_rows.count()}/{release_coin.run.epochs}"
