"""Whatever goes wrong, a program reads one form of answer."""

from typing import Any, NoReturn

import pytest
from django.db import OperationalError, connection

from gates.models import GatePolicy
from tests.api.callers import Caller, assert_problem

pytestmark = pytest.mark.django_db

DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "path", ["v1/nothing/", "v1/coins", "v2/coins/", "", "v1/", "v1/releases/1/explode/"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_an_address_that_is_none_is_a_problem_too(path: str, method: str, anonymous: Caller) -> None:
    assert_problem(anonymous.ask(method, f"/api/{path}"), 404, "/api/docs/")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ('{"reason": ', 400),
        ("", 400),
        ("null", 400),
        ("[]", 400),
        ('"text"', 400),
        ('{"reason": NaN}', 400),
        ('{"reason": "fine", "revision": Infinity}', 400),
        ('{"reason": "fine", "revision": -Infinity}', 400),
        ('{"reason": "fine", "revision": 1e999}', 400),
        (f'{{"reason": "fine", "revision": {"9" * 5000}}}', 400),
        ('{"reason": "\\ud800", "revision": 1}', 400),
        (DEEP, 400),
        (f'{{"reason": {DEEP}', 400),
        (b'{"reason": "\xff"}', 400),
        (b"\x00", 400),
        (f'{{"reason": "{"x" * 300_000}"}}', 413),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_body_that_cannot_be_read_is_refused(body: Any, status: int, as_approver: Caller) -> None:
    assert_problem(as_approver.post("releases/1/approve/", body), status)


def test_a_field_that_occurs_twice_is_refused(as_approver: Caller) -> None:
    body = '{"reason": "fine", "revision": 1, "revision": 2}'
    assert_problem(as_approver.post("releases/1/approve/", body), 400, "duplicate name")


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/xml", "application/x-www-form-urlencoded"]
)
def test_a_body_of_another_type_is_refused(content_type: str, as_approver: Caller) -> None:
    response = as_approver.post("pointer/pin/", "reason=fine", content_type=content_type)
    assert_problem(response, 415, content_type)


def test_a_body_of_unannounced_length_is_not_taken_for_an_empty_one(as_approver: Caller) -> None:
    headers = {"Authorization": f"Bearer {as_approver.token}", "Transfer-Encoding": "chunked"}
    assert_problem(
        as_approver.http.generic("POST", "/api/v1/pointer/pin/", headers=headers), 411, "Content-Length"
    )


def test_every_wrong_field_is_named_at_once(as_operator: Caller) -> None:
    body = {"line": "v8", "epochs": 0, "lerning_rate": 1, "colour": "red"}
    problem = assert_problem(as_operator.post("releases/", body), 400, "lerning_rate", "colour")
    assert set(problem["errors"]) == {"lerning_rate", "colour"}
    problem = assert_problem(as_operator.post("releases/", {"line": "v8", "epochs": 0}), 400)
    assert set(problem["errors"]) == {"line", "epochs"}


def test_a_refused_name_is_not_echoed_without_end(as_operator: Caller) -> None:
    body = {f"{number}{'x' * 500}": 1 for number in range(400)}
    response = as_operator.post("releases/", body)
    assert_problem(response, 400)
    assert len(response.content) < 20_000


def test_a_server_error_is_a_problem_without_internals(as_viewer: Caller) -> None:
    GatePolicy.objects.create(
        number=99, body="not JSON", required_gates=0, reason="a fault", proposed_by="anna"
    )
    as_viewer.http.raise_request_exception = False
    response = as_viewer.get("policies/")
    problem = assert_problem(response, 500, "could not answer this request")
    assert "JSON" not in str(problem)


def test_while_the_database_does_not_answer_a_program_is_told_to_ask_later(as_approver: Caller) -> None:
    def closed(*query: object) -> NoReturn:
        raise OperationalError("the server closed the connection unexpectedly")

    with connection.execute_wrapper(closed):
        response = as_approver.get("workers/")
    assert_problem(response, 503, "cannot reach its database")
    assert int(response["Retry-After"]) > 0


@pytest.mark.parametrize("accept", ["text/html", "application/xml", "image/png", "nonsense"])
def test_what_a_program_accepts_never_hides_the_answer(accept: str, as_viewer: Caller) -> None:
    response = as_viewer.get("coins/", headers={"Accept": accept})
    assert (response.status_code, response["Content-Type"]) == (200, "application/json")


def test_an_answer_is_read_as_nothing_but_what_it_is(as_viewer: Caller) -> None:
    response = as_viewer.get("coins/")
    assert response["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in response["Content-Security-Policy"]


def test_nothing_on_the_way_keeps_an_answer(as_viewer: Caller, anonymous: Caller) -> None:
    assert as_viewer.get("coins/")["Cache-Control"] == "no-store"
    assert anonymous.get("coins/")["Cache-Control"] == "no-store"
    assert anonymous.get("/api/nothing/")["Cache-Control"] == "no-store"


def test_another_hosts_name_is_a_problem_too(anonymous: Caller) -> None:
    assert_problem(anonymous.get("coins/", headers={"Host": "evil.example"}), 400)
