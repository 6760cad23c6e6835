"""What a request to the API may carry: exactly the named fields, each of exactly its JSON type.

A misspelt field is refused with its name. Ignored, it would launch or decide something else than was asked for.
"""

import math
from typing import Any, NoReturn

from django import forms
from django_filters import rest_framework as filters
from drf_spectacular.extensions import OpenApiSerializerExtension
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.request import Request

from common.reasons import REASON_LIMIT

BIGGEST_ID = 2**63 - 1
# Something other than white space, and no NUL, which no database keeps.
NOT_BLANK = {"type": "string", "minLength": 1, "pattern": r"^[^\u0000]*\S[^\u0000]*$"}


@extend_schema_field({"type": "string", "pattern": r"^[^\u0000]*$"})
class OptionalText(serializers.CharField):
    """Text, perhaps empty, where the framework would take a number as well."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


@extend_schema_field(NOT_BLANK)
class Text(OptionalText):
    """Text that says something."""


class Choice(serializers.ChoiceField):
    """One of a few words; another is refused with a list of them."""

    def fail(self, key: str, **kwargs: Any) -> NoReturn:
        if key == "invalid_choice":
            raise ValidationError(
                f"{kwargs['input']!r} is none of {', '.join(map(str, self.choices))}.", code=key
            )
        super().fail(key, **kwargs)


class PatternText(serializers.RegexField):
    """Text of one form; no number that would look like it."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class Boolean(serializers.BooleanField):
    """`true` or `false`: no word for it, no number."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class Integer(serializers.IntegerField):
    """A whole number: no text, no fraction, no boolean."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int):
            self.fail("invalid")
        return super().to_internal_value(data)


class Number(serializers.FloatField):
    """A finite number. NaN passes every comparison with a bound, so it must not come this far."""

    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool) or not isinstance(data, int | float) or not _is_finite(data):
            self.fail("invalid")
        return super().to_internal_value(data)


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number beyond what a float holds
        return False


@extend_schema_field({**NOT_BLANK, "maxLength": REASON_LIMIT})
class Reason(Text):
    """The reason, recorded in the audit history with the name."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            max_length=REASON_LIMIT, help_text="The reason, recorded in the audit history.", **kwargs
        )


class LengthRequired(APIException):
    """The framework takes a body of unannounced length for an empty one; then its fields would only seem to be missing."""

    status_code = 411
    default_detail = "Send the body with a Content-Length; a chunked one is not read."


class Input(serializers.Serializer[Any]):
    """A body's fields and no others."""

    def to_internal_value(self, data: Any) -> Any:
        unknown = sorted(set(data) - set(self.fields)) if isinstance(data, dict) else []
        if unknown:
            known = f"There is no such field here. Known: {', '.join(self.fields) or 'none'}."
            raise serializers.ValidationError({name[:100]: [known] for name in unknown[:10]})
        return super().to_internal_value(data)

    @classmethod
    def read(cls, request: Request) -> dict[str, Any]:
        """The checked fields of a request's body. Raises ValidationError, field by field; LengthRequired."""
        if "Transfer-Encoding" in request.headers and not request.headers.get("Content-Length"):
            raise LengthRequired
        parsed = cls(data=request.data)
        parsed.is_valid(raise_exception=True)
        checked: dict[str, Any] = parsed.validated_data
        return checked


@extend_schema_field({"type": "integer", "minimum": 0, "maximum": BIGGEST_ID})
class IntegerFilter(filters.NumberFilter):
    """`?release=3`: a whole number that a database can hold, where the framework would take 3.5 and truncate it."""

    field_class = forms.IntegerField

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, min_value=0, max_value=BIGGEST_ID, **kwargs)


class _BooleanField(forms.Field):
    def to_python(self, value: Any) -> bool | None:
        words = {"true": True, "false": False}
        if value is not None and str(value).lower() not in words:
            raise forms.ValidationError("Give `true` or `false`.")
        return None if value is None else words[str(value).lower()]


@extend_schema_field({"type": "boolean"})
class BooleanFilter(filters.Filter):
    """`?is_required=true`, where the framework's own takes any other word for no filter at all."""

    field_class = _BooleanField


class ClosedSchema(OpenApiSerializerExtension):
    target_class = "common.api_fields.Input"
    match_subclasses = True

    def map_serializer(self, auto_schema: Any, direction: str) -> dict[str, Any]:
        schema: dict[str, Any] = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)
        return {**schema, "additionalProperties": False}
