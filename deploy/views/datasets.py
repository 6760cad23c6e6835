"""Taking back a dataset: what its page posts."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_http_methods

from accounts.authentication import get_actor
from common.forms import ReasonForm, submit
from deploy.releases.withdraw import withdraw_dataset
from training.services.candle_checks import list_datasets_refused_for
from training.services.datasets import find_dataset
from training.views import datasets


@require_http_methods(["GET", "POST"])
def withdraw(request: HttpRequest, pk: int) -> HttpResponse:
    if request.method != "POST":
        return redirect("dataset", pk)
    dataset, form, actor = find_dataset(pk), ReasonForm(request.POST), get_actor(request)
    withdrawn, status = submit(form, lambda data: withdraw_dataset(dataset, actor=actor, **data))
    if withdrawn is None:
        return datasets.page(request, dataset, withdrawal=form, status=status)
    messages.success(request, f"Dataset {pk} is withdrawn.")
    for other in list_datasets_refused_for(withdrawn):
        messages.warning(
            request,
            f"{other.coin}'s dataset {other.pk} failed because of it. Withdraw it too and upload its file"
            " again to repeat its checks.",
        )
    return redirect("dataset", pk)
