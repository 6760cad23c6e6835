"""The sessions of a person: where they are signed in, ending one, and the end of those that nobody uses."""

import hashlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends.base import SessionBase
from django.http import HttpRequest

from accounts.identity.session_store import SEEN, STARTED, is_over
from accounts.models import Session, User
from accounts.sign_in import get_address
from audit import services as audit
from common.errors import NotFound

ADDRESS, BROWSER = "address", "browser"
SEEN_EVERY_SECONDS = 60.0
"""How often the use of a session is stored, at most: no request writes just for that."""
MAX_BROWSER = 200


@dataclass(frozen=True)
class OpenSession:
    """One place where a person is signed in."""

    number: str
    """Names the session on the page, without its secret key."""
    started_at: datetime
    seen_at: datetime
    address: str
    browser: str
    is_own: bool


def begin(request: HttpRequest) -> None:
    """Note in a new session when and where the person signed in."""
    session = request.session
    session[STARTED] = session[SEEN] = time.time()
    session[ADDRESS] = get_address(request)
    session[BROWSER] = request.headers.get("User-Agent", "")[:MAX_BROWSER]


def note_use(session: SessionBase) -> None:
    """Remember that the person used this session just now."""
    if settings.SESSION_IDLE_SECONDS and time.time() - session.get(SEEN, 0.0) > SEEN_EVERY_SECONDS:
        session[SEEN] = time.time()


def list_sessions(user: User, own_key: str | None) -> list[OpenSession]:
    """Where this person is signed in now, the last used first."""
    rows = []
    for row in user.sessions.order_by("pk"):
        data = row.get_decoded()
        if row.expire_date.timestamp() > time.time() and SESSION_KEY in data and not is_over(data):
            rows.append(_describe(row, data, own_key))
    return sorted(rows, key=lambda row: row.seen_at, reverse=True)


def end_session(user: User, number: str) -> None:
    """End one session of this person at once. Raises NotFound where there is none of this number."""
    row = next((row for row in user.sessions.all() if _number(row.session_key) == number), None)
    if row is None:
        raise NotFound("This session has ended already.")
    with audit.locked():
        row.delete()
        audit.record("user.session_ended", user, actor=user.username)


def end_all(user: User) -> None:
    """End every session of this person. The caller records why."""
    Session.objects.filter(user=user).delete()


def _describe(row: Session, data: dict[str, object], own_key: str | None) -> OpenSession:
    return OpenSession(
        number=_number(row.session_key),
        started_at=_to_time(data.get(STARTED)),
        seen_at=_to_time(data.get(SEEN)),
        address=str(data.get(ADDRESS, "")),
        browser=str(data.get(BROWSER, "")),
        is_own=row.session_key == own_key,
    )


def _number(session_key: str) -> str:
    return hashlib.sha256(session_key.encode()).hexdigest()[:16]


def _to_time(seconds: object) -> datetime:
    return datetime.fromtimestamp(float(str(seconds or 0)), UTC)
