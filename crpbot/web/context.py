from typing import Any

from django.conf import settings
from django.http import HttpRequest

from accounts.authentication import get_actor
from gates.models import PolicyAdoption
from gates.policy import loosened


def service(request: HttpRequest) -> dict[str, Any]:
    """What every page's frame shows: who is signed in with which roles, the profile, and a gate that was loosened."""
    actor = get_actor(request) if hasattr(request, "user") else None
    return {
        "actor": actor,
        "is_embedded": settings.IS_EMBEDDED,
        "loosened": _loosened() if actor and actor.can_view else [],
    }


def _loosened() -> list[str]:
    """Where the policy in force asks less than the baseline; nothing before there is a policy."""
    adoption = PolicyAdoption.objects.select_related("policy").first()
    return loosened(adoption.policy.document) if adoption else []
