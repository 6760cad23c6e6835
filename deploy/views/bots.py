"""Bots: what each says it runs, against what every bot must run."""

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from common.pages import paginate, render_live
from deploy.bots.fleet import fleet, standing, worst_first
from deploy.models import Convergence
from deploy.pointer import pointer
from deploy.rules import BotState

MOVING_SECONDS = 2
STILL_SECONDS = 5


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    now = pointer.get_current()
    found = fleet(now, pointer.get_announced(), pointer.get_pinnable())
    rows, state = worst_first(standing(now)), request.GET.get("state")
    if state in set(BotState):
        rows = rows.filter(state=state)
    context = {
        "now": now,
        "fleet": found,
        "convergence": Convergence.objects.filter(move=now).first(),
        "page": paginate(request, rows),
        "states": list(BotState),
        "state": state,
    }
    every = STILL_SECONDS if found.has_converged or not found.live else MOVING_SECONDS
    return render_live(request, "deploy/bots.html", "deploy/_bots.html", context, every_seconds=every)
