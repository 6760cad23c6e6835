"""docs/studies.md: what the benchmark of studies found."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

WON_GOAL = 8
Row = dict[str, Any]


def read(path: Path) -> list[Row]:
    """The results so far, in the order of their seeds."""
    lines = path.read_text().splitlines() if path.exists() else []
    return sorted(map(json.loads, lines), key=lambda row: (row["part"], row["seed"]))


def select(rows: Sequence[Row], part: str) -> list[Row]:
    return [row for row in rows if row["part"] == part]


def count_won(rows: Sequence[Row]) -> int:
    """In how many seeds the study's best loss is lower than that of as many random trials."""
    return sum(row["tpe"]["best"] < row["random"]["best"] for row in rows)


def summarize(rows: Sequence[Row]) -> list[str]:
    noise = select(rows, "noise")
    released = sum(not row["refused_by"] for row in noise)
    return [
        *(
            f"On {bars} bars, a study beats as many random trials in {count_won(found)} of {len(found)} seeds; the goal is"
            f" {WON_GOAL} of 10."
            for bars, found in _list_searches(rows)
        ),
        f"Studies at drift 0 released {released} of {len(noise)}; the goal is none of 20.",
    ]


def list_shortfalls(rows: Sequence[Row]) -> list[str]:
    """The goals that were missed."""
    missed = [
        f"search on {bars} bars"
        for bars, found in _list_searches(rows)
        if count_won(found) < WON_GOAL / 10 * len(found)
    ]
    return missed + (["noise"] if any(not row["refused_by"] for row in select(rows, "noise")) else [])


def _list_searches(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    parts = (("4,000", select(rows, "search")), ("12,000", select(rows, "long")))
    return [(bars, found) for bars, found in parts if found]


def write(rows: Sequence[Row]) -> str:
    """The page. Parts that were not run say so."""
    searches, noise = _list_searches(rows), select(rows, "noise")
    parts = [
        "# Studies, measured",
        "Written by `make studies`. How studies work is in [Experiments and studies](concepts/experiments.md).",
        "\n".join(f"- {line}" for line in summarize(rows)),
        "## Against random search",
        "Each seed is another simulated market with a drift of 1.2. `v7_fixed` is trained 40 times for 8 epochs at most, two"
        " trials at a time. Searched are learning rate (1e-5 to 1e-2), batch size (16 to 2,048), patience (1 to 8) and five"
        " sets of widths; the objective is the loss. The study uses TPE and prunes; the random trials are as many, and none"
        " is pruned. The first ten trials of both are the same: TPE begins at random.",
        *(part for bars, found in searches for part in _write_search(bars, found)),
        *(["The search was not run."] if not searches else []),
        *(_write_noise(noise) if noise else ["Studies at drift 0 were not run."]),
        *_write_bias(rows),
        f"All of it took {sum(row['cpu_seconds'] for row in rows) / 60:.0f} minutes of CPU time.",
    ]
    return "\n\n".join(parts) + "\n"


def _write_search(bars: str, rows: Sequence[Row]) -> list[str]:
    table = [
        "| seed | loss, study | loss, random | lower | fresh loss, study | fresh loss, random"
        " | updates, study | updates, random |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        tpe, random = row["tpe"], row["random"]
        won = "study" if tpe["best"] < random["best"] else "random"
        table.append(
            f"| {row['seed']} | {tpe['best']:.4f} | {random['best']:.4f} | {won}"
            f" | {tpe['fresh']:.4f} | {random['fresh']:.4f} | {tpe['updates']:,} | {random['updates']:,} |"
        )
    fresh = sum(row["tpe"]["fresh"] < row["random"]["fresh"] for row in rows)
    complete = median(row["tpe"]["complete"] for row in rows)
    share = median(row["tpe"]["updates"] / row["random"]["updates"] for row in rows)
    return [
        f"### Markets of {bars} bars",
        "\n".join(table),
        "*Fresh* is the loss on 20,000 bars of the same market that no trial saw. There the study's model has the lower loss"
        f" in {fresh} of {len(rows)} seeds. In the median {complete:.0f} of its trials were complete, and the others pruned."
        f" The budget is counted in trials: in the median the study made {share:.0%} of the updates of the random trials,"
        " because the batch size is among what is searched.",
    ]


def _write_noise(rows: Sequence[Row]) -> list[str]:
    gates = Counter(gate for row in rows for gate in row["refused_by"])
    named = ", ".join(f"*{gate}* {count}" for gate, count in gates.most_common())
    best = [row["best"] for row in rows]
    fresh = [row["fresh"] for row in rows]
    return [
        "## Where there is nothing to learn",
        f"{len(rows)} markets of drift 0, each with a study of {rows[0]['trials']} trials by accuracy. The best trial's"
        " bundle is measured in full and judged by the full policy as a first attempt. The checks of its candles count as"
        " passed.",
        f"The best trial's accuracy on the stop window is {mean(best):.1%} in the mean ({min(best):.1%} to {max(best):.1%}),"
        f" and {mean(fresh):.1%} on fresh candles ({min(fresh):.1%} to {max(fresh):.1%}).",
        f"Refused by, in how many of {len(rows)}: {named or 'no gate'}.",
    ]


def _write_bias(rows: Sequence[Row]) -> list[str]:
    table = ["| studies | figure | estimated optimism | real optimism |", "| --- | --- | --- | --- |"]
    searches = [
        (f"drift 1.2, {bars} bars, {name}", "loss", [row[sampler] for row in found])
        for bars, found in _list_searches(rows)
        for sampler, name in (("tpe", "TPE"), ("random", "random"))
    ]
    for name, figure, found in (*searches, ("drift 0, 4,000 bars, TPE", "accuracy", select(rows, "noise"))):
        known = [row for row in found if row["estimated"] is not None]
        if known:
            estimated, real = mean(row["estimated"] for row in known), mean(row["real"] for row in known)
            table.append(f"| {name} | {figure} | {estimated:.4f} | {real:.4f} |")
    return [
        "## Selection bias",
        "The best of many figures on one stop window is too good. The estimate is the one that the page of a study shows."
        " The real optimism is by how much the best trial does worse on fresh candles than on the stop window, beyond what"
        " the complete trials do on average. Both are means over the seeds.",
        "\n".join(table),
    ]
