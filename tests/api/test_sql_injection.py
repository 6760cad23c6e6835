"""SQL injection: what a caller sends is only ever a parameter of a statement, never a part of its text.

The oracle is the log of statements. A payload holds a word that no statement of ours has; where that word is found in the
text that the database is given, somebody could have written SQL there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse

from accounts.models import User
from tests.api.callers import Caller
from tests.api.operations import MATRIX, endpoints

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql, pytest.mark.slow]

WORD = "zebra7"
PAYLOADS = [
    f"{WORD}' OR '1'='1",
    f'{WORD}" OR 1=1 --',
    f"1; DROP TABLE accounts_user; -- {WORD}",
    f"1 UNION SELECT password FROM accounts_user -- {WORD}",
    f"'||(SELECT '{WORD}')||'",
    f"{WORD}\\'; SELECT pg_sleep(9) --",
    f"%' ESCAPE '{WORD}",
    f"-pk,({WORD})",
]


@contextmanager
def log_statements() -> Iterator[list[str]]:
    """The text of each statement, without its parameters."""
    statements: list[str] = []

    def keep(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        statements.append(sql)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(keep):
        yield statements


def list_filters() -> list[tuple[str, str]]:
    """(route, filter) of every list of the API, with the filters of paging and order."""
    found = []
    for name, view in endpoints():
        filterset = getattr(view, "filterset_class", None)
        if ("GET", name) in MATRIX and filterset is not None:
            names = [*filterset.base_filters, "limit", "offset", "ordering"]
            found += [(name, each) for each in dict.fromkeys(names)]
    return found


def test_there_are_filters_to_try() -> None:
    assert len({route for route, _ in list_filters()}) > 8
    assert len(list_filters()) > 50


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_filter_of_a_list_becomes_sql(as_viewer: Caller, payload: str) -> None:
    people = User.objects.count()
    for route, name in list_filters():
        address = reverse(f"api:{route}", args=_make_arguments(route))
        with log_statements() as statements:
            answer = as_viewer.get(address, {name: payload})
        assert answer.status_code in (200, 400, 404), (route, name)
        if answer.status_code == 200:
            assert answer.json().get("count", 0) == 0, (route, name, "the condition was widened")
        assert [sql for sql in statements if WORD in sql] == [], (route, name)
    assert User.objects.count() == people


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("address", ["/coins/{}/", "/artifacts/{}", "/releases/{}/", "/audit/?kind={}.*"])
def test_no_identifier_in_an_address_becomes_sql(as_viewer: Caller, address: str, payload: str) -> None:
    with log_statements() as statements:
        answer = as_viewer.get(f"/api/v1{address.format(quote(payload, safe=''))}")
    assert answer.status_code in (200, 400, 404, 405)
    assert [sql for sql in statements if WORD in sql] == []


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_query_of_a_page_becomes_sql(viewer: User, payload: str) -> None:
    browser = Client()
    browser.force_login(viewer)
    with log_statements() as statements:
        for page in (
            "/releases/",
            "/runs/",
            "/bots/",
            "/datasets/",
            "/bundles/",
            "/tokens/",
            "/launch/",
            "/",
        ):
            query = dict.fromkeys(("state", "page", "line", "gates", "against", "from", "seen"), payload)
            assert browser.get(page, query).status_code in (200, 400, 403, 404), page
    assert [sql for sql in statements if WORD in sql] == []


def test_the_log_of_statements_would_show_sql_made_of_text() -> None:
    with log_statements() as statements:
        list(User.objects.raw(f"SELECT * FROM accounts_user WHERE username = '{WORD}'"))
        list(User.objects.filter(username=WORD))
    assert [WORD in sql for sql in statements] == [True, False]


def _make_arguments(route: str) -> list[int]:
    return [1] if route in ("acknowledgements", "epochs", "log", "report", "trials") else []
