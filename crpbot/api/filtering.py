"""Filters of lists. A misspelt filter is refused: if it were ignored, the answer would have too many rows."""

from typing import Any

from django_filters.rest_framework import DjangoFilterBackend
from rest_framework.exceptions import ValidationError
from rest_framework.mixins import ListModelMixin
from rest_framework.request import Request

PAGING = {"limit", "offset"}


class StrictFilterBackend(DjangoFilterBackend):
    """django-filter, with a 400 for unknown, empty or repeated query parameters."""

    def filter_queryset(self, request: Request, queryset: Any, view: Any) -> Any:
        filterset_class = self.get_filterset_class(view, queryset)
        known = set(filterset_class.base_filters) if filterset_class else set()
        if isinstance(view, ListModelMixin):
            known |= PAGING
        if unknown := sorted(set(request.query_params) - known):
            message = f"There is no such filter. Known: {', '.join(sorted(known)) or 'none'}."
            raise ValidationError({name[:100]: [message] for name in unknown[:10]})
        given = {name: request.query_params.getlist(name) for name in request.query_params}
        if unclear := [name for name, values in given.items() if len(values) > 1 or not values[0].strip()]:
            raise ValidationError({name: ["Give one value, or omit it."] for name in unclear})
        return super().filter_queryset(request, queryset, view)
