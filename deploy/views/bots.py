"""The page Bots: what each bot runs, compared with what it must run; and retiring one."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from accounts.authentication import get_actor
from common.forms import ReasonForm, submit
from common.pages import paginate, render_live
from deploy.bots import fleet
from deploy.bots.retirement import RETIRERS, retire_bot
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
        "can_retire": _can_retire(request),
    }
    every = REFRESH_SECONDS if counts.has_converged or not counts.live else MOVING_REFRESH_SECONDS
    return render_live(request, "deploy/bots.html", "deploy/_bots.html", context, every_seconds=every)


@require_http_methods(["GET", "POST"])
def retire(request: HttpRequest, pk: int) -> HttpResponse:
    bot = get_object_or_404(fleet.list_bots_with_state(pointer.get_current()), pk=pk)
    form = ReasonForm(request.POST if request.method == "POST" else None)

    def act() -> HttpResponse:
        retire_bot(bot.name, bot.instance, actor=get_actor(request), **form.cleaned_data)
        messages.success(request, f"{bot} is retired: it raises no alarm. Its next heartbeat brings it back.")
        return redirect("bots")

    def show(status: int = 200) -> HttpResponse:
        context = {"bot": bot, "form": form, "can_retire": _can_retire(request) or form.is_bound}
        return render(request, "deploy/retire_bot.html", context, status=status)

    return submit(form, act, show) if form.is_bound else show()


def _can_retire(request: HttpRequest) -> bool:
    return any(get_actor(request).has(role) for role in RETIRERS)
