"""The health checks for the container engine and the load balancer."""

from django.contrib.auth.decorators import login_not_required
from django.db import DatabaseError
from django.http import HttpRequest, JsonResponse

from audit import triggers
from deploy.models import Alarm


@login_not_required
def live(request: HttpRequest) -> JsonResponse:
    """Liveness: 200 while this process answers requests at all. Restart it when it does not.

    It asks neither the database nor Redis: restarting a web process would not bring them back.
    """
    return JsonResponse({"ok": True})


@login_not_required
def healthz(request: HttpRequest) -> JsonResponse:
    """Readiness: 200 when the database answers and has all guards; 503 with the problem otherwise.

    It names the open alarms but stays 200, because another web process would have the same alarms. Their details need a
    sign-in: `/api/v1/alarms/`.
    """
    try:
        missing = triggers.find_missing()
        alarms = list(Alarm.objects.filter(cleared_at=None).order_by("name").values_list("name", flat=True))
    except DatabaseError:
        return JsonResponse({"ok": False, "problem": "the database does not answer"}, status=503)
    if missing:
        return JsonResponse(
            {"ok": False, "problem": f"{len(missing)} triggers missing; run migrate"}, status=503
        )
    return JsonResponse({"ok": True, "alarms": alarms})
