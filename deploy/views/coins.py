"""Coins: which there are, which a release must carry, and what a change would mean; and withdrawing candles."""

from typing import Any

from django import forms
from django.contrib import messages
from django.db.models import Count, OuterRef, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from accounts.authentication import get_actor
from accounts.roles import Role
from common.forms import ReasonForm, submit
from deploy.forms import CoinForm
from deploy.releases.coins import add_coin, list_consequences, set_required
from deploy.releases.withdraw_dataset import withdraw_dataset
from training.models import Coin, Dataset
from training.services.candle_checks import list_datasets_refused_for
from training.services.coins import find_coin
from training.services.datasets import find_dataset
from training.views import datasets

_COUNT_DATASETS = (
    Dataset.objects.filter(coin=OuterRef("pk")).order_by().values("coin").values(count=Count("pk"))
)


@require_http_methods(["GET", "POST"])
def index(request: HttpRequest) -> HttpResponse:
    """The list, and the form below it; posted, it adds a coin."""
    if request.method != "POST":
        return _page(request, CoinForm())
    form = CoinForm(request.POST)

    def act() -> HttpResponse:
        coin = add_coin(actor=get_actor(request), **form.cleaned_data)
        messages.success(request, f"Added {coin}. No release need carry it until an approver requires it.")
        return redirect("coins")

    return submit(form, act, lambda status: _page(request, form, status=status))


@require_POST
def change(request: HttpRequest, symbol: str) -> HttpResponse:
    """Require a coin that is not, or release one that is. What follows stands beside the button."""
    coin, actor = find_coin(symbol), get_actor(request)
    is_required = request.POST.get("is_required") == "yes"
    form = _form_of(coin, request.POST)

    def act() -> HttpResponse:
        set_required(coin, is_required, actor=actor, is_confirmed=True, **form.cleaned_data)
        messages.success(request, f"{coin} is {'now required' if is_required else 'no longer required'}.")
        return redirect("coins")

    return submit(form, act, lambda status: _page(request, CoinForm(), {coin.symbol: form}, status))


@require_http_methods(["GET", "POST"])
def withdraw(request: HttpRequest, pk: int) -> HttpResponse:
    if request.method != "POST":
        return redirect("dataset", pk)
    dataset, form = find_dataset(pk), ReasonForm(request.POST)

    def act() -> HttpResponse:
        withdrawn = withdraw_dataset(dataset, actor=get_actor(request), **form.cleaned_data)
        messages.success(request, f"Dataset {pk} is withdrawn.")
        for other in list_datasets_refused_for(withdrawn):
            messages.warning(
                request,
                f"{other.coin}'s dataset {other.pk} failed because of it. Withdraw it too and upload its file"
                " again to repeat its checks.",
            )
        return redirect("dataset", pk)

    return submit(form, act, lambda status: datasets.page(request, dataset, withdrawal=form, status=status))


def _form_of(coin: Coin, data: Any = None) -> ReasonForm:
    return ReasonForm(data, auto_id=f"id_{coin.symbol}_%s")


def _page(
    request: HttpRequest, form: forms.Form, changing: dict[str, ReasonForm] | None = None, status: int = 200
) -> HttpResponse:
    actor, changing = get_actor(request), changing or {}
    coins = [
        {
            "coin": coin,
            "form": changing.get(coin.symbol) or _form_of(coin),
            "follows": list_consequences(coin, is_required=not coin.is_required),
        }
        for coin in Coin.objects.annotate(dataset_count=Coalesce(Subquery(_COUNT_DATASETS), 0))
    ]
    context = {
        "coins": coins,
        "form": form,
        "can_add": actor.has(Role.OPERATOR) or form.is_bound,
        "can_change": actor.has(Role.APPROVER) or bool(changing),
    }
    return render(request, "deploy/coins.html", context, status=status)
