from typing import Any

from django.contrib.admin import AdminSite
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.decorators import method_decorator


class GateAdminSite(AdminSite):
    """The admin site shows the audit history, read-only."""

    site_header = "crpbot gate: audit history"
    site_title = "crpbot gate"
    index_title = "What was live, why, and who decided it"
    enable_nav_sidebar = False  # the history needs the width

    @method_decorator(login_not_required)
    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Redirect to the sign-in page, which limits wrong passwords."""
        if request.user.is_authenticated:
            raise PermissionDenied("The audit history needs a staff account.")
        return redirect_to_login(request.GET.get(REDIRECT_FIELD_NAME) or reverse("admin:index"))

    def password_change(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        """Not here: `manage.py people --user NAME --new-password` records an event."""
        raise Http404(
            "Passwords are changed by `manage.py people --user NAME --new-password`, which records an event."
        )
