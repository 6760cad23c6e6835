"""Who asks the API in these tests, and what a refusal must look like."""

from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.test import Client

from accounts.models import User
from tests import factories

V1 = "/api/v1/"


@dataclass
class Caller:
    """Somebody who asks: with a token, a session, or nothing."""

    http: Client
    token: str | None = None
    csrf_token: str | None = None

    def get(self, path: str, query: Any = None, *, headers: dict[str, str] | None = None) -> Any:
        """The answer, whose `.bytes` are read to the end: that closes the file of one that streams."""
        response: Any = self.http.get(_address(path), query, headers=self._headers(headers or {}))
        response.bytes = response.getvalue()
        return response

    def post(self, path: str, body: Any, *, content_type: str = "application/json") -> Any:
        return self.http.post(_address(path), body, content_type=content_type, headers=self._headers({}))

    def patch(self, path: str, body: Any) -> Any:
        return self.http.patch(
            _address(path), body, content_type="application/json", headers=self._headers({})
        )

    def upload(self, path: str = "datasets/", /, **fields: Any) -> Any:
        return self.http.post(_address(path), fields, headers=self._headers({}))

    def ask(self, method: str, path: str, **kwargs: Any) -> Any:
        return self.http.generic(method, _address(path), headers=self._headers({}), **kwargs)

    def _headers(self, headers: dict[str, str]) -> dict[str, str]:
        own = {
            "Authorization": f"Bearer {self.token}" if self.token else None,
            "X-CSRFToken": self.csrf_token,
        }
        return headers | {name: value for name, value in own.items() if value}


def _address(path: str) -> str:
    return path if path.startswith("/") else V1 + path


def with_token(user: User, scope: str) -> Caller:
    return Caller(Client(), factories.token(user, scope))


def signed_in(user: User) -> Caller:
    """In a browser: a session cookie, and CSRF protection as in production."""
    http = Client(enforce_csrf_checks=True)
    http.force_login(user)
    return Caller(http)


def csrf_token(caller: Caller) -> str:
    """The token a page of ours would hold for this browser."""
    caller.http.get("/api/docs/")
    return str(caller.http.cookies[settings.CSRF_COOKIE_NAME].value)


def assert_problem(response: Any, status: int, *says: str) -> dict[str, Any]:
    """The answer is a problem document of this status whose detail says these words."""
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["status"] == status
    assert document["title"]
    for words in says:
        assert words in document["detail"], document["detail"]
    return document
