"""The health checks for the container engine and the load balancer."""

from typing import cast

from django.contrib.auth.decorators import login_not_required
from django.core.cache import cache
from django.db import DatabaseError
from django.http import HttpRequest, JsonResponse

from audit import triggers
from crpbot.database_failures import NOT_MIGRATED, is_not_migrated
from deploy.alarms.detect import detect_own_alarms
from deploy.alarms.record import record_silent_reconcile
from deploy.models import Alarm

OWN_ALARMS_SECONDS = 5
"""How long the alarms that this process detects itself are kept: nobody has to sign in to ask."""


@login_not_required
def live(request: HttpRequest) -> JsonResponse:
    """Liveness: 200 while this process answers requests at all. Restart it when it does not.

    It asks neither the database nor Redis: restarting a web process would not bring them back.
    """
    return JsonResponse({"ok": True})


@login_not_required
def healthz(request: HttpRequest) -> JsonResponse:
    """Readiness: 200 when the database answers and has all guards; 503 with the problem otherwise.

    It names the open alarms, and those that this process detects itself, because reconcile cannot report its own silence.
    It stays 200 with them, because another web process would have the same. Details need a sign-in: `/api/v1/alarms/`.
    """
    try:
        missing = triggers.find_missing()
        recorded = set(Alarm.objects.filter(cleared_at=None).values_list("name", flat=True))
        own = set(cast(list[str], cache.get_or_set("own-alarms", _detect_own_alarms, OWN_ALARMS_SECONDS)))
    except DatabaseError as error:
        problem = NOT_MIGRATED if is_not_migrated(error) else "the database does not answer"
        return JsonResponse({"ok": False, "problem": problem}, status=503)
    if missing:
        return JsonResponse(
            {"ok": False, "problem": f"{len(missing)} triggers missing; run migrate"}, status=503
        )
    return JsonResponse({"ok": True, "alarms": sorted(recorded | own)})


def _detect_own_alarms() -> list[str]:
    alarms = list(detect_own_alarms())
    record_silent_reconcile(alarms)
    return [str(alarm.name) for alarm in alarms]
