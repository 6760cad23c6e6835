"""People and tokens in the admin, read-only. Changes go through services, which record an event."""

from django.contrib import admin
from django.contrib.auth.models import Group

from accounts.models import ApiToken, RoleGrant, User
from audit.admin import HistoryAdmin
from common.admin import ReadOnlyInline

# Roles are RoleGrants. A group would have no effect.
admin.site.unregister(Group)


class RoleGrantInline(ReadOnlyInline):
    model = RoleGrant


@admin.register(User)
class UserAdmin(HistoryAdmin):
    list_display = ["username", "is_active", "is_staff", "last_login"]
    fields = ["username", "is_active", "is_staff", "is_superuser", "last_login", "date_joined"]
    search_fields = ["username"]
    inlines = [RoleGrantInline]


@admin.register(ApiToken)
class ApiTokenAdmin(HistoryAdmin):
    list_display = ["name", "user", "scope", "created_at", "expires_at", "last_used_at", "revoked_at"]
    list_filter = ["scope"]
    fields = ["name", "user", "scope", "created_at", "expires_at", "last_used_at", "revoked_at"]
