"""Bundles: the list, and importing a checkpoint."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from accounts.authentication import actor_of
from accounts.rules import Role
from common.errors import DomainError
from common.forms import show_refusal
from common.pages import paged
from training import services
from training.forms import CheckpointForm
from training.models import Bundle


@require_http_methods(["GET", "POST"])
def index(request: HttpRequest) -> HttpResponse:
    """The list, and the form below it; posted, it imports a checkpoint."""
    if request.method != "POST":
        return _page(request, CheckpointForm())
    form = CheckpointForm(request.POST, request.FILES)
    if not form.is_valid():
        return _page(request, form, status=400)
    upload = form.cleaned_data["file"]
    said = {name: form.cleaned_data[name] for name in ("coin", "line", "schema", "simulated")}
    try:
        imported = services.import_checkpoint(
            data=upload.read(),
            name=upload.name,
            layout=form.cleaned_data["layout"] or None,
            actor=actor_of(request),
            **said,
        )
    except DomainError as refusal:
        show_refusal(form, refusal)
        return _page(request, form, status=refusal.status)
    told = "Imported" if imported.is_new else "It is here already:"
    messages.success(request, " ".join([f"{told} {imported.bundle}.", *imported.notes]))
    return redirect("bundles")


def _page(request: HttpRequest, form: CheckpointForm, status: int = 200) -> HttpResponse:
    rows = Bundle.objects.select_related("coin", "dataset").prefetch_related("runs")
    context = {
        "page": paged(request, rows),
        "form": form,
        "can_import": actor_of(request).has(Role.OPERATOR),
    }
    return render(request, "training/bundles.html", context, status=status)
