"""Studies in the admin, read-only, with links to their audit events."""

from django.contrib import admin

from audit.admin import HistoryAdmin
from common.admin import ReadOnlyInline
from studies.models import Study, Trial


class Trials(ReadOnlyInline):
    model = Trial
    exclude = ["stop_blocks"]


@admin.register(Study)
class StudyAdmin(HistoryAdmin):
    list_display = ["id", "line", "state", "objective", "sampler", "max_trials", "launched_by", "created_at"]
    list_filter = ["state", "line"]
    search_fields = ["launched_by", "reason"]
    inlines = [Trials]
