"""The journal beside the backups: what was closed, rolled back or rotated, written within seconds of its event.

A backup knows nothing of what came after it, so a restore would open closed accounts again and lead bots back to a release
that was rolled back. The journal has these audit events, as they are in the chain, in files that are only ever added:

    journal/20261129T094512Z-1234-1240.jsonl   the events after 1234, up to 1240

An event carries a code that only this service can make, so nobody who can only write to the store adds one. The last line
of a file signs the others and the numbers in its name, so nobody takes one away unnoticed; a file that was removed from
between others leaves a gap. A restore reports both.
"""

import hashlib
import io
import json
import logging
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.core.files.base import ContentFile
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from audit import services as audit
from audit.models import AuditEvent
from common.errors import Conflict, DomainError
from crpbot.backup import seal, store
from crpbot.backup.seal import Access
from crpbot.backup.store import Manifest
from deploy.alarms import backups
from deploy.models import BackupJournal
from deploy.rules import BackupKind

FOLDER = "journal"
KINDS = (
    *("user.closed", "token.revoked", "role.granted", "role.withdrawn"),
    *("user.password_set", "user.factor_removed", "user.factors_removed", "user.linked"),
    *("pointer.swap", "pointer.pin", "pointer.offline", "pointer.advanced", "fallback.registered"),
    *("releasestatus.live", "releasestatus.superseded", "releasestatus.rolled_back"),
    *("signingkey.created", "signingkey.active", "signingkey.retired"),
)
"""The kinds of the events that a restore must know of."""
MOST_EVENTS = 2_000
"""In one file: what is left over is in the next one, seconds later."""
TOLERANCE = timedelta(minutes=10)
"""Clocks differ by less. What is older than a backup by more belongs to a time before another restore."""
PAUSE_SECONDS = 30.0
"""Between two attempts while the store does not answer, for which reconcile waits."""

logger = logging.getLogger(__name__)
_NAME = re.compile(r"(\d{8}T\d{6}Z)-(\d+)-(\d+)\.jsonl")
_COLUMNS = (
    "seq", "at", "actor", "kind", "object_type", "object_id", "object_name", "reason", "previous_hash", "body", "hash",
    "mac",
)  # fmt: skip
_looked_at = 0
_paused_until = 0.0


@dataclass(frozen=True)
class Since:
    """What the journal says of the time after a backup."""

    events: Sequence[AuditEvent]
    gap: str = ""
    """Where something is missing, in a sentence."""


def write() -> None:
    """Write the events since the last time. `reconcile` calls it; a store that does not answer is an alarm after a while.

    Nothing is written before the first backup, which holds all until then.
    """
    global _looked_at, _paused_until
    if not settings.BACKUP_HOURS or time.monotonic() < _paused_until:
        return
    row = BackupJournal.objects.first() or _begin()
    if row is None or not (events := _list_events(max(row.seq, _looked_at), through := audit.get_last_seq())):
        return
    through = events[-1].seq if len(events) == MOST_EVENTS else through
    try:
        _save(row.seq, through, events)
    except DomainError as failure:
        _paused_until = time.monotonic() + PAUSE_SECONDS
        since = row.failing_since or timezone.now()
        BackupJournal.objects.update(problem=failure.message, failing_since=since)
        logger.warning("the journal beside the backups was not written: %s", failure.message)
        return
    # Of two processes that wrote the same, the second changes nothing here; its file repeats the other's.
    BackupJournal.objects.filter(seq=row.seq).update(seq=through, problem="", failing_since=None)
    _looked_at = through


def read_since(manifest: Manifest, access: Access) -> Since:
    """What happened after a backup, as far as the journal knows. Events that an earlier restore cut off are left out.

    Raises Conflict for an event that this service did not write.
    """
    events, gap = dict[str, AuditEvent](), ""
    position = manifest.head.seq
    since = datetime.fromisoformat(manifest.created_at) - TOLERANCE
    for name, at, after, through in _list_files():
        if at < since or through <= manifest.head.seq:
            continue
        if after > position and not gap:
            gap = f"Events {position + 1} to {after} are missing from the journal."
        position = max(position, through)
        *lines, end = _read_lines(name, access) or [b""]
        if not _is_signed(end, lines, after, through, access) and not gap:
            gap = (
                f"The file {name} of the journal was changed, or signed with another key: of the events {after + 1} to"
                f" {through} some may be missing."
            )
        for event in _parse_events(name, lines):
            if event.seq > manifest.head.seq and event.at >= since:
                events[event.hash] = event
    return Since(sorted(events.values(), key=lambda event: (event.at, event.seq)), gap)


