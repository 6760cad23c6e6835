"""Machines: which runs, what each cost, prices and the monthly limit."""

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
    if request.method != "POST":
        return redirect("machines")
    form = ReasonForm(request.POST, auto_id="start-%s")

    def act() -> HttpResponse:
        services.start_machine(actor=get_actor(request), **form.cleaned_data)
        messages.success(request, "A machine is requested; it starts within seconds.")
        return redirect("machines")

    return submit(form, act, lambda status: _page(request, status=status, start=form))


@require_http_methods(["GET", "POST"])
def stop(request: HttpRequest, pk: int) -> HttpResponse:
    if request.method != "POST":
        return redirect("machines")
    machine, form = services.find_machine(pk), ReasonForm(request.POST, auto_id="stop-%s")

    def act() -> HttpResponse:
        services.stop_machine(machine, actor=get_actor(request), **form.cleaned_data)
        messages.success(request, f"Machine {pk} is stopped within seconds. Its runs resume elsewhere.")
        return redirect("machines")

    return submit(form, act, lambda status: _page(request, status=status, stop=form))


@require_http_methods(["GET", "POST"])
def price(request: HttpRequest) -> HttpResponse:
    if request.method != "POST":
        return redirect("machines")
    form = PriceForm(request.POST, auto_id="price-%s")

    def act() -> HttpResponse:
        set_price = services.set_price(actor=get_actor(request), **form.cleaned_data)
        messages.success(request, f"The price of {set_price} is set.")
        return redirect("machines")

    return submit(form, act, lambda status: _page(request, status=status, price=form))


@require_http_methods(["GET", "POST"])
def limit(request: HttpRequest) -> HttpResponse:
    if request.method != "POST":
        return redirect("machines")
    form = LimitForm(request.POST, auto_id="limit-%s")

    def act() -> HttpResponse:
        services.set_monthly_limit(actor=get_actor(request), **form.cleaned_data)
        messages.success(request, "The monthly limit is set.")
        return redirect("machines")

    return submit(form, act, lambda status: _page(request, status=status, limit=form))


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
