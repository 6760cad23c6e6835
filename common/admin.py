"""Read-only pages of the admin: every change goes through a service, which records an event."""

from collections.abc import Sequence
from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from common.paging import RowPaginator

COMPARISONS = frozenset(
    ("exact", "isnull", "gte", "gt", "lte", "lt", "year", "month", "day", "id__exact", "id__isnull")
)
"""What the admin's own filters and its date hierarchy append to a field."""


class _ReadOnly:
    """Shows rows to staff and changes none."""

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    has_add_permission = has_delete_permission = has_change_permission

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.is_active and request.user.is_staff)


class ReadOnlyAdmin(_ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]  # takes no arguments at run time
    show_full_result_count = False  # one count is enough
    paginator = RowPaginator
    linked_lookups: Sequence[str] = ()
    """Lookups that links of this service use, in addition to the filters of the page."""

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Whether the address of a list may filter so: by what the page filters by, and by nothing else.

        Django allows each column and any comparison. A pattern on the column of password hashes would read them out
        letter by letter, and a slow pattern would stop the process.
        """
        filters = [*self.get_list_filter(request), self.date_hierarchy]
        return lookup in self.linked_lookups or any(
            lookup == name or (lookup.startswith(f"{name}__") and lookup[len(name) + 2 :] in COMPARISONS)
            for name in filters
            if isinstance(name, str)
        )

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)


class ReadOnlyInline(_ReadOnly, admin.TabularInline):  # type: ignore[type-arg]  # takes no arguments at run time
    extra = 0
    can_delete = False
