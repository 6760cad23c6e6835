"""What a bot says it runs, held against what its revision's release holds."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from accounts.rules import Actor
from audit.rules import to_canonical_json
from common.errors import Conflict, InvalidInput
from deploy.models import Bot, PointerMove, ReleaseCoin
from deploy.rules import Running, differences


@dataclass(frozen=True)
class Heartbeat:
    """What a bot says of itself. `service` and `revision` are None while it has no model."""

    instance: str
    client_version: str
    service: str | None
    revision: int | None
    running: Running
    prefetched_next: int | None = None
    prefetched_fallback: int | None = None
    last_error: str = ""
    stale_since: datetime | None = None

    @property
    def reported_digest(self) -> str:
        """One digest of what it says it runs."""
        running = self.running
        said = [self.revision, running.release, running.line, dict(running.bundles)]
        return hashlib.sha256(to_canonical_json({"said": said}).encode()).hexdigest()


@dataclass(frozen=True)
class Report:
    """A heartbeat, and whose token it came with."""

    actor: Actor
    said: Heartbeat

    @property
    def bot(self) -> tuple[str, str]:
        """Name and instance: whose row this is."""
        return self.actor.name, self.said.instance


@dataclass(frozen=True)
class Expected:
    """What one revision said every bot must run. It never changes, so a process looks it up once."""

    revision: int
    moved_at: datetime
    running: Running


@dataclass(frozen=True)
class Judged:
    """A heartbeat held against what its revision's release holds."""

    report: Report
    expected: Expected | None
    mismatch: str

    @property
    def likeness(self) -> tuple[object, ...]:
        """Equal for those whose `columns` are."""
        said = self.report.said
        ahead = (said.prefetched_next, said.prefetched_fallback)
        told = (said.client_version, *ahead, said.last_error, said.stale_since)
        return said.reported_digest, self.mismatch, *told

    def columns(self, now: datetime) -> dict[str, Any]:
        """The bot's row, but for who it is and since when it is known."""
        said = self.report.said
        return {
            "client_version": said.client_version,
            "last_heard_at": now,
            "revision": said.revision,
            "line": said.running.line or "",
            "release_number": said.running.release,
            "bundles": dict(said.running.bundles),
            "prefetched_next": said.prefetched_next,
            "prefetched_fallback": said.prefetched_fallback,
            "reported_digest": said.reported_digest,
            "last_error": said.last_error,
            "stale_since": said.stale_since,
            "mismatch": self.mismatch,
        }

    def is_known_to(self, before: Bot | None) -> bool:
        """Whether it was judged like this already: what it acknowledges, it has acknowledged."""
        return (
            before is not None
            and before.reported_digest == self.report.said.reported_digest
            and not before.mismatch
        )


def require_sense(said: Heartbeat, service: str) -> None:
    """Raise Conflict for a bot that follows another service, InvalidInput for what cannot be meant."""
    if said.service is not None and said.service != service:
        raise Conflict(
            f"This bot follows the service {said.service}, and this is {service}: their revisions are not comparable."
            " Give the bot this service's address, key and token, and a cache folder of its own."
        )
    running = said.running
    if said.revision is None and (running.release is not None or running.line or running.bundles):
        raise InvalidInput("A bot that names no revision runs no release and no bundles.", field="revision")
    if said.revision is not None and said.service is None:
        raise InvalidInput("Name the service whose revision this is.", field="service")


def judged(report: Report, service: str) -> Judged:
    """Hold a report against what its revision says every bot must run."""
    expected = _expected(service, report.said.revision)
    return Judged(report, expected, _find_mismatch(report.said, expected))


def _expected(service: str, revision: int | None) -> Expected | None:
    """None without a revision, and for one that this service never had."""
    try:
        return None if revision is None else _of_the_revision(service, revision)
    except PointerMove.DoesNotExist:
        return None


@lru_cache(maxsize=64)
def _of_the_revision(service: str, revision: int) -> Expected:
    """Raises PointerMove.DoesNotExist, which is not remembered: the revision may come."""
    move = PointerMove.objects.select_related("release").get(pk=revision)
    rows = ReleaseCoin.objects.filter(release=move.release, bundle__isnull=False)
    bundles = dict(rows.values_list("coin__symbol", "bundle__digest")) if move.release else {}
    line = move.release.line if move.release else None
    return Expected(revision, move.moved_at, Running(move.release_id, line, bundles))


def _find_mismatch(said: Heartbeat, expected: Expected | None) -> str:
    if said.revision is None:
        return ""
    if expected is None:
        return f"this service never had revision {said.revision}"
    return differences(said.running, expected.running)
