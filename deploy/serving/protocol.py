"""The protocol: the form of what service and bots exchange, and who still understands it (rule 32, docs/rules.md#32).

`crpbot_runtime.version` is the bot's side. A new version adds to what is exchanged. Only where it takes something away, or
gives it another meaning, does the oldest reader rise, once no bot with an older client is left.
"""

from collections.abc import Mapping
from typing import Any

VERSION = 2
"""In which this service writes snapshots and reads heartbeats."""
OLDEST_READER = 1
"""The oldest client that understands a snapshot of this service."""
FIRST_VERSION = 1
"""Of a bot whose heartbeats state none."""


def describe() -> dict[str, int]:
    return {"version": VERSION, "oldest_reader": OLDEST_READER}


def find_refusal(stated: Any) -> str:
    """Why a heartbeat that states this protocol cannot be understood; empty where it can."""
    version, oldest_reader = _read(stated, "version"), _read(stated, "oldest_reader")
    if oldest_reader <= VERSION:
        return ""
    return (
        f"This bot writes protocol {version}, for services of protocol {oldest_reader} or later, and this service has"
        f" protocol {VERSION}. Upgrade the service, or install the crpbot-runtime of its version."
    )


def drop_unknown(heartbeat: Mapping[str, Any], known: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without the fields that a newer protocol added; of any other heartbeat, every field stays and is checked.

    `known` are the fields of a serializer. Those of an object inside the heartbeat are its field's own `fields`.
    """
    if _read(heartbeat.get("protocol"), "version") <= VERSION:
        return heartbeat
    return _keep_known(heartbeat, known)


def _keep_known(stated: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in stated.items() if name in known}
    for name, value in kept.items():
        inner = getattr(known[name], "fields", None)
        if inner is not None and isinstance(value, dict):
            kept[name] = _keep_known(value, inner)
    return kept


def _read(stated: Any, name: str) -> int:
    """0 where it is not an integer: the field's own check says so."""
    value = stated.get(name) if isinstance(stated, dict) else None
    return value if isinstance(value, int) else 0