def list_older(than: datetime) -> list[str]:
    """The files that no backup of this time or later needs."""
    return [f"{FOLDER}/{name}" for name, at, _, _ in _list_files() if at < than - TOLERANCE]


def rewind(seq: int) -> None:
    """After a restore: the chain goes on from here."""
    BackupJournal.objects.update_or_create(pk=1, defaults={"seq": seq, "problem": "", "failing_since": None})


def _begin() -> BackupJournal | None:
    """Where the newest backup ends; None before the first."""
    newest = backups.find_last(BackupKind.BACKUP)
    if newest is None or "seq" not in newest.result:
        return None
    return BackupJournal.objects.get_or_create(pk=1, defaults={"seq": newest.result["seq"]})[0]


def _list_events(after: int, through: int) -> list[AuditEvent]:
    global _looked_at
    if through <= after:
        _looked_at = min(_looked_at, through)  # a restored chain is shorter
        return []
    events = AuditEvent.objects.filter(seq__gt=after, seq__lte=through, kind__in=KINDS)
    found = list(events.order_by("seq")[:MOST_EVENTS])
    if not found:
        _looked_at = through
    return found


def _save(after: int, through: int, events: Sequence[AuditEvent]) -> None:
    lines = [
        json.dumps({name: _to_json(getattr(event, name)) for name in _COLUMNS}).encode() for event in events
    ]
    end = seal.sign(_describe_lines(lines, after, through))
    content = b"".join(line + b"\n" for line in (*lines, end))
    if recipients := seal.list_recipients():
        encrypted = io.BytesIO()
        seal.encrypt(io.BytesIO(content), encrypted, recipients)
        content = encrypted.getvalue()
    store.save(f"{FOLDER}/{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{after}-{through}.jsonl", ContentFile(content))


def _to_json(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value


def _list_files() -> list[tuple[str, datetime, int, int]]:
    """Name, time, and the events between which each file lies; the oldest first."""
    found = []
    for name in store.list_folder(FOLDER):
        if match := _NAME.fullmatch(name):
            at = datetime.strptime(match[1], "%Y%m%dT%H%M%S%z")
            found.append((name, at, int(match[2]), int(match[3])))
    return sorted(found, key=lambda file: file[1:])


def _describe_lines(lines: Sequence[bytes], after: int, through: int) -> bytes:
    """What the last line of a file signs."""
    digest = hashlib.sha256(b"\n".join(lines)).hexdigest()
    return json.dumps({"after": after, "through": through, "sha256": digest}).encode()


def _is_signed(end: bytes, lines: Sequence[bytes], after: int, through: int, access: Access) -> bool:
    try:
        return seal.open_envelope(end, access.public_hex) == _describe_lines(lines, after, through)
    except Conflict:
        return False


def _read_lines(name: str, access: Access) -> list[bytes]:
    content = store.read(f"{FOLDER}/{name}")
    if content.startswith(b"age-encryption.org/"):
        plain = io.BytesIO()
        seal.decrypt(io.BytesIO(content), plain, access)
        content = plain.getvalue()
    return content.splitlines()


def _parse_events(name: str, lines: Sequence[bytes]) -> Iterator[AuditEvent]:
    for line in lines:
        try:
            columns = json.loads(line)
            event = AuditEvent(**{**columns, "at": parse_datetime(columns["at"])})
            is_authentic = audit.is_authentic(event)
        except (ValueError, KeyError, TypeError):
            is_authentic = False
        if not is_authentic:
            raise Conflict(
                f"The journal was changed: an event of {name} was not written by this service. Restore with"
                " --without-journal, and decide about every account, token and release yourself."
            )
        yield event
