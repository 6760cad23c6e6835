"""The board: what is live now and why, in one glance; and the pin."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_http_methods, require_safe

from accounts.authentication import get_actor
from accounts.rules import Role
from common.errors import DomainError
from common.forms import ReasonForm, show_refusal
from common.pages import render_live
from deploy import services
from deploy.releases.board import board, load_gate_table
from deploy.releases.preview import preview_policy
from deploy.rules import MoveKind

MOVING_SECONDS = 2
STILL_SECONDS = 10
"""How often the board looks when nothing is built: the gate or another person may move the pointer at any time."""


@require_safe
def show(request: HttpRequest) -> HttpResponse:
    return _page(request, ReasonForm())


@require_http_methods(["GET", "POST"])
def pin(request: HttpRequest) -> HttpResponse:
    """Hold every bot on the fallback. Reached by GET (after signing in again, say), it shows the board."""
    if request.method != "POST":
        return redirect("board")
    form = ReasonForm(request.POST)
    if not form.is_valid():
        return _page(request, form, status=400)
    try:
        move = services.pin(actor=get_actor(request), reason=form.cleaned_data["reason"])
    except DomainError as refusal:
        show_refusal(form, refusal)
        return _page(request, form, status=refusal.status)
    if move.kind == MoveKind.PIN and move.release:
        messages.success(
            request, f"Pinned: every bot must run {move.release.line} (revision {move.revision})."
        )
    else:
        messages.warning(
            request, f"Offline: the fallback is not ready, so bots answer neutral (revision {move.revision})."
        )
    return redirect("board")


def _page(request: HttpRequest, pin_form: ReasonForm, status: int = 200) -> HttpResponse:
    found = board()
    shows_live = request.GET.get("gates") == "live" or found.candidate is None
    of_candidate = load_gate_table(found.candidate)
    context = {
        "board": found,
        "shown": found.live if shows_live else found.candidate,
        "shows_live": shows_live,
        "gate_table": load_gate_table(found.live) if shows_live else of_candidate,
        "candidate_gate_table": of_candidate,
        "policy_preview": preview_policy(found.candidate),
        "pin_form": pin_form,
        "can_pin": found.now is not None
        and not found.is_on_fallback
        and get_actor(request).has(Role.APPROVER),
    }
    every = MOVING_SECONDS if found.is_moving else STILL_SECONDS
    return render_live(
        request, "deploy/board.html", "deploy/_board.html", context, every_seconds=every, status=status
    )
