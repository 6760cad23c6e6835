"""Strict request fields of the API: only the named fields, each with its exact JSON type.

A misspelt field is refused by name. If it were ignored, the request would launch or decide something else.
"""

import math
from types import UnionType
from typing import Any, NoReturn

from django import forms
from django_filters import rest_framework as filters
from drf_spectacular.extensions import OpenApiSerializerExtension
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.request import Request

from common.reasons import REASON_LIMIT

MAX_ID = 2**63 - 1
# At least one character that is not white space, and no NUL, which databases cannot store.
NOT_BLANK = {"type": "string", "minLength": 1, "pattern": r"^[^\u0000]*\S[^\u0000]*$"}


class _OneKind(serializers.Field[Any, Any, Any, Any]):
    """Takes the JSON types `kinds` only; a boolean does not count as a number."""

    kinds: type | UnionType = str

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, self.kinds) or (isinstance(data, bool) and self.kinds is not bool):
            self.fail("invalid")
        return super().to_internal_value(data)


@extend_schema_field({"type": "string", "pattern": r"^[^\u0000]*$"})
class OptionalText(_OneKind, serializers.CharField):
    """Text, possibly empty. The framework would also accept a number."""


@extend_schema_field(NOT_BLANK)
class Text(OptionalText):
    """Text that is not blank."""


class Choice(serializers.ChoiceField):
    """One of several values; the error lists them."""

    def fail(self, key: str, **kwargs: Any) -> NoReturn:
        if key == "invalid_choice":
            raise ValidationError(
                f"{kwargs['input']!r} is not one of {', '.join(map(str, self.choices))}.", code=key
            )
        super().fail(key, **kwargs)


class PatternText(_OneKind, serializers.RegexField):
    """Text that matches a pattern, not a number that would."""


class Boolean(_OneKind, serializers.BooleanField):
    """`true` or `false`, not a word or a number."""

    kinds = bool


class Integer(_OneKind, serializers.IntegerField):
    """An integer, not text, a fraction or a boolean."""

    kinds = int


class Number(_OneKind, serializers.FloatField):
    """A finite number. NaN would pass every comparison with a bound."""

    kinds = int | float

    def to_internal_value(self, data: Any) -> Any:
        try:
            number = super().to_internal_value(data)
        except OverflowError:  # an integer too large for a float
            self.fail("invalid")
        return number if math.isfinite(number) else self.fail("invalid")


@extend_schema_field({"oneOf": [{"type": "number"}, {"type": "string"}]})
class SettingValue(serializers.Field[Any, Any, Any, Any]):
    """A number or a word. The recipe says which values a setting takes."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, bool) or not isinstance(data, int | float | str):
            raise ValidationError("Give a number or a word.")
        return data

    def to_representation(self, value: Any) -> Any:
        return value


@extend_schema_field({**NOT_BLANK, "maxLength": REASON_LIMIT})
class Reason(Text):
    """The reason, recorded in the audit history with the name."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            max_length=REASON_LIMIT, help_text="The reason, recorded in the audit history.", **kwargs
        )


class LengthRequired(APIException):
    """The framework reads a body without a length as empty, and would report its fields as missing."""

    status_code = 411
    default_detail = "Send the body with a Content-Length; a chunked one is not read."


class Input(serializers.Serializer[Any]):
    """The fields of a body and no others."""

    def to_internal_value(self, data: Any) -> Any:
        unknown = sorted(set(data) - set(self.fields)) if isinstance(data, dict) else []
        if unknown:
            known = f"There is no such field. Known: {', '.join(self.fields) or 'none'}."
            raise serializers.ValidationError({name[:100]: [known] for name in unknown[:10]})
        return super().to_internal_value(data)

    @classmethod
    def read(cls, request: Request) -> dict[str, Any]:
        """The checked fields of a body. Raises ValidationError for each wrong field, and LengthRequired."""
        if "Transfer-Encoding" in request.headers and not request.headers.get("Content-Length"):
            raise LengthRequired
        parsed = cls(data=request.data)
        parsed.is_valid(raise_exception=True)
        checked: dict[str, Any] = parsed.validated_data
        return checked


@extend_schema_field({"type": "integer", "minimum": 0, "maximum": MAX_ID})
class IntegerFilter(filters.NumberFilter):
    """`?release=3`: an integer that fits a database column. The framework would truncate 3.5."""

    field_class = forms.IntegerField

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, min_value=0, max_value=MAX_ID, **kwargs)


class _BooleanField(forms.Field):
    def to_python(self, value: Any) -> bool | None:
        words = {"true": True, "false": False}
        if value is not None and str(value).lower() not in words:
            raise forms.ValidationError("Give `true` or `false`.")
        return None if value is None else words[str(value).lower()]


@extend_schema_field({"type": "boolean"})
class BooleanFilter(filters.Filter):
    """`?is_required=true`. The framework's own filter ignores any other word."""

    field_class = _BooleanField


class ClosedSchema(OpenApiSerializerExtension):
    target_class = "common.api_fields.Input"
    match_subclasses = True

    def map_serializer(self, auto_schema: Any, direction: str) -> dict[str, Any]:
        schema: dict[str, Any] = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)
        return {**schema, "additionalProperties": False}
