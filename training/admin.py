"""Training's records in the admin: to look at, each one click from its history."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from audit.admin import HistoryAdmin
from common.admin import ReadOnlyAdmin
from training.models import Artifact, Bundle, Coin, Dataset, Epoch, RunLine, TrainingRun, Worker


class ReadOnlyRows(admin.TabularInline):
    """The rows of an object, below it."""

    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.is_active and request.user.is_staff)


class Epochs(ReadOnlyRows):
    model = Epoch


class Log(ReadOnlyRows):
    model = RunLine


class Artifacts(ReadOnlyRows):
    model = Artifact


@admin.register(Coin)
class CoinAdmin(HistoryAdmin):
    list_display = ["symbol", "name", "is_required"]


@admin.register(Dataset)
class DatasetAdmin(HistoryAdmin):
    list_display = ["coin", "rows", "first_at", "last_at", "source", "is_simulated", "added_by", "created_at"]
    list_filter = ["coin", "source", "is_simulated"]
    search_fields = ["digest", "origin", "added_by"]


@admin.register(TrainingRun)
class TrainingRunAdmin(HistoryAdmin):
    list_display = ["id", "coin", "line", "state", "worker_name", "spent_usd", "launched_by", "created_at"]
    list_filter = ["state", "line", "coin"]
    search_fields = ["launched_by", "worker_name", "failure"]
    list_select_related = ["coin"]
    inlines = [Epochs, Log]


@admin.register(Bundle)
class BundleAdmin(HistoryAdmin):
    list_display = ["short_digest", "coin", "line", "is_simulated", "created_at"]
    list_filter = ["line", "coin", "is_simulated"]
    search_fields = ["digest"]
    inlines = [Artifacts]


@admin.register(Worker)
class WorkerAdmin(ReadOnlyAdmin):
    list_display = ["name", "queues", "slots", "device", "torch_version", "code_version", "last_heard_at"]
