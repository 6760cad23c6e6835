"""People and tokens in the admin, read-only. Changes go through services, which record an event."""

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount, SocialApp, SocialToken
from django.contrib import admin
from django.contrib.auth.models import Group

from accounts.models import ApiToken, RoleGrant, User
from audit.admin import HistoryAdmin
from common.admin import ReadOnlyInline

# Roles are RoleGrants: a group would have no effect. The others hold secrets, or are not used.
admin.site.unregister([Group, EmailAddress, Authenticator, SocialAccount, SocialApp, SocialToken])


class RoleGrantInline(ReadOnlyInline):
    model = RoleGrant


@admin.register(User)
class UserAdmin(HistoryAdmin):
    list_display = ["username", "is_active", "is_service", "counts_as", "is_staff", "last_login"]
    fields = [
        "username", "is_active", "is_service", "counts_as", "is_staff", "is_superuser", "last_login", "date_joined",
    ]  # fmt: skip
    search_fields = ["username"]
    inlines = [RoleGrantInline]


@admin.register(ApiToken)
class ApiTokenAdmin(HistoryAdmin):
    list_display = ["name", "user", "scope", "created_at", "expires_at", "last_used_at", "revoked_at"]
    list_filter = ["scope"]
    fields = ["name", "user", "scope", "created_at", "expires_at", "last_used_at", "revoked_at"]
