"""A release as a terminal or a program reads it."""

import textwrap
from itertools import zip_longest
from typing import Any

from deploy.models import Release, ReleaseCoin
from deploy.outcomes import list_release_coins
from training.rules import JobState

_MARKS = {"passed": "✓", "failed": "✗"}
"""Of the verdicts that a figure explains; *inconclusive* and *error* are said in words."""


def summary(release: Release) -> dict[str, Any]:
    """How a release stands, with every gate of every coin."""
    return {
        "release": release.pk,
        "line": release.line,
        "purpose": release.purpose,
        "state": release.state,
        "reason": release.status.reason,
        "launched_by": release.launched_by,
        "policy": release.policy.number,
        "simulated": release.is_simulated,
        "spent_usd": str(release.budget.spent_usd),
        "coins": {
            release_coin.coin.symbol: _coin(release_coin) for release_coin in list_release_coins(release)
        },
    }


def _coin(release_coin: ReleaseCoin) -> dict[str, Any]:
    return {
        "run": release_coin.run_id,
        "bundle": release_coin.bundle.digest if release_coin.bundle else None,
        "diagnosis": release_coin.diagnosis_id,
        "verdict": release_coin.diagnosis.verdict if release_coin.diagnosis else None,
        "gates": {
            result.gate: {
                "verdict": result.verdict,
                "required": result.is_required,
                "observed": result.observed,
                "threshold": result.threshold,
                "sentence": result.sentence,
            }
            for result in (release_coin.diagnosis.results.all() if release_coin.diagnosis else [])
        },
    }


def gate_table(release: Release, *, width: int = 100) -> str:
    """Gates down, coins across: verdict and observed figure, wrapped so that a line keeps to about `width` letters.

    What tells and decides nothing says so beside its name.
    """
    coins = summary(release)["coins"]
    gates = list(dict.fromkeys(gate for coin in coins.values() for gate in coin["gates"]))
    if not gates:
        return ""
    rows = [["gate", *coins, "passes when"]]
    for gate in gates:
        found = [coin["gates"].get(gate) for coin in coins.values()]
        first = next(result for result in found if result)
        name = gate if first["required"] else f"{gate} (advisory)"
        rows.append([name, *(_cell(result) for result in found), first["threshold"]])
    names = max(len(word) for row in rows for word in row[0].split())
    other = max(14, (width - names) // (len(coins) + 1) - 2)
    return "\n".join(line for row in rows for line in _wrapped(row, [names, *[other] * (len(coins) + 1)]))


def _wrapped(row: list[str], widths: list[int]) -> list[str]:
    """The lines of one row."""
    cells = [textwrap.wrap(text, size) or [""] for text, size in zip(row, widths, strict=True)]
    return [
        "  ".join(text.ljust(size) for text, size in zip(line, widths, strict=True)).rstrip()
        for line in zip_longest(*cells, fillvalue="")
    ]


def _cell(result: dict[str, Any] | None) -> str:
    if result is None:
        return "—"
    return f"{_MARKS.get(result['verdict'], result['verdict'] + ':')} {result['observed']}"


def progress_line(release: Release) -> str:
    """One line: where each coin is."""
    return f"release {release.pk} ({release.line}): " + ", ".join(
        f"{p.coin.symbol} {_progress(p)}" for p in list_release_coins(release)
    )


def _progress(release_coin: ReleaseCoin) -> str:
    if release_coin.diagnosis is not None:
        return f"judged: {release_coin.diagnosis.verdict}"
    if release_coin.bundle is not None:
        return "being measured"
    if release_coin.run is None:
        return "about to start"
    if release_coin.run.state != JobState.RUNNING:
        return release_coin.run.state
    return f"epoch {release_coin.run.epoch_rows.count()}/{release_coin.run.epochs}"
