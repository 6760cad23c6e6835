"""Policies, measurements and diagnoses in the admin: to look at, each with its history one click away."""

from django.contrib import admin

from audit.admin import HistoryAdmin
from common.admin import ReadOnlyInline
from gates.models import Diagnosis, GatePolicy, GateResult, Measurement, PolicyAdoption


class AdoptionInline(ReadOnlyInline):
    model = PolicyAdoption


class GateResultInline(ReadOnlyInline):
    model = GateResult
    fields = ["gate", "is_required", "verdict", "observed", "threshold", "sentence"]


@admin.register(GatePolicy)
class GatePolicyAdmin(HistoryAdmin):
    list_display = ["number", "proposed_by", "created_at", "reason"]
    inlines = [AdoptionInline]


@admin.register(PolicyAdoption)
class PolicyAdoptionAdmin(HistoryAdmin):
    list_display = ["policy", "adopted_by", "at", "reason"]
    list_select_related = ["policy"]


@admin.register(Measurement)
class MeasurementAdmin(HistoryAdmin):
    list_display = ["id", "bundle", "dataset", "state", "attempt", "worker_name", "created_at", "finished_at"]
    list_filter = ["state", "bundle__coin", "bundle__line"]
    list_select_related = ["bundle__coin", "dataset__coin"]


@admin.register(Diagnosis)
class DiagnosisAdmin(HistoryAdmin):
    list_display = ["id", "bundle", "policy", "verdict", "created_at"]
    list_filter = ["verdict", "coin", "policy"]
    list_select_related = ["bundle__coin", "policy"]
    inlines = [GateResultInline]
