"""Machines: which runs, what each cost, prices and the monthly limit."""

from collections.abc import Callable
from functools import partial

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from accounts.authentication import get_actor
from accounts.roles import Role
from common.forms import ReasonForm, submit
from common.pages import paginate, render_live
from machines import services
from machines.configuration import get_configuration
from machines.control import costs, lives
from machines.forms import LimitForm, PriceForm
from machines.models import ControllerTurn, Machine

EVERY_SECONDS = 5


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    return _page(request)


@require_http_methods(["GET", "POST"])
def start(request: HttpRequest) -> HttpResponse:
    done = "A machine is requested; it starts within seconds."
    return _change(request, "start", ReasonForm, services.start_machine, done)


@require_http_methods(["GET", "POST"])
def stop(request: HttpRequest, pk: int) -> HttpResponse:
    act = partial(services.stop_machine, services.find_machine(pk))
    return _change(
        request, "stop", ReasonForm, act, "The {} is stopped within seconds. Its runs resume elsewhere."
    )


@require_http_methods(["GET", "POST"])
def price(request: HttpRequest) -> HttpResponse:
    return _change(request, "price", PriceForm, services.set_price, "The price of {} is set.")


@require_http_methods(["GET", "POST"])
def limit(request: HttpRequest) -> HttpResponse:
    return _change(request, "limit", LimitForm, services.set_monthly_limit, "The monthly limit is set.")


def _change(
    request: HttpRequest, name: str, form_class: type[forms.Form], act: Callable[..., object], done: str
) -> HttpResponse:
    """Call the service with what the form of this name holds; a GET, as after signing in again, shows the page."""
    if request.method != "POST":
        return redirect("machines")
    form = form_class(request.POST, auto_id=f"{name}-%s")

    def carry_out() -> HttpResponse:
        changed = act(actor=get_actor(request), **form.cleaned_data)
        messages.success(request, done.format(changed))
        return redirect("machines")

    return submit(form, carry_out, lambda status: _page(request, status=status, **{name: form}))


def _page(request: HttpRequest, *, status: int = 200, **refused: forms.Form) -> HttpResponse:
    """The page; after a request that was refused, with its form as it was filled in."""
    actor, configuration = get_actor(request), get_configuration()
    now = timezone.now()
    first = (
        {"instance_type": configuration.instance_type, "region": configuration.region}
        if configuration
        else {}
    )
    open_lives = list(lives.list_open().prefetch_related("uses__run__coin"))
    rows = Machine.objects.prefetch_related("uses__run__coin").order_by("-pk")
    limit_usd, spent = costs.get_monthly_limit(), costs.sum_month(now)
    context = {
        "configuration": configuration,
        "turn": ControllerTurn.objects.first(),
        "open_lives": open_lives,
        "page": paginate(request, rows),
        "prices": services.list_prices(),
        "limit_usd": limit_usd,
        "spent_usd": spent,
        "month": now,
        "start_form": refused.get("start") or ReasonForm(auto_id="start-%s"),
        "stop_form": refused.get("stop") or ReasonForm(auto_id="stop-%s"),
        "price_form": refused.get("price") or PriceForm(initial=first, auto_id="price-%s"),
        "limit_form": refused.get("limit") or LimitForm(initial={"usd": limit_usd}, auto_id="limit-%s"),
        "can_start": (actor.has(Role.OPERATOR) and configuration and not open_lives) or "start" in refused,
        "can_stop": actor.has(Role.OPERATOR) or actor.has(Role.APPROVER) or "stop" in refused,
        "can_set": actor.has(Role.APPROVER) or bool({"price", "limit"} & refused.keys()),
    }
    every = EVERY_SECONDS if configuration else None
    return render_live(
        request,
        "machines/machines.html",
        "machines/_machines.html",
        context,
        every_seconds=every,
        status=status,
    )
