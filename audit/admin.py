"""The audit history in the admin: read-only, with filters by actor, object, kind and time."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.text import Truncator

from audit.models import AuditEvent
from common.admin import ReadOnlyAdmin


class HistoryAdmin(ReadOnlyAdmin):
    """A read-only page with a link from each object to its audit events."""

    def get_list_display(self, request: HttpRequest) -> Any:
        return [*super().get_list_display(request), "history"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return [*super().get_readonly_fields(request, obj), "history"]

    @admin.display(description="audit")
    def history(self, obj: Any) -> str:
        query = f"?object_type={obj._meta.model_name}&object_id={obj.pk}"
        return format_html('<a href="{}{}">history</a>', reverse("admin:audit_auditevent_changelist"), query)


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    list_display = ["seq", "at", "actor", "kind", "object_name", "why"]
    list_filter = ["at", "kind", "object_type", "actor"]
    search_fields = ["actor", "object_name", "reason", "body"]
    date_hierarchy = "at"
    list_per_page = 50
    show_facets = admin.ShowFacets.NEVER
    linked_lookups = ("object_id", "object_type__in")

    @admin.display(description="reason")
    def why(self, event: AuditEvent) -> str:
        """The beginning of the reason: a rejection names every gate of every coin."""
        return Truncator(event.reason).chars(120)
