"""A bot's heartbeat, compared with the release of the revision it reports."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any

from django.utils import timezone

from accounts.roles import Actor
from audit.hash_chain import to_canonical_json
from common.errors import Conflict, DomainError, InvalidInput, NotAllowed
from deploy.models import Bot, PointerMove
from deploy.rules import Running, describe_mismatch
from deploy.serving import protocol

_COPIED = (
    "reported_digest", "client_version", "protocol", "revision", "prefetched_next", "prefetched_fallback", "last_error",
    "stale_since", "audit_seq", "audit_hash", "trusted_keys",
)  # fmt: skip
"""The columns of a bot's row that a heartbeat has under the same name."""


@dataclass(frozen=True)
class Heartbeat:
    """What a bot reports. `service` and `revision` are None while it has no model.

    `audit_seq` and `audit_hash` are the highest audit head that it has seen signed.
    """

    instance: str
    client_version: str
    service: str | None
    revision: int | None
    running: Running
    prefetched_next: int | None = None
    prefetched_fallback: int | None = None
    last_error: str = ""
    stale_since: datetime | None = None
    audit_seq: int | None = None
    audit_hash: str = ""
    sent_at: datetime | None = None
    """By the bot's clock."""
    trusted_keys: tuple[str, ...] = ()
    """Ids; empty for a client that does not say."""
    protocol: int = protocol.FIRST_VERSION
    is_stopping: bool = False
    """Whether it was stopped on purpose, and this is its last heartbeat."""

    @cached_property
    def reported_digest(self) -> str:
        """One digest of revision, release, line and bundles."""
        running = self.running
        reported = [self.revision, running.release, running.line, dict(running.bundles)]
        return hashlib.sha256(to_canonical_json({"reported": reported}).encode()).hexdigest()


@dataclass(frozen=True)
class ReceivedHeartbeat:
    """A heartbeat, and the owner of the token it came with."""

    actor: Actor
    heartbeat: Heartbeat
    received_at: datetime = field(default_factory=timezone.now)

    @cached_property
    def clock_error_seconds(self) -> int | None:
        """How far the bot's clock is ahead, to ten seconds: bots with good clocks stay equal. None if it is not reported."""
        if self.heartbeat.sent_at is None:
            return None
        return 10 * round((self.heartbeat.sent_at - self.received_at).total_seconds() / 10)

    @property
    def bot_key(self) -> tuple[str, str]:
        """The bot's name and instance, which identify its row."""
        return self.actor.name, self.heartbeat.instance


@dataclass(frozen=True)
class Expected:
    """What every bot must run under one revision. It never changes, so a process loads it once."""

    revision: int
    moved_at: datetime
    running: Running
    origin: Mapping[str, str] = field(default_factory=dict)
    """Of the move (common.correlation)."""


@dataclass(frozen=True)
class CheckedHeartbeat(ReceivedHeartbeat):
    """A heartbeat, and how it differs from its revision's release (`mismatch`, empty if it does not)."""

    expected: Expected | None = None
    mismatch: str = ""

    @cached_property
    def group_key(self) -> tuple[object, ...]:
        """Equal for those whose rows are equal: `reported_digest` stands for all that a bot runs."""
        copied = (getattr(self.heartbeat, name) for name in _COPIED)
        return *copied, self.mismatch, self.clock_error_seconds, self.heartbeat.is_stopping

    def build_row(self, now: datetime) -> dict[str, Any]:
        """The columns of the bot's row that each heartbeat overwrites. Equal for bots that report the same."""
        running = self.heartbeat.running
        return dict(
            zip((*_COPIED, "mismatch", "clock_error_seconds", "is_stopped"), self.group_key, strict=True)
        ) | {
            "last_heard_at": now,
            "line": running.line or "",
            "release_number": running.release,
            "bundles": dict(running.bundles),
        }

    def repeats(self, previous: Bot | None) -> bool:
        """Whether the bot reported the same before, and has acknowledged it."""
        digest = self.heartbeat.reported_digest
        return previous is not None and previous.reported_digest == digest and not previous.mismatch


def find_refusal(received: ReceivedHeartbeat, service: str) -> DomainError | None:
    """Why a heartbeat is not stored: NotAllowed, Conflict (another service), InvalidInput (contradictory fields)."""
    heartbeat, running = received.heartbeat, received.heartbeat.running
    if not received.actor.is_bot:
        return NotAllowed(f"{received.actor} is not a bot: heartbeats need a bot's token.")
    if heartbeat.service is not None and heartbeat.service != service:
        return Conflict(
            f"This bot follows the service {heartbeat.service}, and this is {service}: their revisions are not comparable."
            " Give the bot this service's address, key and token, and a cache folder of its own."
        )
    if heartbeat.revision is None and (running.release is not None or running.line or running.bundles):
        return InvalidInput("A bot without a revision runs no release and no bundles.", field="revision")
    if heartbeat.revision is not None and heartbeat.service is None:
        return InvalidInput("Name the service of this revision.", field="service")
    return None


def check_heartbeat(received: ReceivedHeartbeat, service: str) -> CheckedHeartbeat:
    """Compare a heartbeat with what its revision requires."""
    heartbeat, mismatch = received.heartbeat, ""
    expected: Expected | None = None
    if heartbeat.revision is not None:
        try:
            expected = _load_expected(service, heartbeat.revision)
            mismatch = describe_mismatch(heartbeat.running, expected.running)
        except PointerMove.DoesNotExist:
            mismatch = f"this service never had revision {heartbeat.revision}"
    return CheckedHeartbeat(received.actor, heartbeat, received.received_at, expected, mismatch)


@lru_cache(maxsize=64)
def _load_expected(service: str, revision: int) -> Expected:
    """Raises PointerMove.DoesNotExist, which is not cached: the revision may still come."""
    move = PointerMove.objects.select_related("release").get(pk=revision)
    bundles = move.release.digests if move.release else {}
    line = move.release.line if move.release else None
    return Expected(revision, move.moved_at, Running(move.release_id, line, bundles), move.origin)
