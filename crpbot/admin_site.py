from typing import Any

from django.contrib.admin import AdminSite
from django.http import Http404, HttpRequest
from django.template.response import TemplateResponse


class GateAdminSite(AdminSite):
    """The place for audit history: everything here is to be read, nothing to be changed."""

    site_header = "crpbot gate: audit history"
    site_title = "crpbot gate"
    index_title = "What was live, why, and who said so"
    enable_nav_sidebar = False  # the history needs the width

    def password_change(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        """A new password leaves an event: `manage.py people --user NAME --new-password`."""
        raise Http404(
            "Passwords are changed by `manage.py people --user NAME --new-password`, which leaves an event."
        )
