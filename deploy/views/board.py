"""The board: what is live now and why; and the pin."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_http_methods, require_safe

from accounts.authentication import get_actor
from accounts.roles import Role
from common.forms import ReasonForm, submit
from common.pages import is_partial, render_live
from deploy.releases import decide
from deploy.releases.board import load_board, load_board_for_refresh
from deploy.rules import MoveKind

MOVING_SECONDS = 2
STILL_SECONDS = 10
"""How often the board is refreshed when nothing is built: the pointer may still be moved at any time."""


@require_safe
def show(request: HttpRequest) -> HttpResponse:
    return _page(request, ReasonForm())


@require_http_methods(["GET", "POST"])
def pin(request: HttpRequest) -> HttpResponse:
    """Pin the fallback. A GET, as after signing in again, shows the board."""
    if request.method != "POST":
        return redirect("board")
    form = ReasonForm(request.POST)

    def act() -> HttpResponse:
        move = decide.pin(actor=get_actor(request), **form.cleaned_data)
        at = f"(revision {move.revision})"
        if move.kind == MoveKind.PIN and move.release:
            messages.success(request, f"Pinned: every bot must run {move.release.line} {at}.")
        else:
            messages.warning(request, f"Offline: the fallback is not ready, so bots answer neutral {at}.")
        return redirect("board")

    return submit(form, act, lambda status: _page(request, form, status))


def _page(request: HttpRequest, pin_form: ReasonForm, status: int = 200) -> HttpResponse:
    board = load_board_for_refresh() if is_partial(request) else load_board()
    actor = get_actor(request)
    shows_live = request.GET.get("gates") == "live" or board.candidate is None
    context = {
        "board": board,
        "shown": board.live if shows_live else board.candidate,
        "shows_live": shows_live,
        "gate_table": board.live_gate_table if shows_live else board.candidate_gate_table,
        "candidate_gate_table": board.candidate_gate_table,
        "policy_preview": board.policy_preview,
        "pin_form": pin_form,
        "can_pin": board.move is not None and not board.is_on_fallback and actor.has(Role.APPROVER),
    }
    return render_live(
        request,
        "deploy/board.html",
        "deploy/_board.html",
        context,
        every_seconds=MOVING_SECONDS if board.is_moving else STILL_SECONDS,
        status=status,
        fingerprints=board.fingerprints,
        reader=(actor.roles, shows_live),
    )
