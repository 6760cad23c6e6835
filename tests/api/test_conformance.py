"""Schemathesis asks every operation what its schema allows, and more: nothing breaks, and answers are as described."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from accounts.models import User
from accounts.rules import Role, Scope
from tests import factories, scenarios
from tests.api.test_scopes import queued_run
from training.models import Artifact

pytestmark = pytest.mark.django_db

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = 8


@pytest.fixture
def application() -> Iterator[Any]:
    """The service as a WSGI application on this test's own connection, which Django would close after each request."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield get_wsgi_application()
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


@pytest.fixture
def everybody(approver: User) -> list[str]:
    """Tokens for all that may be asked: an approver's, an operator's, now and then a bot's."""
    scenarios.service_in_use()
    scenarios.awaiting_approval()
    queued_run()
    operator = factories.person("olivia", Role.OPERATOR)
    approves, operates = factories.token(approver, Scope.APPROVER), factories.token(operator, Scope.OPERATOR)
    return [approves, operates, approves, operates, factories.token(operator, Scope.BOT)]


def test_every_operation_answers_as_its_schema_says(application: Any, everybody: list[str]) -> None:
    headers = {"Authorization": f"Bearer {everybody[0]}"}
    schema = schemathesis.openapi.from_wsgi("/api/schema/", application, headers=headers)
    asked = [0]
    for result in schema.get_all_operations():
        operation: Any = result.ok()  # type: ignore[union-attr]

        @given(case=operation.as_strategy())
        @settings(
            max_examples=EXAMPLES,
            phases=[Phase.explicit, Phase.generate],
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        def ask(case: Any) -> None:
            asked[0] += 1
            _aim(case, asked[0])
            token = everybody[asked[0] % len(everybody)]
            case.call_and_validate(headers={"Authorization": f"Bearer {token}"}, checks=CHECKS)

        ask()
    assert asked[0] > 150


def _aim(case: Any, turn: int) -> None:
    """Let an id be one that is there, mostly: three releases, nine diagnoses, a run."""
    if "id" in case.path_parameters:
        case.path_parameters["id"] = 1 + int(case.path_parameters["id"]) % 4
    if "sha256" in case.path_parameters and turn % 2:
        case.path_parameters["sha256"] = Artifact.objects.values_list("sha256", flat=True)[turn % 9]
