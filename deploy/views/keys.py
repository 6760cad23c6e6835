"""The page Keys: the signing keys, how many bots trust each, and the decisions about them."""

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from accounts.authentication import get_actor
from accounts.roles import Actor, Role
from common.forms import ReasonForm, submit
from deploy.bots import key_decisions
from deploy.bots.key_trust import KeyTrust, load_fleet_trust
from deploy.forms import RetirementForm
from deploy.models import SigningKey
from deploy.rules import KeyState
from deploy.serving import keys

DECISIONS: dict[str, tuple[str, Callable[..., SigningKey]]] = {
    "activate": ("Activate", key_decisions.activate_key),
    "retire": ("Retire", key_decisions.retire_key),
    "propose": ("Propose to retire", key_decisions.propose_retirement),
    "approve": ("Approve the retirement", key_decisions.approve_retirement),
}
_DONE = {
    "activate": "It signs now.",
    "retire": "It is retired.",
    "propose": "Another approver has to approve its retirement.",
    "approve": "It is retired.",
}


@require_http_methods(["GET", "POST"])
def index(request: HttpRequest) -> HttpResponse:
    """The list, and the form below it; posted, it creates a key."""
    if request.method != "POST":
        return _page(request)
    form = ReasonForm(request.POST)

    def act() -> HttpResponse:
        key = key_decisions.create_key(actor=get_actor(request), **form.cleaned_data)
        messages.success(request, f"Created {key}. Bots trust it from now on; it signs once it is activated.")
        return redirect("keys")

    return submit(form, act, lambda status: _page(request, form, status=status))


@require_POST
def change(request: HttpRequest, key_id: str, verb: str) -> HttpResponse:
    if verb not in DECISIONS:
        raise Http404
    key, form = keys.find(key_id), _build_form(verb, key_id, request.POST)

    def act() -> HttpResponse:
        DECISIONS[verb][1](key, actor=get_actor(request), **form.cleaned_data)
        messages.success(request, f"{str(key).capitalize()}: {_DONE[verb]}")
        return redirect("keys")

    return submit(form, act, lambda status: _page(request, changing={(key.pk, verb): form}, status=status))


def _build_form(verb: str, key_id: str, data: Any = None, cut_off: int = 0) -> ReasonForm:
    form = RetirementForm if verb == "approve" else ReasonForm
    return form(data, auto_id=f"id_{key_id[:12]}_{verb}_%s", initial={"cut_off": cut_off})


def _page(
    request: HttpRequest,
    form: forms.Form | None = None,
    changing: dict[tuple[int, str], ReasonForm] | None = None,
    status: int = 200,
) -> HttpResponse:
    actor, changing, trust = get_actor(request), changing or {}, load_fleet_trust()
    signing = {key.pk for key in keys.list_active()}
    rows = []
    for key in SigningKey.objects.order_by("-pk"):
        counts = trust.count(key)
        verbs = [verb for _, verb in changing if _ == key.pk] or _list_verbs(key, counts, signing, actor)
        forms_of_key = [
            {
                "verb": verb,
                "label": DECISIONS[verb][0],
                "form": changing.get((key.pk, verb)) or _build_form(verb, key.key_id, cut_off=counts.cut_off),
            }
            for verb in verbs
        ]
        rows.append({"key": key, "trust": counts, "decisions": forms_of_key})
    context = {
        "rows": rows,
        "bots": len(trust.trusted),
        "form": form or ReasonForm(),
        "can_decide": actor.has(Role.APPROVER) or bool(changing) or form is not None,
    }
    return render(request, "deploy/keys.html", context, status=status)


def _list_verbs(key: SigningKey, trust: KeyTrust, signing: set[int], actor: Actor) -> list[str]:
    """The decisions to offer; the services decide again."""
    if key.state == KeyState.RETIRED or not actor.has(Role.APPROVER):
        return []
    verbs = ["activate"] if key.state == KeyState.NEXT else []
    if signing == {key.pk}:
        return verbs
    if not trust.cut_off:
        return [*verbs, "retire"]
    if not key.retirement_proposed_by:
        return [*verbs, "propose"]
    return verbs if key.retirement_proposed_by == actor.name else [*verbs, "approve"]
