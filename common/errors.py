"""Domain errors: the same for pages, API and commands."""

from typing import Any


class DomainError(Exception):
    """A refused request. The message says what happened and what to do."""

    status = 400
    title = "Refused"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field

    def to_problem(self) -> dict[str, Any]:
        """The error as a problem document (RFC 9457); `errors` names its field."""
        document = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.message,
        }
        return {**document, "errors": {self.field: [self.message]}} if self.field else document


class InvalidInput(DomainError):
    status = 400
    title = "Invalid input"


class NotAllowed(DomainError):
    status = 403
    title = "Not allowed"


class FactorNeeded(NotAllowed):
    """The decision needs a second factor, given a short time ago."""

    title = "Second factor needed"


class NotFound(DomainError):
    status = 404
    title = "Not found"


class Conflict(DomainError):
    """The request does not fit the current state."""

    status = 409
    title = "Conflict"


class TooLarge(DomainError):
    status = 413
    title = "Too large"


class Unauthenticated(DomainError):
    """The credentials are missing or invalid."""

    status = 401
    title = "Not signed in"


class Unavailable(DomainError):
    """The service cannot answer now; try again later."""

    status = 503
    title = "Unavailable"
