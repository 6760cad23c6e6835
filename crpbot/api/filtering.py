"""Filters of the lists. A misspelt one is refused: ignored, it would answer more than was asked for."""

from typing import Any

from django_filters.rest_framework import DjangoFilterBackend
from rest_framework.exceptions import ValidationError
from rest_framework.mixins import ListModelMixin
from rest_framework.request import Request

PAGING = {"limit", "offset"}


class StrictFilterBackend(DjangoFilterBackend):
    """django-filter, and a 400 that names a query parameter which nobody reads, or which says nothing, or two things."""

    def filter_queryset(self, request: Request, queryset: Any, view: Any) -> Any:
        filterset_class = self.get_filterset_class(view, queryset)
        known = set(filterset_class.base_filters) if filterset_class else set()
        if isinstance(view, ListModelMixin):
            known |= PAGING
        if unknown := sorted(set(request.query_params) - known):
            listed = f"There is no such filter here. Known: {', '.join(sorted(known)) or 'none'}."
            raise ValidationError({name[:100]: [listed] for name in unknown[:10]})
        given = {name: request.query_params.getlist(name) for name in request.query_params}
        if unclear := [name for name, values in given.items() if len(values) > 1 or not values[0].strip()]:
            raise ValidationError({name: ["Give one value, or leave it out."] for name in unclear})
        return super().filter_queryset(request, queryset, view)
