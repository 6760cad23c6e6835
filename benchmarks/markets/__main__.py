"""False alarms of the candle checks over real series, and how often each kind of made-up series is found.

    python -m benchmarks.markets [--folder FOLDER] [--series N] [--docs FOLDER]

The page docs/markets.md is written at the end. Exit status 1 when a goal is missed.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.markets.made_up import KINDS, Kind
from benchmarks.markets.series import HOURS, LENGTHS, list_stretches, load_series
from benchmarks.markets.variants import VARIANTS, Goal, Variant
from mlcore.quality.market_checks import MIN_BARS, check_candles
from mlcore.quality.peers import PeerSeries, compare_series
from mlcore.verdict import Verdict

REPOSITORY = Path(__file__).resolve().parents[2]
MAX_FALSE_ALARMS = 0.01
MIN_FOUND = 0.95
POWER_LENGTHS = (1_024, 2_048, 6_000)
WHOLE = "whole series"


@dataclass
class Count:
    """Of some series: how many there were, how many did not pass, how many failed, and by which checks."""

    series: int = 0
    not_passed: int = 0
    failed: int = 0
    by_check: Counter[str] = field(default_factory=Counter)

    def add(self, frame: pl.DataFrame, peers: list[PeerSeries] | None = None) -> None:
        report = check_candles(frame, coin="BTC", peers=peers or [])
        names = [check.name for check in report.checks if check.finding.verdict != Verdict.PASSED]
        self.series += 1
        self.not_passed += bool(names)
        self.failed += any(
            check.finding.verdict in (Verdict.FAILED, Verdict.ERROR) for check in report.checks
        )
        self.by_check.update(names)

    @property
    def share(self) -> float:
        return self.not_passed / self.series if self.series else 0.0

    @property
    def checks(self) -> str:
        return ", ".join(name.replace("_", " ") for name, _ in self.by_check.most_common(3)) or "–"


def count_false_alarms(series: Mapping[str, pl.DataFrame]) -> dict[str, Count]:
    """By series, over all stretches; and whole."""
    counts: dict[str, Count] = {}
    for name, _, _, frame in list_stretches(series):
        counts.setdefault(name, Count()).add(frame)
    for frame in series.values():
        counts.setdefault(WHOLE, Count()).add(frame)
    return counts


def count_found(series: Mapping[str, pl.DataFrame], kind: Kind, bars: int, tries: int) -> Count:
    """How many of `tries` series of this kind are found, each made from another stretch."""
    count, names = Count(), [name for name, frame in series.items() if frame.height >= bars]
    for seed in range(tries):
        random = np.random.default_rng([seed, bars])
        whole = series[names[seed % len(names)]]
        start = int(random.integers(0, whole.height - bars + 1))
        real = whole[start : start + bars]
        peers = [PeerSeries.from_frame(real, coin="ETH", name="dataset 7")] if kind.needs_peer else []
        count.add(kind.make(real, random), peers)
    return count


def count_variants(series: Mapping[str, pl.DataFrame], tries: int) -> dict[str, Count]:
    """By variant, over `tries` stretches of an hour or more, the same ones each time, changed into it."""
    stretches = [frame for _, _, _, frame in list_stretches(series)]
    rows = np.random.default_rng(len(stretches)).permutation(len(stretches))[:tries]
    counts = {variant.name: Count() for variant in VARIANTS}
    for variant in VARIANTS:
        for row in rows.tolist():
            changed = variant.change(stretches[row], np.random.default_rng(row))
            if changed.height >= MIN_BARS:
                counts[variant.name].add(changed)
    return counts


def measure_spreads(series: Mapping[str, pl.DataFrame]) -> tuple[float, float]:
    """The least spread between two coins, and the greatest between two series of one coin."""
    peers = [PeerSeries.from_frame(f, coin=name.split()[-1], name=name) for name, f in series.items()]
    overlaps = [
        (first.coin == second.coin, overlap)
        for first in peers
        for second in peers
        if first is not second and (overlap := compare_series(first, second))
    ]
    other = min((o.least_spread for is_same, o in overlaps if not is_same), default=np.inf)
    same = max((o.median_spread for is_same, o in overlaps if is_same), default=0.0)
    return other, same


def main(arguments: list[str] | None = None) -> int:
    """0 when every goal is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.markets", description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=os.environ.get("CRPBOT_CANDLES_DIR", ""))
    parser.add_argument("--series", type=int, default=40, help="made-up series of each kind and length")
    parser.add_argument("--docs", type=Path, default=REPOSITORY / "docs")
    options = parser.parse_args(arguments)
    series = load_series(options.folder) if str(options.folder) else {}
    if not series:
        print("No real series: set CRPBOT_CANDLES_DIR to a folder with COIN.csv.gz files.", file=sys.stderr)
        return 1
    alarms = count_false_alarms(series)
    print("\n".join(f"{name}: {c.not_passed} of {c.series} did not pass" for name, c in alarms.items()))
    found = {}
    for kind in KINDS:
        found[kind.name] = [count_found(series, kind, bars, options.series) for bars in POWER_LENGTHS]
        print(f"{kind.name}: found {', '.join(f'{count.share:.0%}' for count in found[kind.name])}")
    variants = count_variants(series, 4 * options.series)
    print("\n".join(f"{name}: {c.not_passed} of {c.series} did not pass" for name, c in variants.items()))
    missed = list_missed_goals(alarms, found) + list_missed_variants(variants)
    (options.docs / "markets.md").write_text(
        write_page(series, alarms, variants, found, measure_spreads(series), missed)
    )
    print("\n".join(missed or ["Every goal is met."]))
    return 1 if missed else 0


