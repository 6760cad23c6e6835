"""Taking back a dataset: what its page posts."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_http_methods

from accounts.authentication import get_actor
from common.errors import DomainError
from common.forms import ReasonForm, show_refusal
from deploy import services
from training.services.candle_checks import list_datasets_refused_for
from training.services.datasets import find_dataset
from training.views import datasets


@require_http_methods(["GET", "POST"])
def withdraw(request: HttpRequest, pk: int) -> HttpResponse:
    if request.method != "POST":
        return redirect("dataset", pk)
    dataset, form = find_dataset(pk), ReasonForm(request.POST)
    if not form.is_valid():
        return datasets.page(request, dataset, withdrawal=form, status=400)
    try:
        dataset = services.withdraw_dataset(
            dataset, actor=get_actor(request), reason=form.cleaned_data["reason"]
        )
    except DomainError as refusal:
        show_refusal(form, refusal)
        return datasets.page(request, dataset, withdrawal=form, status=refusal.status)
    messages.success(request, f"Dataset {pk} is withdrawn.")
    for other in list_datasets_refused_for(dataset):
        messages.warning(
            request,
            f"{other.coin}'s dataset {other.pk} failed because of it. Withdraw it too and upload its file"
            " again to repeat its checks.",
        )
    return redirect("dataset", pk)
