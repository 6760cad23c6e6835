"""Bundles: the list, and importing a model."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from accounts.authentication import get_actor
from accounts.rules import Role
from common.errors import DomainError
from common.forms import show_refusal
from common.pages import paginate
from training.forms import ImportModelForm
from training.models import Bundle
from training.services import imported_models


@require_http_methods(["GET", "POST"])
def index(request: HttpRequest) -> HttpResponse:
    """The list with the import form below it; POST imports a model."""
    if request.method != "POST":
        return _page(request, ImportModelForm())
    form = ImportModelForm(request.POST, request.FILES)
    if not form.is_valid():
        return _page(request, form, status=400)
    upload = form.cleaned_data["file"]
    options = {name: form.cleaned_data[name] for name in ("coin", "line", "schema", "simulated")}
    try:
        imported = imported_models.import_model(
            data=upload.read(),
            name=upload.name,
            layout=form.cleaned_data["layout"] or None,
            actor=get_actor(request),
            **options,
        )
    except DomainError as refusal:
        show_refusal(form, refusal)
        return _page(request, form, status=refusal.status)
    result = "Imported" if imported.is_new else "Imported before:"
    messages.success(request, " ".join([f"{result} {imported.bundle}.", *imported.notes]))
    return redirect("bundles")


def _page(request: HttpRequest, form: ImportModelForm, status: int = 200) -> HttpResponse:
    rows = Bundle.objects.select_related("coin", "dataset").prefetch_related("runs")
    context = {
        "page": paginate(request, rows),
        "form": form,
        "can_import": get_actor(request).has(Role.OPERATOR),
    }
    return render(request, "training/bundles.html", context, status=status)
