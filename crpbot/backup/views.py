"""The page Backups: what was made and drilled, and asking for one now."""

from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_http_methods

from accounts.authentication import get_actor
from accounts.roles import Role
from common.forms import ReasonForm, submit
from common.pages import paginate, render_live
from crpbot.backup import schedule
from deploy.alarms import backups
from deploy.models import BackupTask
from deploy.rules import BackupKind, BackupState

EVERY_SECONDS = 5


class RequestForm(ReasonForm):
    """What to carry out now."""

    kind = forms.ChoiceField(
        label="What",
        choices=[
            (BackupKind.BACKUP.value, "a backup"),
            (BackupKind.DRILL.value, "a drill of the newest backup"),
        ],
    )
    field_order = ["kind", "reason"]


@require_http_methods(["GET", "POST"])
def index(request: HttpRequest) -> HttpResponse:
    """The list, and the form below it; posted, it asks for a backup or a drill."""
    if request.method != "POST":
        return _page(request)
    form = RequestForm(request.POST)

    def act() -> HttpResponse:
        kind, reason = BackupKind(form.cleaned_data["kind"]), form.cleaned_data["reason"]
        task = schedule.request(kind, actor=get_actor(request), reason=reason)
        messages.success(request, f"{str(task).capitalize()} is requested; it begins within seconds.")
        return redirect("backups")

    return submit(form, act, lambda status: _page(request, form, status=status))


def _page(request: HttpRequest, form: RequestForm | None = None, *, status: int = 200) -> HttpResponse:
    last = backups.load_last()
    context = {
        "page": paginate(request, BackupTask.objects.order_by("-pk")),
        "newest": last.get((BackupKind.BACKUP, BackupState.DONE)),
        "drilled": last.get((BackupKind.DRILL, BackupState.DONE)),
        "hours": settings.BACKUP_HOURS,
        "drill_days": settings.BACKUP_DRILL_DAYS,
        "problems": [problem for problem in backups.find_problems() if problem],
        "form": form or RequestForm(),
        "can_request": get_actor(request).has(Role.ADMINISTRATOR) or form is not None,
    }
    return render_live(
        request,
        "crpbot/backups.html",
        "crpbot/_backups.html",
        context,
        every_seconds=EVERY_SECONDS,
        status=status,
    )
