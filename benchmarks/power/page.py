"""docs/power.md: the curves, the figures behind them, and what they mean."""

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.power import pictures
from benchmarks.power.border import ALLOWED, BEYOND, MARKET_BARS, TRUE_ACCURACY
from benchmarks.power.markets import FULL, POLICIES, SETTINGS
from benchmarks.power.results import LEAST_RELEASED, RELEASED_AT, Results
from gates.policy import DRAFTS

NAME = "power.md"


def write(results: Results, folder: Path) -> None:
    """The page, and its pictures where there is something to draw them with."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        drawn = {name: f"![{name}]({path.name})\n" for name, path in pictures.draw(results, folder).items()}
    except pictures.NoBrowser as missing:
        drawn = dict.fromkeys(("released", "gates", "border"), f"(Not drawn: {missing}.)\n")
    parts = [*_head(results), *_released(results, drawn), *_gates(results, drawn)]
    parts += _border(results, drawn) if results.borders or results.policy == FULL else []
    name = NAME if results.policy == FULL else f"power-{results.policy}.md"
    (folder / name).write_text("\n".join(parts))


def summary(results: Results) -> str:
    """The figures that something is asked of, and what was missed."""
    said = [
        f"drift {drift:g}, {bars:,} bars: {results.of(bars).released(drift)} released"
        for bars in results.bars
        for drift in results.of(bars).drifts()
    ]
    said += [
        f"{name}, {window}: {share} passed"
        for name, windows in results.border().items()
        for window, share in windows.items()
    ]
    return "\n".join([*said, *(results.shortfalls() or ["Everything that is asked was reached."])])


def _head(results: Results) -> Iterator[str]:
    if results.policy != FULL:
        yield from _draft_head(results)
        return
    yield "# How often V7 is released\n"
    yield (
        "Written by `make power`. Intervals are exact 95 % ones (Clopper and Pearson). The same markets under a policy that "
        "asks for a lead instead of an accuracy: [a policy for real markets](power-real-markets.md).\n"
    )
    asked = results.asked
    for drift, says in (
        (0.0, "the goal is none"),
        (RELEASED_AT, f"the goal is more than {LEAST_RELEASED:.0%}"),
    ):
        if drift in asked.drifts():
            yield f"- Drift {drift:g}: {asked.released(drift)} markets released; {says}."
    within = [share for name, found in results.border().items() if name != BEYOND for share in found.values()]
    if within:
        worst = max(within, key=lambda share: share.share)
        yield (
            f"- A true accuracy of {TRUE_ACCURACY}: at worst {worst} gate windows passed; "
            f"the goal is at most {ALLOWED:.0%}."
        )
    yield from (f"- NOT REACHED: {said}" for said in results.shortfalls())
    yield ""


def _draft_head(results: Results) -> Iterator[str]:
    draft, asked = DRAFTS[results.policy], results.asked
    yield f"# How often V7 is released under {draft.title[0].lower()}{draft.title[1:]}\n"
    yield (
        "Written by `make power`, from the markets of [the full policy](power.md). Intervals are exact 95 % ones (Clopper "
        "and Pearson).\n"
    )
    if 0.0 in asked.drifts():
        yield f"- Nothing to learn: {asked.released(0.0)} markets released; the goal is at most 1 in 60."
    half = asked.find_half()
    if half is None:
        yield "- Half released: at none of the drifts below."
    else:
        yield (
            f"- Half of the markets are released at a drift of about {half[0]:.2f}, where V7 is right in "
            f"{100 * half[1]:.1f} points more of the bars than the label's base rate: its true lead, as the mean of "
            "unseen bars shows it."
        )
    yield from (f"- NOT REACHED: {said}" for said in results.shortfalls())
    yield ""


def _released(results: Results, drawn: dict[str, str]) -> Iterator[str]:
    settings = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in SETTINGS.items())
    yield "## Markets\n"
    yield drawn["released"]
    yield (
        f"A market is three coins of {results.bars[0] if results.bars else 0:,} simulated candles (43,800 are five years of "
        "hours). Each has a drift planted in hidden regimes; one coin tells nothing about another. V7 is trained on each by "
        f"its recipe with {settings}, and compared with a V5 of the same candles. The bytes are measured in full and "
        f"judged under {_name_policy(results)}, as a first attempt on candles judged against their generator. A market is "
        "released when every coin passes every required gate. Once every policy has refused a coin of a market, its other "
        "coins are not trained, because they would change nothing.\n"
    )
    yield "| drift | bars | markets released | coins judged | accuracy | over the base rate | over the last move |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for bars in results.bars:
        found = results.of(bars)
        for drift in found.drifts():
            coins = found.coins(drift)
            yield (
                f"| {drift:g} | {bars:,} | {found.released(drift)} | {len(coins)} | {_middle(coins, 'accuracy')} | "
                f"{_middle(coins, 'over_base_rate')} | {_middle(coins, 'over_last_move')} |"
            )
    yield "\nAccuracy and leads are medians over the coins, with the least and the greatest.\n"


def _name_policy(results: Results) -> str:
    return "the full policy" if results.policy == FULL else f"the draft `{results.policy}`"


def _middle(coins: list[dict[str, Any]], figure: str) -> str:
    values = [coin[figure] for coin in coins if coin.get(figure) is not None]
    if not values:
        return "not measured"
    return f"{statistics.median(values):.3f} ({min(values):.3f} … {max(values):.3f})"


def _gates(results: Results, drawn: dict[str, str]) -> Iterator[str]:
    yield "## Gates\n"
    yield drawn["gates"]
    yield "Share of the judged coins that each gate refused; gates that are not named refused none.\n"
    names = results.gates()
    yield f"| drift | bars | {' | '.join(names)} |\n| --- | --- |{' --- |' * len(names)}"
    for bars in results.bars:
        for drift in results.of(bars).drifts():
            refused = results.of(bars).refused(drift)
            shares = (f"{refused[name].share:.0%}" if name in refused else "0%" for name in names)
            yield f"| {drift:g} | {bars:,} | {' | '.join(shares)} |"
    yield ""
    if "too_good" in names:
        above = POLICIES[results.policy]["gates"]["too_good"]["above"]
        yield (
            f"Where V7 is right in more than {above:g} of the bars, *too_good* is inconclusive: no real market is so "
            "easy, so it is treated as a leak until a person shows otherwise. That is why the curve falls again.\n"
        )
    if "skill" in names:
        yield (
            "*skill* requires that V7 is better than repeating the last move, which is often right where regimes last. "
            "The lead is only a few points, and it takes years of candles to show it.\n"
        )


def _border(results: Results, drawn: dict[str, str]) -> Iterator[str]:
    yield "## The border\n"
    yield drawn["border"]
    yield (
        f"Forecasters that are right in exactly {TRUE_ACCURACY} of the bars must not pass the accuracy gate more than "
        f"{ALLOWED:.0%} of the time. The result depends on how errors cluster: labels overlap by eight bars, and regimes "
        f"last 24 to 72. Each kind is calibrated on markets of {MARKET_BARS:,} bars, which are cut into gate windows. Every "
        "window is measured and judged like that of a release.\n"
    )
    windows = list(next(iter(results.border().values()), {}))
    yield f"| errors | {' | '.join(windows)} |\n| --- |{' --- |' * len(windows)}"
    for name, found in results.border().items():
        yield f"| {name} | {' | '.join(str(found[window]) for window in windows)} |"
    yield (
        f"\n*{BEYOND}* is shown without a goal. Its errors last up to about 300 bars, longer than every regime of the "
        "simulator, so blocks of 216 bars underestimate the interval.\n"
        if BEYOND in results.border()
        else ""
    )
