"""The heartbeat: what a bot tells the service about itself."""

from datetime import datetime
from typing import Any

from runtime.state import State
from runtime.version import VERSION

MAX_ERROR_LETTERS = 1000


def heartbeat(
    instance: str,
    state: State,
    *,
    stale_since: datetime | None,
    ready_for: int | None,
    holds_fallback: int | None,
    trouble: str,
) -> dict[str, Any]:
    """What to post; `ready_for` and `holds_fallback` are the announced releases that are loaded."""
    snapshot = state.snapshot
    return {
        "instance": instance,
        "client_version": VERSION,
        "service": snapshot.service if snapshot else None,
        "revision": snapshot.revision if snapshot else None,
        "line": snapshot.line if snapshot else None,
        "release": snapshot.release if snapshot else None,
        "bundles": {coin: model.bundle for coin, model in snapshot.models.items()} if snapshot else {},
        "ready_for": ready_for,
        "holds_fallback": holds_fallback,
        "last_error": trouble[:MAX_ERROR_LETTERS] or None,
        "stale_since": stale_since.isoformat() if stale_since else None,
    }
