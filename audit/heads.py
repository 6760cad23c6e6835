"""Audit heads kept outside the database: a chain that was cut short together with its head is noticed by them.

One line of JSON for each head, only ever appended. A head binds every event before it by its hash.
"""

import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from django.conf import settings

from audit.models import AuditEvent

TAIL_BYTES = 4_096
"""Enough for the last lines, so that looking at the last head does not read the whole file."""

logger = logging.getLogger(__name__)
_get_service_name: Callable[[], str]


@dataclass(frozen=True)
class KeptHead:
    """The end of one service's chain at some time: the number of its last event, and the hash of that."""

    service: str
    seq: int
    hash: str


def name_service_by(callback: Callable[[], str]) -> None:
    """Let `callback()` say whose heads are compared. `deploy` knows the name, and is not imported here."""
    global _get_service_name
    _get_service_name = callback


def read_own(path: Path) -> list[KeptHead]:
    """The heads of this service in the file, the oldest first. A line that was cut off by a crash is left out.

    Raises OSError where the file cannot be read.
    """
    service = _get_service_name()
    return [head for head in _parse(path.read_bytes().splitlines()) if head.service == service]


def read_last(service: str) -> KeptHead | None:
    """The head that was kept last for this service; None where there is none. Raises OSError."""
    try:
        with _path().open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return None
    return next((head for head in reversed([*_parse(lines)]) if head.service == service), None)


def keep(head: KeptHead) -> None:
    """Append a head, unless it is the last one. A full disk is only logged: nothing may wait for it."""
    try:
        if read_last(head.service) == head:
            return
        file = os.open(_path(), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)  # another process may just have written the same
            if read_last(head.service) != head:
                # After a line that was cut off, this one must begin on its own.
                os.write(file, b"\n" * _ends_within_line() + json.dumps(asdict(head)).encode() + b"\n")
                os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        logger.warning("the audit head %d could not be kept in %s: %s", head.seq, _path(), error)


def is_held(head: KeptHead) -> bool:
    """Whether the chain in the database holds this head."""
    return AuditEvent.objects.filter(pk=head.seq, hash=head.hash).exists()


def find_contradicted(
    heads: Iterable[KeptHead], hashes: dict[int, str], accepted: set[tuple[int, str]]
) -> Iterator[KeptHead]:
    """The heads that a chain with these hashes does not hold.

    `accepted` are heads whose loss an approver stated, when they advanced the revision after a restored backup: those kept
    before them are excused too.
    """
    contradicted: list[KeptHead] = []
    for head in heads:
        if hashes.get(head.seq) != head.hash:
            contradicted.append(head)
        if (head.seq, head.hash) in accepted:
            contradicted.clear()
    return iter(contradicted)


def _parse(lines: Iterable[bytes]) -> Iterator[KeptHead]:
    for line in lines:
        try:
            document = json.loads(line)
            yield KeptHead(str(document["service"]), int(document["seq"]), str(document["hash"]))
        except (ValueError, KeyError, TypeError):
            continue


def _ends_within_line() -> bool:
    with _path().open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def _path() -> Path:
    return Path(settings.AUDIT_HEADS_FILE)
