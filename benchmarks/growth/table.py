"""The figures of two histories side by side, their ratio, and the goals of docs/scale.md."""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.environments import REPOSITORY
from benchmarks.goals import Goal, check_goals

PAGE = REPOSITORY / "docs" / "scale.md"
BEGIN, END = (
    "<!-- growth table: written by python -m benchmarks.growth -->\n",
    "<!-- end of the growth table -->\n",
)
MOST = {"page": 1.3, "API": 1.3, "admin": 1.3}
"""How many times slower on ten times the history each kind of read may be."""
MOST_OF = {
    "settle, three coins": 1.3,
    "launch": 1.3,
    "live-gate look": 1.3,
    "readiness of the fallback": 1.3,
    "pin": 1.3,
}


def report(measured: Mapping[int, Mapping[str, Any]]) -> int:
    """Print the table and write it to the page. Returns 1 if a goal is missed."""
    small, large = list(measured)[-2:]
    goals = [
        *_list_ratio_goals(measured[small]["taken"], measured[large]["taken"]),
        *_list_goals(measured, small, large),
    ]
    missed = [str(goal) for goal in goals if not goal.is_met]
    text = "\n".join([*_format_rows(measured, small, large), "", *_format_missed(missed), ""])
    print(text)
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    if rest:
        PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
    print(f"{len(goals) - len(missed)} of {len(goals)} goals met", file=sys.stderr)
    return check_goals(*goals)


def _format_rows(measured: Mapping[int, Mapping[str, Any]], small: int, large: int) -> Iterator[str]:
    yield f"| | {small:,} releases | {large:,} releases | ratio | queries |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    first, last = measured[small], measured[large]
    for name, one in last["taken"].items():
        before = first["taken"][name]
        ratio = one["milliseconds"] / before["milliseconds"]
        queries = f"{before['queries']} / {one['queries']}" if one["queries"] else ""
        yield f"| {name} | {before['milliseconds']:,.1f} ms | {one['milliseconds']:,.1f} ms | {ratio:.2f} | {queries} |"
    for name, value in last["served"].items():
        before = first["served"][name]
        yield f"| {name} | {before:,.0f} | {value:,.0f} | {value / before if before else 0:.2f} | |"
    for name, one in last["coins"].items():
        before = first["coins"][name]
        queries = f"{before['queries']} / {one['queries']}"
        times = f"{before['milliseconds']:,.0f} ms | {one['milliseconds']:,.0f} ms"
        yield f"| jobs of one release, {name} | {times} | | {queries} |"


def _format_missed(missed: list[str]) -> list[str]:
    if not missed:
        return ["Every goal was met."]
    return ["Missed goals:", "", *(f"- {line.removeprefix('goal missed: ')}" for line in missed)]


def _list_ratio_goals(first: Mapping[str, Any], last: Mapping[str, Any]) -> Iterator[Goal]:
    for name, one in last.items():
        limit = MOST.get(name.partition(":")[0]) or MOST_OF.get(name)
        if limit:
            ratio = one["milliseconds"] / first[name]["milliseconds"]
            yield Goal(name, ratio, limit, is_maximum=True)
        if one["queries"]:
            more = one["queries"] / first[name]["queries"]
            yield Goal(f"queries of {name}", more, 1.0, is_maximum=True)


def _list_goals(measured: Mapping[int, Mapping[str, Any]], small: int, large: int) -> Iterator[Goal]:
    first, last = measured[small]["served"], measured[large]["served"]
    coins = list(measured[large]["coins"].values())
    name = "board poll, 40 browsers, ms"
    yield Goal("board poll with 40 browsers", last[name] / first[name], 1.2, is_maximum=True)
    yield Goal("edge reads", last["edge reads a second"] / first["edge reads a second"], 0.8)
    yield Goal("live windows", last["live windows a second"], 1_000, "a second")
    yield Goal("heartbeat lag p99", last["heartbeat lag p99, ms"], 2_000, "ms", is_maximum=True)
    yield Goal("30 coins against 3, queries", coins[1]["queries"] / coins[0]["queries"], 12, is_maximum=True)
    pin = last["slowest pin among 20 readers, ms"]
    yield Goal("slowest pin among 20 readers", pin, 1_000, "ms", is_maximum=True)
    verify = measured[large]["taken"]["slowest pin during verify_audit"]["milliseconds"]
    yield Goal("slowest pin during verify_audit", verify, 1_000, "ms", is_maximum=True)
