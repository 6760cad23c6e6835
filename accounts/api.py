"""Tokens over the API, to watch their expiry and use. They are issued and revoked by `manage.py people` only."""

from typing import Any, ClassVar

from django.db.models import QuerySet
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers
from rest_framework.generics import ListAPIView

from accounts import tokens
from accounts.models import ApiToken
from accounts.roles import Scope


class Tokens(ListAPIView[ApiToken]):
    """Tokens that were not revoked, also expired ones; never a secret or its hash. The newest first."""

    class Filter(filters.FilterSet):
        owner = filters.CharFilter(field_name="user__username")
        scope = filters.ChoiceFilter(choices=[(scope.value, scope.value) for scope in Scope])

    @extend_schema_serializer(component_name="Token")
    class Output(serializers.ModelSerializer[ApiToken]):
        number = serializers.IntegerField(source="pk", help_text="As `manage.py people --revoke` takes it.")
        owner = serializers.CharField(source="user.username")

        class Meta:
            model = ApiToken
            fields: ClassVar = [
                "number",
                "name",
                "owner",
                "scope",
                "created_at",
                "expires_at",
                "last_used_at",
            ]

    serializer_class = Output
    filterset_class = Filter

    def get_queryset(self) -> QuerySet[Any]:
        return tokens.list_unrevoked().order_by("-pk")
