"""Bundles: the list, and importing a model."""

from django.contrib import messages
from django.db.models import Prefetch
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from accounts.authentication import get_actor
from accounts.roles import Role
from common.forms import submit
from common.pages import paginate
from training.forms import ImportModelForm
from training.models import Bundle, TrainingRun
from training.services import imported_models


@require_http_methods(["GET", "POST"])
def index(request: HttpRequest) -> HttpResponse:
    """The list with the import form below it; POST imports a model."""
    if request.method != "POST":
        return _page(request, ImportModelForm())
    form = ImportModelForm(request.POST, request.FILES)

    def act() -> HttpResponse:
        upload, declared = form.cleaned_data["file"], form.cleaned_data["declaration"]
        imported = imported_models.import_model(
            data=upload.read(),
            name=upload.name,
            layout=form.cleaned_data["layout"] or None,
            declaration=imported_models.read_declaration(declared.read()) if declared else None,
            actor=get_actor(request),
            **{
                name: form.cleaned_data[name]
                for name in ("coin", "line", "schema", "interval_seconds", "simulated")
            },
        )
        result = "Imported" if imported.is_new else "Imported before:"
        messages.success(request, " ".join([f"{result} {imported.bundle}.", *imported.notes]))
        return redirect("bundles")

    return submit(form, act, lambda status: _page(request, form, status))


def _page(request: HttpRequest, form: ImportModelForm, status: int = 200) -> HttpResponse:
    # Without the texts of manifests and candle checks, which no list shows.
    runs = Prefetch("runs", TrainingRun.objects.only("bundle"))
    rows = Bundle.objects.select_related("coin").defer("manifest").prefetch_related(runs)
    context = {
        "page": paginate(request, rows),
        "form": form,
        "can_import": get_actor(request).has(Role.OPERATOR),
    }
    return render(request, "training/bundles.html", context, status=status)
