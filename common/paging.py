"""Pages of long lists at a cost that does not grow with the list."""

from typing import Any, cast

from django.core.paginator import Page, Paginator
from django.db.models import QuerySet


def fetch_slice(rows: QuerySet[Any], start: int, stop: int, count: int) -> list[Any]:
    """The rows from `start` to `stop` of `count`, which must be in a total order.

    The keys of the page come first, from the nearer end of the list, and then the rows: skipped rows are neither read nor
    annotated, and the last page costs what the first one does.
    """
    stop = min(stop, count)
    if start >= stop:
        return []
    keys = rows.values_list("pk", flat=True)
    is_near_end = start > count - stop
    chosen = (
        list(keys.reverse()[count - stop : count - start])[::-1] if is_near_end else list(keys[start:stop])
    )
    found = {row.pk: row for row in rows.filter(pk__in=chosen)}
    return [found[key] for key in chosen if key in found]


class RowPaginator(Paginator):  # type: ignore[type-arg]  # takes no arguments at run time
    """Django's paginator on `fetch_slice`."""

    def page(self, number: int | str) -> Page[Any]:
        number = self.validate_number(number)
        start = (number - 1) * self.per_page
        rows = cast(QuerySet[Any], self.object_list)
        return Page(fetch_slice(rows, start, start + self.per_page, self.count), number, self)