def list_missed_goals(alarms: Mapping[str, Count], found: Mapping[str, list[Count]]) -> list[str]:
    total, not_passed = _sum_stretches(alarms)
    whole = alarms[WHOLE].not_passed
    missed = []
    if not_passed > MAX_FALSE_ALARMS * total:
        share = not_passed / total
        missed.append(f"False alarms: {share:.1%} of the stretches; the goal is {MAX_FALSE_ALARMS:.0%}.")
    if whole:
        missed.append(f"Whole series: {whole} did not pass; the goal is none.")
    for kind in KINDS:
        for bars, count in zip(POWER_LENGTHS, found[kind.name], strict=True):
            if bars >= kind.least_bars and count.share < MIN_FOUND:
                goal = f"the goal is {MIN_FOUND:.0%}"
                missed.append(f"{kind.name}, {bars:,} bars: {count.share:.0%} are found; {goal}.")
    return missed


def list_missed_variants(counts: Mapping[str, Count]) -> list[str]:
    return [
        f"{v.name}: {counts[v.name].not_passed} of {counts[v.name].series} did not pass, {counts[v.name].failed} failed."
        for v in VARIANTS
        if not _is_met(v, counts[v.name])
    ]


def _is_met(variant: Variant, count: Count) -> bool:
    if variant.goal == Goal.PASSED:
        return count.not_passed <= MAX_FALSE_ALARMS * count.series
    return count.failed == 0 if variant.goal == Goal.NOT_FAILED else count.share >= MIN_FOUND


def _sum_stretches(alarms: Mapping[str, Count]) -> tuple[int, int]:
    """How many stretches there are, and how many did not pass."""
    counts = [count for name, count in alarms.items() if name != WHOLE]
    return sum(count.series for count in counts), sum(count.not_passed for count in counts)


def write_page(
    series: Mapping[str, pl.DataFrame],
    alarms: Mapping[str, Count],
    variants: Mapping[str, Count],
    found: Mapping[str, list[Count]],
    spreads: tuple[float, float],
    missed: list[str],
) -> str:
    total, not_passed = _sum_stretches(alarms)
    alarm_rows = [
        f"| {name} | {frame.height:,} | {count.series:,} | {count.not_passed} | {count.failed} | {count.checks} |"
        for name, frame in series.items()
        for count in [alarms[name]]
    ]
    variant_rows = [
        f"| {v.name} | {v.goal} | {c.not_passed} of {c.series} | {c.failed} | {c.checks} |"
        for v in VARIANTS
        for c in [variants[v.name]]
    ]
    found_rows = [
        f"| {name} | {' | '.join(f'{c.not_passed} of {c.series}' for c in counts)} | {counts[-1].checks} |"
        for name, counts in found.items()
    ]
    unknown = [
        f"*{kind.name[0].upper()}{kind.name[1:]}* cannot be told from a market with fewer than {kind.least_bars:,} hourly"
        f" bars: {kind.reason}."
        for kind in KINDS
        if kind.least_bars > min(POWER_LENGTHS)
    ]
    lengths = " and ".join(f"{bars:,}" for bars in LENGTHS)
    return f"""# Error rates of the candle checks

`make markets` writes this page. It measures how often real candles are refused, and how often series that are no market
are found.

## False alarms

Each real series is taken at {", ".join(map(str, HOURS))} hours a bar, and cut into stretches of {lengths} bars that
overlap by half. Of {total:,} stretches, {not_passed:,} did not pass ({not_passed / total:.2%}). The goal is at most
{MAX_FALSE_ALARMS:.0%}. Of the {alarms[WHOLE].series} whole series, {alarms[WHOLE].not_passed} did not pass.

| series | bars | stretches | not passed | of these failed | by |
| --- | ---: | ---: | ---: | ---: | --- |
{chr(10).join(alarm_rows)}

No single bar makes a series *failed*: returns, ranges and gaps are clipped or ranked before they are compared. A bar that
triples the price makes the check *jumps* inconclusive, and a person must look.

## Markets that are not at hand

Stretches of the real series, changed as other markets differ from them: other quotes, coarser prices, thin trading, crashes
and halts. What such a market would fail for its nature, the checks leave to a person.

| the same series with | goal | not passed | of these failed | by |
| --- | --- | ---: | ---: | --- |
{chr(10).join(variant_rows)}

Three kinds of markets cannot be told from a damaged file, and are *inconclusive*: a coin that is pegged to another, prices
of so few ticks that most bars close where they opened, and trading so thin that more than one bar in five has none. Shares,
whose market closes at weekends, are refused for their gaps: this service is for coins. There are no real series of less than
an hour a bar here, so the error rates of those are not known. Simulations with volume that follows the range are told from a
thin market by the cycle of the day alone, which some weeks of bars show.

## Made-up series

Each kind is made from other stretches of the real series and other random numbers. A series is found when it does not
pass.

| kind | {" | ".join(f"{bars:,} bars" for bars in POWER_LENGTHS)} | by, at {POWER_LENGTHS[-1]:,} bars |
| --- | {" | ".join("---:" for _ in POWER_LENGTHS)} | --- |
{chr(10).join(found_rows)}

{(chr(10) * 2).join(unknown)}

## Comparison with other candles

Two series are one when the spread between them is less than a bar's usual move, over any 500 bars and at any delay of up to
24 bars. Between two coins here the least spread is {spreads[0]:.2f}. Between two series of one coin it is
{spreads[1]:.2f} at most.

## Goals

{chr(10).join(f"- Missed: {line}" for line in missed) or "Every goal is met."}
"""


if __name__ == "__main__":
    sys.exit(main())
