"""Notes the use of sessions, by which unused ones end (accounts/identity/session_store.py)."""

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from django.utils.deprecation import MiddlewareMixin

from accounts.identity import sessions

SAFE = ("GET", "HEAD", "OPTIONS")


class NoteSessionUse(MiddlewareMixin):
    """A page that refreshes itself is no use of its session: nobody may be sitting in front of it."""

    def process_view(self, request: HttpRequest, view: Callable[..., Any], args: Any, kwargs: Any) -> None:
        if (
            getattr(view, "login_required", True)
            and request.user.is_authenticated
            and not _is_refresh(request)
        ):
            sessions.note_use(request.session)


def _is_refresh(request: HttpRequest) -> bool:
    by_script = request.headers.get("HX-Request") or request.headers.get("Sec-Fetch-Dest") == "empty"
    return request.method in SAFE and bool(by_script)
