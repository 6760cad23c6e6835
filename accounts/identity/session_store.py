"""Django's sessions in the database, with the person in a column, so that they can be listed and ended.

A session that nobody used for a while, or that is old, is read as if it were not there.
"""

import time
from typing import Any

from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore

from accounts.models import Session

STARTED, SEEN = "started_at", "seen_at"


class SessionStore(DatabaseStore):
    @classmethod
    def get_model_class(cls) -> type[Session]:
        return Session

    def create_model_instance(self, data: dict[str, Any]) -> Session:
        row: Any = super().create_model_instance(data)
        row.user_id = int(data[SESSION_KEY]) if SESSION_KEY in data else None
        return row  # type: ignore[no-any-return]

    def load(self) -> dict[str, Any]:
        data: dict[str, Any] = super().load()
        if is_over(data):
            self._session_key = None
            return {}
        return data


def is_over(data: dict[str, Any]) -> bool:
    """Whether this session was unused for too long, or began too long ago. A session without a person never is."""
    if SESSION_KEY not in data:
        return False
    now, idle = time.time(), settings.SESSION_IDLE_SECONDS
    return (
        bool(idle and now - data.get(SEEN, 0.0) > idle)
        or now - data.get(STARTED, 0.0) > settings.SESSION_COOKIE_AGE
    )
