"""Training records in the admin, read-only, with links to their audit events."""

from django.contrib import admin

from audit.admin import HistoryAdmin
from common.admin import ReadOnlyAdmin, ReadOnlyInline
from training.models import Artifact, Bundle, Coin, Dataset, Epoch, Line, RunLine, RunTag, TrainingRun, Worker


class Epochs(ReadOnlyInline):
    model = Epoch


class Log(ReadOnlyInline):
    model = RunLine


class Tags(ReadOnlyInline):
    model = RunTag


class Artifacts(ReadOnlyInline):
    model = Artifact


@admin.register(Coin)
class CoinAdmin(HistoryAdmin):
    list_display = ["symbol", "name", "is_required"]


@admin.register(Line)
class LineAdmin(HistoryAdmin):
    list_display = ["name", "recipe", "description", "created_by", "created_at"]
    list_filter = ["recipe"]
    search_fields = ["name", "description", "created_by"]


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
    inlines = [Tags, Epochs, Log]


@admin.register(Bundle)
class BundleAdmin(HistoryAdmin):
    list_display = ["short_digest", "coin", "line", "is_simulated", "created_at"]
    list_filter = ["line", "coin", "is_simulated"]
    search_fields = ["digest"]
    inlines = [Artifacts]


@admin.register(Worker)
class WorkerAdmin(ReadOnlyAdmin):
    list_display = ["name", "queues", "slots", "device", "torch_version", "code_version", "last_heard_at"]
