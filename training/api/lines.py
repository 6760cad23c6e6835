"""Lines: to read, and to create."""

from dataclasses import asdict
from typing import Any, ClassVar

from django_filters import rest_framework as filters
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.authentication import get_actor
from common import api_fields
from common.errors import InvalidInput
from mlcore.fitting.recipes import Recipe
from training.models import Line
from training.services import lines


class LineName(api_fields.Text):
    """The name of a line that there is. An unknown one is reported with the other wrong fields."""

    def __init__(self) -> None:
        super().__init__(max_length=32, help_text="One of `lines/`.")

    def to_internal_value(self, data: Any) -> str:
        try:
            return lines.find_line(super().to_internal_value(data)).name
        except InvalidInput as unknown:
            raise serializers.ValidationError(unknown.message) from unknown


class Recipes(APIView):
    """What trains models: the built-in recipes, and those of packages that are installed."""

    @extend_schema_serializer(component_name="Recipes")
    class Output(serializers.Serializer[Any]):
        @extend_schema_serializer(component_name="Recipe")
        class One(serializers.Serializer[Any]):
            @extend_schema_serializer(component_name="RecipeSetting")
            class Setting(serializers.Serializer[Any]):
                name = serializers.CharField()
                meaning = serializers.CharField()
                default = api_fields.SettingValue(allow_null=True)
                least = serializers.FloatField(allow_null=True)
                greatest = serializers.FloatField(allow_null=True)
                is_whole = serializers.BooleanField(allow_null=True)
                words = serializers.ListField(
                    child=serializers.CharField(), help_text="Those it takes, where these are few."
                )

            name = serializers.CharField()
            package = serializers.CharField(help_text="With its version; empty for a built-in one.")
            problem = serializers.CharField(help_text="Why it cannot be used; empty if it can.")
            settings = Setting(many=True)

        recipes = One(many=True)

    @extend_schema(operation_id="list_recipes", responses=Output)
    def get(self, request: Request) -> Response:
        """The recipes that a line can have, with the settings of each."""
        return Response(self.Output(describe_recipes()).data)


def describe_recipes() -> dict[str, Any]:
    """Every recipe with its settings, for the API and for commands."""
    return {
        "recipes": [
            {
                "name": found.name,
                "package": found.package,
                "problem": found.problem,
                "settings": _describe_settings(found.recipe) if found.recipe else [],
            }
            for found in lines.list_recipes()
        ]
    }


def _describe_settings(recipe: Recipe) -> list[dict[str, Any]]:
    unbounded = {"least": None, "greatest": None, "is_whole": None, "words": ()}
    return [
        {**unbounded, **asdict(setting), "name": name, "default": recipe.get_default(name)}
        for name, setting in recipe.settings.items()
    ]


class Lines(ListAPIView[Line]):
    """Families of models, in the order of their creation. Every launch and every import names one."""

    class Filter(filters.FilterSet):
        name = filters.CharFilter()
        recipe = filters.CharFilter()
        ordering = filters.OrderingFilter(fields=["id", "name"])

    @extend_schema_serializer(component_name="Line")
    class Output(serializers.ModelSerializer[Line]):
        defaults = serializers.DictField(help_text="Its settings that differ from the recipe.")

        class Meta:
            model = Line
            fields: ClassVar = ["name", "description", "recipe", "defaults", "created_by", "created_at"]

    @extend_schema_serializer(
        component_name="LineCreation",
        examples=[
            OpenApiExample(
                "another horizon",
                {
                    "name": "v7_day",
                    "recipe": "v7_fixed",
                    "defaults": {"horizon": 24},
                    "reason": "The desk holds for a day.",
                },
            )
        ],
    )
    class Input(api_fields.Input):
        name = api_fields.PatternText(
            f"^{lines.NAME_PATTERN}$", help_text="Small letters, digits and underscores."
        )
        description = api_fields.OptionalText(max_length=200, default="", allow_blank=True)
        recipe = api_fields.OptionalText(
            max_length=64,
            default="",
            allow_blank=True,
            help_text="What trains its models; empty for a line of imported models only.",
        )
        defaults = serializers.DictField(
            child=api_fields.SettingValue(), required=False, help_text="Settings that differ from the recipe."
        )
        reason = api_fields.Reason()

    can_conflict = True
    queryset = Line.objects.order_by("id")
    serializer_class = Output
    filterset_class = Filter

    @extend_schema(operation_id="create_line", request=Input, responses={201: Output})
    def post(self, request: Request) -> Response:
        """Create a line, as an operator. It never changes afterwards."""
        line = lines.create_line(actor=get_actor(request), **self.Input.read(request))
        return Response(self.Output(line).data, status=201)
