"""Releases: the list, one release with its gates and charts, and the decisions about it."""

import json

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from accounts.authentication import get_actor
from accounts.decisions import is_same_person
from accounts.roles import Actor
from audit.models import AuditEvent
from common.forms import submit
from common.pages import allow_charts, paginate, render_live
from deploy.bots import live_windows
from deploy.bots.fleet import count_bots
from deploy.forms import DecisionForm
from deploy.models import Release
from deploy.outcomes import list_release_coins
from deploy.pointer import pointer
from deploy.releases import decide as decide_service
from deploy.releases.decision_table import DECISIONS
from deploy.releases.gate_table import build_gate_table
from deploy.releases.presentation import describe_terms
from deploy.releases.preview import list_unchanged_coins, preview_policy
from deploy.releases.progress import load_progress
from deploy.rules import Action, ReleaseState
from gates.charts.diagnosis import TITLES, draw_charts
from gates.charts.live import LIVE_TITLES, Reach, draw_live_charts
from gates.services.policies import policy_in_force

MOVING_SECONDS = 2
HISTORY_SHOWN = 50
# Volatility and drift stand with the diagnosis.
CHARTS = {name: title for name, title in TITLES.items() if name not in ("volatility", "drift")}


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    rows = Release.objects.select_related("status", "policy").prefetch_related(
        "coins__dataset", "budget__runs"
    )
    state = request.GET.get("state")
    if state in set(ReleaseState):
        rows = rows.filter(status__state=state)
    context = {"page": paginate(request, rows), "states": list(ReleaseState), "state": state}
    return render(request, "deploy/releases.html", context)


@require_safe
def show(request: HttpRequest, pk: int) -> HttpResponse:
    return _page(request, _release(pk))


@require_safe
def charts(request: HttpRequest, pk: int, symbol: str) -> JsonResponse:
    """One coin's pictures, under the policy its diagnosis was made by."""
    release_coins = get_object_or_404(Release, pk=pk).coins.select_related("coin", "diagnosis")
    release_coin = release_coins.filter(coin__symbol=symbol).first()
    if release_coin is None or release_coin.diagnosis is None:
        raise Http404(f"{symbol} of release {pk} was not diagnosed.")
    policy = json.loads(release_coin.diagnosis.policy_body)
    return JsonResponse({"charts": draw_charts(release_coin.diagnosis.document, policy), "is_moving": False})


@require_safe
def live_charts(request: HttpRequest, pk: int, symbol: str) -> JsonResponse:
    """What bots predicted of one coin lately, against its gate window, under the policy in force."""
    release_coins = get_object_or_404(Release, pk=pk).coins.select_related("coin", "diagnosis")
    release_coin = get_object_or_404(release_coins, coin__symbol=symbol)
    windows = live_windows.list_recent_windows(release_coin)
    reaches = [
        Reach(window.received_at, window.logit_min, window.logit_max)
        for window in windows
        if window.logit_min is not None and window.logit_max is not None
    ]
    before = release_coin.diagnosis.document if release_coin.diagnosis else {}
    drawn = draw_live_charts(live_windows.add_tallies(windows), reaches, before, policy_in_force().document)
    return JsonResponse({"charts": drawn, "is_moving": False})


@require_http_methods(["GET", "POST"])
def decide(request: HttpRequest, pk: int, action: str) -> HttpResponse:
    """One decision with its reason. Reached by GET (after signing in again, say), it shows the release."""
    release = _release(pk)
    row = next((row for row in DECISIONS.values() if row.button and row.action == action), None)
    if row is None:
        raise Http404(f"There is no decision {action} about a release.")
    if request.method != "POST":
        return redirect("release", pk)
    form = DecisionForm(request.POST, auto_id=f"{action}-%s")

    def act() -> HttpResponse:
        move = decide_service.decide(row.action, release, actor=get_actor(request), **form.cleaned_data)
        revision = move.revision if move else None
        messages.success(request, row.result.format(line=release.line, release=release.pk, revision=revision))
        return redirect("release", pk)

    def show_again(status: int) -> HttpResponse:
        return _page(request, _release(pk), asked=row.action, form=form, status=status)

    return submit(form, act, show_again)


def _release(pk: int) -> Release:
    rows = Release.objects.select_related("status", "policy", "budget").prefetch_related(
        "coins__dataset", "budget__runs", "moves"
    )
    return get_object_or_404(rows, pk=pk)


def _page(
    request: HttpRequest,
    release: Release,
    *,
    asked: Action | None = None,
    form: DecisionForm | None = None,
    status: int = 200,
) -> HttpResponse:
    """The release; after a decision that was refused, with its form as it was filled in."""
    now = pointer.get_current()
    is_building = release.state == ReleaseState.BUILDING
    release_coins = list_release_coins(release)
    context = {
        "release": release,
        "now": now,
        "fleet": count_bots(now, pointer.get_announced())
        if Action.APPROVE in release.allowed_actions
        else None,
        "is_building": is_building,
        "same_coins": list_unchanged_coins(release, now),
        "is_fallback": pointer.get_fallback() == release,
        "release_coins": release_coins,
        "gate_table": build_gate_table(release, release_coins),
        "policy_preview": preview_policy(release),
        "terms": describe_terms(release, release_coins),
        "progress": load_progress(release),
        "decisions": _decisions(release, get_actor(request), now.revision if now else 0, asked, form),
        "charted": [row for row in release_coins if row.diagnosis is not None and not is_building],
        "charts": CHARTS,
        "live": live_windows.summarize_live_coins(release),
        "live_charts": LIVE_TITLES,
        "history": AuditEvent.objects.filter(
            object_type__in=("release", "releasestatus"), object_id=str(release.pk)
        )[:HISTORY_SHOWN],
        "has_charts": True,
    }
    every = MOVING_SECONDS if is_building else None
    names = "deploy/release.html", "deploy/_release.html"
    return allow_charts(render_live(request, *names, context, every_seconds=every, status=status))


def _decisions(
    release: Release, actor: Actor, revision: int, asked: Action | None, filled: DecisionForm | None
) -> list[dict[str, object]]:
    """The decisions that this person is offered, each with its form, and the one they asked for, if any."""
    is_launcher = is_same_person(actor, release.launched_by)
    return [
        {
            "row": row,
            "form": filled if row.action == asked and filled else DecisionForm(auto_id=f"{row.action}-%s"),
            "needs_another": row.is_second_person_needed and is_launcher,
            "revision": revision,
        }
        for row in DECISIONS.values()
        if row.action == asked or (row.action in _list_open_actions(release) and actor.has(row.role))
    ]


def _list_open_actions(release: Release) -> frozenset[str]:
    """The allowed actions, without registering the registered fallback again."""
    is_fallback = pointer.get_fallback() == release
    return release.allowed_actions - ({Action.REGISTER} if is_fallback else set())
