from typing import Any

from django.conf import settings
from django.http import HttpRequest

from accounts.authentication import actor_of


def service(request: HttpRequest) -> dict[str, Any]:
    """What every page's frame shows: who is signed in with which roles, and the profile."""
    return {
        "actor": actor_of(request) if hasattr(request, "user") else None,
        "is_embedded": settings.IS_EMBEDDED,
    }
