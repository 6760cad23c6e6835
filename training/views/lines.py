"""Lines: the list, and creating one."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from accounts.authentication import get_actor
from accounts.roles import Role
from common.forms import submit
from common.pages import is_partial, paginate
from training.forms import LineForm
from training.models import Line
from training.services import lines


@require_http_methods(["GET", "POST"])
def index(request: HttpRequest) -> HttpResponse:
    """The list, and the form below it; posted, it creates a line. Asked by htmx for another recipe, it answers with
    that recipe's settings."""
    if request.method != "POST":
        kept = {name: str(request.GET[name]) for name in ("name", "description") if name in request.GET}
        return _page(request, LineForm(_recipe(request.GET.get("recipe_name")), initial=kept))
    form = LineForm(_recipe(request.POST.get("recipe_name")), request.POST)

    def act() -> HttpResponse:
        data = form.cleaned_data
        line = lines.create_line(
            data["name"],
            description=data["description"],
            recipe=data["recipe_name"],
            defaults=form.parameters,
            actor=get_actor(request),
            reason=data["reason"],
        )
        messages.success(request, f"Created the line {line}.")
        return redirect("lines")

    return submit(form, act, lambda status: _page(request, form, status))


def _page(request: HttpRequest, form: LineForm, status: int = 200) -> HttpResponse:
    context = {
        "page": paginate(request, Line.objects.all()),
        "installed": [found for found in lines.list_recipes() if found.package],
        "form": form,
        "can_create": get_actor(request).has(Role.OPERATOR),
    }
    template = "training/_line_form.html" if is_partial(request) else "training/lines.html"
    return render(request, template, context, status=status)


def _recipe(asked: str | None) -> str:
    """None was chosen: that of the default line. An empty word is a line without a recipe."""
    return asked if asked in ("", *lines.list_recipe_names()) else lines.DEFAULT_LINE
