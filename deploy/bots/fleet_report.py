"""Every bot by name: what each runs against what it must, as one document and as lines for a terminal."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django.utils import timezone

from deploy.bots.fleet import fleet, standing, troubled, worst_first
from deploy.pointer import pointer

_COLUMNS = ("bot", "state", "revision", "runs", "acknowledged", "heard", "fallback", "next", "client")


def roll_call() -> dict[str, Any]:
    """What every bot must run, and what each says it runs; what troubles somebody comes first."""
    now = pointer.get_current()
    found = fleet(now, pointer.get_announced(), pointer.get_pinnable())
    release = now.release if now else None
    return {
        "revision": found.revision,
        "line": release.line if release else None,
        "release": release.pk if release else None,
        "moved_at": now.moved_at if now else None,
        "live": found.live,
        "current": found.current,
        "has_converged": found.has_converged,
        "fallback": found.fallback.pk if found.fallback else None,
        "holding": found.holding,
        "next": found.announced.pk if found.announced else None,
        "ready": found.ready,
        "troubled": troubled(now),
        "bots": [_bot(row) for row in worst_first(standing(now))],
    }


def is_troubled(called: Mapping[str, Any]) -> bool:
    """Whether any bot of the document is an alarm: it runs another release than it must, or nobody knows what."""
    return bool(called["troubled"])


def as_lines(called: Mapping[str, Any]) -> str:
    """The document as a person reads it."""
    runs = (
        f"{called['line']} (release {called['release']})" if called["line"] else "nothing, and answer neutral"
    )
    head = [f"revision {called['revision'] or '–'}: bots must run {runs}"]
    if not called["bots"]:
        return "\n".join([*head, "No bot has reported yet."])
    now = timezone.now()
    table = _aligned([_COLUMNS, *(_cells(bot, called, now) for bot in called["bots"])])
    told = [table[0]]
    for bot, line in zip(called["bots"], table[1:], strict=True):
        told += [line, *(f"    {remark}" for remark in _remarks(bot))]
    return "\n".join([*head, _counts(called), "", *told])


def _bot(row: Any) -> dict[str, Any]:
    """Names and meanings are those of `GET bots/`."""
    return {
        "name": row.name,
        "instance": row.instance,
        "state": row.state,
        "acknowledged_seconds": row.acknowledged_seconds,
        "revision": row.revision,
        "line": row.line or None,
        "release": row.release_number,
        "bundles": row.bundles,
        "mismatch": row.mismatch,
        "prefetched_next": row.prefetched_next,
        "prefetched_fallback": row.prefetched_fallback,
        "client_version": row.client_version,
        "last_error": row.last_error,
        "stale_since": row.stale_since,
        "first_heard_at": row.first_heard_at,
        "last_heard_at": row.last_heard_at,
    }


def _counts(called: Mapping[str, Any]) -> str:
    if not (live := called["live"]):
        return "no bot is live"
    said = [f"{called['current']} of {live} live bots run it"]
    if called["fallback"]:
        said.append(f"{called['holding']} of {live} hold the fallback (release {called['fallback']})")
    if called["next"]:
        said.append(f"{called['ready']} of {live} are ready for release {called['next']}")
    return ", ".join(said)


def _cells(bot: Mapping[str, Any], called: Mapping[str, Any], now: datetime) -> Sequence[str]:
    after = bot["acknowledged_seconds"]
    return (
        f"{bot['name']} ({bot['instance']})",
        bot["state"],
        str(bot["revision"] or "–"),
        f"{bot['line']} (release {bot['release']})" if bot["release"] else "no model",
        "–" if after is None else f"after {after:.1f} s",
        _age((now - bot["last_heard_at"]).total_seconds()),
        _has(bot["prefetched_fallback"], called["fallback"]),
        _has(bot["prefetched_next"], called["next"]),
        bot["client_version"],
    )


def _has(held: int | None, announced: int | None) -> str:
    if announced is None:
        return "–"
    return "held" if held == announced else "missing"


def _age(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(0.0, seconds):.0f} s ago"


def _remarks(bot: Mapping[str, Any]) -> Sequence[str]:
    stale = f"stale since {bot['stale_since']:%Y-%m-%d %H:%M:%S}Z" if bot["stale_since"] else ""
    told = (bot["mismatch"] and f"differs: {bot['mismatch']}", stale, bot["last_error"])
    return [remark for remark in told if remark]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
