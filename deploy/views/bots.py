"""The page Bots: what each bot runs, compared with what it must run."""

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from common.pages import paginate, render_live
from deploy.bots import fleet
from deploy.models import Convergence
from deploy.pointer import pointer
from deploy.rules import BotState

MOVING_REFRESH_SECONDS = 2
REFRESH_SECONDS = 5


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    move = pointer.get_current()
    counts = fleet.count_bots(move, pointer.get_announced(), pointer.get_pinnable())
    rows, state = fleet.order_by_urgency(fleet.list_bots_with_state(move)), request.GET.get("state")
    if state in set(BotState):
        rows = rows.filter(state=state)
    context = {
        "move": move,
        "fleet": counts,
        "convergence": Convergence.objects.filter(move=move).first(),
        "page": paginate(request, rows),
        "states": list(BotState),
        "state": state,
    }
    every = REFRESH_SECONDS if counts.has_converged or not counts.live else MOVING_REFRESH_SECONDS
    return render_live(request, "deploy/bots.html", "deploy/_bots.html", context, every_seconds=every)
