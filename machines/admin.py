"""Machines in the admin: to look at, each with its history one click away."""

from django.contrib import admin

from audit.admin import HistoryAdmin
from common.admin import ReadOnlyInline
from machines.models import Machine, MachinePrice, MachineUse, MonthlyLimit


class UseInline(ReadOnlyInline):
    model = MachineUse
    fields = ["run", "seconds", "estimate_usd", "share_usd"]


@admin.register(Machine)
class MachineAdmin(HistoryAdmin):
    list_display = [
        "id",
        "instance_id",
        "instance_type",
        "market",
        "state",
        "started_at",
        "ended_at",
        "cost_usd",
    ]
    list_filter = ["state", "market"]
    inlines = [UseInline]


@admin.register(MachinePrice)
class MachinePriceAdmin(HistoryAdmin):
    list_display = ["instance_type", "region", "market", "usd_per_hour", "set_by", "set_at"]


@admin.register(MonthlyLimit)
class MonthlyLimitAdmin(HistoryAdmin):
    list_display = ["usd", "set_by", "set_at", "reason"]
