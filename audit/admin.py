"""The audit history in the admin: read-only, with filters by actor, object, kind and time."""

from typing import Any, cast

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.text import Truncator

from audit.models import AuditEvent
from audit.services import get_last_seq
from common.admin import ReadOnlyAdmin
from common.paging import RowPaginator

SEARCHED_EVENTS = 20_000
MAX_FOUND = 10_000


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


class _ColumnFilter(admin.SimpleListFilter):
    """The values of an indexed column, found one after the other: DISTINCT would read the whole history."""

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        column, values = str(self.parameter_name), list[str]()
        rows = AuditEvent.objects.order_by(column).values_list(column, flat=True)
        while value := rows.filter(**{f"{column}__gt": values[-1] if values else ""}).first():
            values.append(value)
        return [(value, value) for value in values]

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        value = self.value()
        return queryset.filter(**{str(self.parameter_name): value}) if value else queryset


class KindFilter(_ColumnFilter):
    title = parameter_name = "kind"


class ObjectTypeFilter(_ColumnFilter):
    title, parameter_name = "object", "object_type"


class EventPaginator(RowPaginator):
    """The whole history is as long as its last number says; counting it would read all of it."""

    @cached_property
    def count(self) -> int:
        rows = cast(QuerySet[AuditEvent], self.object_list)
        return rows.count() if rows.query.where else get_last_seq()


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    list_display = ["seq", "at", "actor", "kind", "object_name", "why"]
    list_filter = ["at", KindFilter, ObjectTypeFilter]
    search_fields = ["actor"]  # shows the field; what is searched is in get_search_results
    search_help_text = (
        "An actor, kind, object number or hash, exactly; or text in the names and reasons of the newest"
        f" {SEARCHED_EVENTS:,} events."
    )
    list_per_page = 50
    show_facets = admin.ShowFacets.NEVER
    linked_lookups = ("object_id", "object_type__in", "actor", "actor__exact")
    paginator = EventPaginator

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[AuditEvent], search_term: str
    ) -> tuple[QuerySet[AuditEvent], bool]:
        """By indexed columns everywhere, and by text in the newest events only: the history has no end."""
        term = search_term.strip()
        if not term:
            return queryset, False
        newest = Q(seq__gt=get_last_seq() - SEARCHED_EVENTS)
        text = Q(object_name__icontains=term) | Q(reason__icontains=term)
        exact = [Q(actor=term), Q(kind=term), Q(object_id=term)]
        found = AuditEvent.objects.filter(newest & text).order_by().values("seq")
        found = found.union(
            *(AuditEvent.objects.filter(each).order_by().values("seq") for each in exact), all=True
        )
        return queryset.filter(seq__in=list(found.values_list("seq", flat=True)[:MAX_FOUND])), False

    @admin.display(description="reason")
    def why(self, event: AuditEvent) -> str:
        """The beginning of the reason: a rejection names every gate of every coin."""
        return Truncator(event.reason).chars(120)
