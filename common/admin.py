"""Read-only pages of the admin: every change goes through a service, which records an event."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest


class _ReadOnly:
    """Shows rows to staff and changes none."""

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    has_add_permission = has_delete_permission = has_change_permission

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.is_active and request.user.is_staff)


class ReadOnlyAdmin(_ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]  # takes no arguments at run time
    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)


class ReadOnlyInline(_ReadOnly, admin.TabularInline):  # type: ignore[type-arg]  # takes no arguments at run time
    extra = 0
    can_delete = False
