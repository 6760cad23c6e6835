from rest_framework.pagination import LimitOffsetPagination


class Pages(LimitOffsetPagination):
    """`?limit=50&offset=0`, at most 500 rows a page."""

    default_limit = 50
    max_limit = 500
