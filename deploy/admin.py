"""Releases and the pointer in the admin: to read. Nothing here moves anything."""

from django.contrib import admin

from audit.admin import HistoryAdmin
from common.admin import ReadOnlyAdmin, ReadOnlyInline
from deploy import models


class ReleaseCoinInline(ReadOnlyInline):
    model = models.ReleaseCoin


class ReleaseStatusInline(admin.StackedInline):  # type: ignore[type-arg]  # takes no arguments at run time
    model = models.ReleaseStatus
    can_delete = False


@admin.register(models.Release)
class ReleaseAdmin(HistoryAdmin):
    list_display = ["id", "line", "purpose", "state", "policy", "launched_by", "created_at"]
    list_filter = ["line", "purpose", "status__state", "created_at"]
    list_select_related = ["status", "policy"]
    inlines = [ReleaseStatusInline, ReleaseCoinInline]


@admin.register(models.PointerMove)
class PointerMoveAdmin(HistoryAdmin):
    list_display = ["revision", "kind", "release", "moved_by", "moved_at", "reason"]
    list_filter = ["kind", "moved_at"]
    search_fields = ["moved_by"]
    list_select_related = ["release"]


@admin.register(models.FallbackRegistration)
class FallbackRegistrationAdmin(HistoryAdmin):
    list_display = ["id", "release", "registered_by", "at", "reason"]
    list_select_related = ["release"]


@admin.register(models.Bot)
class BotAdmin(HistoryAdmin):
    list_display = ["name", "instance", "revision", "line", "client_version", "mismatch", "last_heard_at"]
    list_filter = ["last_heard_at"]  # a list of all names or revisions would grow with the bots and with time
    search_fields = ["name", "instance", "last_error", "mismatch"]


@admin.register(models.Acknowledgement)
class AcknowledgementAdmin(ReadOnlyAdmin):
    list_display = ["bot", "move", "at", "seconds"]
    list_filter = ["at"]
    search_fields = ["bot__name"]
    list_select_related = ["bot", "move"]


@admin.register(models.Convergence)
class ConvergenceAdmin(ReadOnlyAdmin):
    list_display = ["move", "at", "bots", "slowest_seconds"]
    list_select_related = ["move"]
