"""Pagination of lists."""

from typing import Any

from rest_framework.exceptions import ValidationError
from rest_framework.pagination import LimitOffsetPagination
from rest_framework.request import Request

from common.paging import fetch_slice


class StrictPagination(LimitOffsetPagination):
    """`?limit=50&offset=0`, at most 500 rows per page. Invalid values are refused, not replaced by a default."""

    default_limit = 50
    max_limit = 500

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any]:
        self.request, self.limit, self.offset = request, self.get_limit(request), self.get_offset(request)
        count_all = getattr(view, "count_all", None)
        self.count = count_all() if count_all and not queryset.query.where else self.get_count(queryset)
        return fetch_slice(queryset, self.offset, self.offset + self.limit, self.count)

    def get_limit(self, request: Request) -> int:
        return _parse_whole(request, "limit", self.default_limit, least=1, greatest=self.max_limit)

    def get_offset(self, request: Request) -> int:
        return _parse_whole(request, "offset", 0, least=0, greatest=2**31 - 1)

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        limit = {"type": "integer", "minimum": 1, "maximum": self.max_limit, "default": self.default_limit}
        offset = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1, "default": 0}
        return [
            _build_parameter("limit", "Rows per page.", limit),
            _build_parameter("offset", "Rows to skip.", offset),
        ]


def _build_parameter(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def _parse_whole(request: Request, name: str, default: int, *, least: int, greatest: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and least <= int(text) <= greatest):
        raise ValidationError({name: [f"Give a whole number from {least} to {greatest}."]})
    return int(text)
