"""A release as a terminal or a program reads it."""

from typing import Any

from deploy.models import Release, ReleaseCoin
from deploy.outcomes import places_of
from training.rules import JobState


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
        "coins": {place.coin.symbol: _coin(place) for place in places_of(release)},
    }


def _coin(place: ReleaseCoin) -> dict[str, Any]:
    return {
        "run": place.run_id,
        "bundle": place.bundle.digest if place.bundle else None,
        "diagnosis": place.diagnosis_id,
        "verdict": place.diagnosis.verdict if place.diagnosis else None,
        "gates": {
            result.gate: {
                "verdict": result.verdict,
                "required": result.is_required,
                "observed": result.observed,
                "threshold": result.threshold,
                "sentence": result.sentence,
            }
            for result in (place.diagnosis.results.all() if place.diagnosis else [])
        },
    }


def gate_table(release: Release) -> str:
    """Gates down, coins across: the verdict where it did not pass, and the observed figure."""
    coins = summary(release)["coins"]
    gates = list(dict.fromkeys(gate for coin in coins.values() for gate in coin["gates"]))
    if not gates:
        return ""
    rows = [["gate", *coins, "passes when"]]
    for gate in gates:
        found = [coin["gates"].get(gate) for coin in coins.values()]
        threshold = next(result["threshold"] for result in found if result)
        rows.append([gate, *(_cell(result) for result in found), threshold])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in rows
    )


def _cell(result: dict[str, Any] | None) -> str:
    if result is None:
        return "—"
    mark = "✓" if result["verdict"] == "passed" else f"✗ {result['verdict']}"
    return f"{mark} {result['observed']}"


def progress_line(release: Release) -> str:
    """One line: where each coin is."""
    return f"release {release.pk}: " + ", ".join(
        f"{p.coin.symbol} {_progress(p)}" for p in places_of(release)
    )


def _progress(place: ReleaseCoin) -> str:
    if place.diagnosis is not None:
        return f"judged: {place.diagnosis.verdict}"
    if place.bundle is not None:
        return "being measured"
    if place.run is None:
        return "about to start"
    if place.run.state != JobState.RUNNING:
        return place.run.state
    return f"epoch {place.run.epoch_rows.count()}/{place.run.epochs}"
