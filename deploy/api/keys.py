"""The public halves of the keys that sign what bots are given."""

from typing import ClassVar

from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers
from rest_framework.generics import ListAPIView

from deploy.models import SigningKey
from deploy.rules import KeyState


class Keys(ListAPIView[SigningKey]):
    """The keys that sign, signed or are to sign the snapshot, newest first: their public halves.

    To look at, and to compare with what a bot was given by hand; a bot that took its key from here would trust anyone who
    answers.
    """

    class Filter(filters.FilterSet):
        state = filters.ChoiceFilter(choices=[(state.value, state.value) for state in KeyState])

    @extend_schema_serializer(component_name="SigningKey")
    class Output(serializers.ModelSerializer[SigningKey]):
        public = serializers.CharField(source="public_hex", help_text="Ed25519, 32 bytes in hex.")

        class Meta:
            model = SigningKey
            fields: ClassVar = [
                "key_id", "public", "state", "created_by", "created_at", "activated_at", "retired_at",
            ]  # fmt: skip

    queryset = SigningKey.objects.order_by("-pk")
    serializer_class = Output
    filterset_class = Filter
