from typing import Any

from django.conf import settings
from django.http import HttpRequest

from accounts.authentication import get_actor
from accounts.identity import confirm
from gates.models import PolicyAdoption
from gates.policy_changes import weaker_than_baseline


def add_service_context(request: HttpRequest) -> dict[str, Any]:
    """What every page shows: the user and roles, the profile, and where the policy is weaker than the baseline."""
    actor = get_actor(request) if hasattr(request, "user") else None
    return {
        "actor": actor,
        "is_embedded": settings.IS_EMBEDDED,
        "lacks_factor": bool(actor) and confirm.lacks_factor(request),
        "weaker_than_baseline": _list_weaknesses() if actor and actor.can_view else [],
    }


def _list_weaknesses() -> list[str]:
    """Where the policy in force asks less than the baseline; nothing before there is a policy."""
    adoption = PolicyAdoption.objects.select_related("policy").first()
    return weaker_than_baseline(adoption.policy.document) if adoption else []
