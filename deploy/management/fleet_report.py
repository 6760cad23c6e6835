"""The fleet report: what each bot runs, compared with what it must run, as one document and as lines for a terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from django.utils import timezone

from common.commands import serialize
from common.formatting import align_columns
from deploy.api.bots import Bots
from deploy.bots import fleet
from deploy.bots.key_trust import FleetTrust, load_fleet_trust
from deploy.models import SigningKey
from deploy.pointer import pointer
from deploy.rules import KeyState

_COLUMNS = ("bot", "state", "revision", "runs", "acknowledged", "heard", "fallback", "next", "client")


def build_fleet_report() -> dict[str, Any]:
    """What every bot must run, counts of the live bots, and each bot as `GET bots/` answers it, problems first."""
    move = pointer.get_current()
    counts = fleet.count_bots(move, pointer.get_announced(), pointer.get_pinnable())
    release, trust = move.release if move else None, load_fleet_trust()
    return {
        "revision": counts.revision,
        "line": release.line if release else None,
        "release": release.pk if release else None,
        "moved_at": move.moved_at if move else None,
        "live": counts.live,
        "silent": counts.silent,
        "current": counts.current,
        "has_converged": counts.has_converged,
        "fallback": counts.fallback.pk if counts.fallback else None,
        "prefetched_fallback": counts.prefetched_fallback,
        "next": counts.announced.pk if counts.announced else None,
        "prefetched_next": counts.prefetched_next,
        "keys": [_describe_key(key, trust) for key in SigningKey.objects.exclude(state=KeyState.RETIRED)],
        "problems": fleet.list_problem_bots(move),
        "bots": [
            serialize(Bots.Output, bot) for bot in fleet.order_by_urgency(fleet.list_bots_with_state(move))
        ],
    }


def _describe_key(key: SigningKey, trust: FleetTrust) -> dict[str, Any]:
    return {"key_id": key.key_id, "state": key.state, **asdict(trust.count(key))}


def format_fleet_report(report: Mapping[str, Any]) -> str:
    """The report as lines for a terminal."""
    required = (
        f"{report['line']} (release {report['release']})" if report["line"] else "nothing, and answer neutral"
    )
    head = f"revision {report['revision'] or '–'}: bots must run {required}"
    if not report["bots"]:
        return f"{head}\nNo bot has reported yet."
    now = timezone.now()
    header, *rows = align_columns([_COLUMNS, *(_format_cells(bot, report, now) for bot in report["bots"])])
    lines = [head, _format_counts(report), *_format_keys(report), "", header]
    for bot, row in zip(report["bots"], rows, strict=True):
        lines += [row, *(f"    {remark}" for remark in _list_remarks(bot))]
    return "\n".join(lines)


def _format_counts(report: Mapping[str, Any]) -> str:
    silent = f"{report['silent']} silent" if report["silent"] else ""
    if not (live := report["live"]):
        return ", ".join(filter(None, ("no bot is live", silent)))
    parts = [f"{report['current']} of {live} live bots run it", *([silent] if silent else [])]
    if report["fallback"]:
        parts.append(
            f"{report['prefetched_fallback']} of {live} hold the fallback (release {report['fallback']})"
        )
    if report["next"]:
        parts.append(f"{report['prefetched_next']} of {live} are ready for release {report['next']}")
    return ", ".join(parts)


def _format_keys(report: Mapping[str, Any]) -> list[str]:
    """During a change of the keys, or when a bot does not trust the only one."""
    keys = report["keys"]
    if len(keys) < 2 and all(key["trusted_by"] == key["bots"] for key in keys):
        return []
    return [
        f"key {key['key_id'][:12]} ({key['state']}): trusted by {key['trusted_by']} of {key['bots']},"
        f" {key['cut_off']} trust no other key that signs"
        for key in keys
    ]


def _format_cells(bot: Mapping[str, Any], report: Mapping[str, Any], now: datetime) -> Sequence[str]:
    seconds = bot["acknowledged_seconds"]
    return (
        f"{bot['name']} ({bot['instance']})",
        bot["state"],
        str(bot["revision"] or "–"),
        f"{bot['line']} (release {bot['release']})" if bot["release"] else "no model",
        "–" if seconds is None else f"after {seconds:.1f} s",
        _format_age((now - datetime.fromisoformat(bot["last_heard_at"])).total_seconds()),
        _format_prefetched(bot["prefetched_fallback"], report["fallback"]),
        _format_prefetched(bot["prefetched_next"], report["next"]),
        f"{bot['client_version']}, protocol {bot['protocol']}",
    )


def _format_prefetched(prefetched: int | None, release: int | None) -> str:
    if release is None:
        return "–"
    return "held" if prefetched == release else "missing"


def _format_age(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(0.0, seconds):.0f} s ago"


def _list_remarks(bot: Mapping[str, Any]) -> Sequence[str]:
    mismatch = f"mismatch: {bot['mismatch']}" if bot["mismatch"] else ""
    stale = f"stale since {bot['stale_since']}" if bot["stale_since"] else ""
    return [remark for remark in (mismatch, stale, bot["last_error"]) if remark]
