"""What can go wrong for a caller: one tree for page, API and command."""

from typing import Any


class DomainError(Exception):
    """A request the service will not carry out. The message says what happened and what to do."""

    status = 400
    title = "Refused"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field

    def as_problem(self) -> dict[str, Any]:
        """This refusal as a problem document (RFC 9457); `errors` names the field it is about."""
        document = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.message,
        }
        return {**document, "errors": {self.field: [self.message]}} if self.field else document


class InvalidInput(DomainError):
    """The request itself is wrong; changing it helps."""

    status = 400
    title = "Invalid input"


class NotAllowed(DomainError):
    """The request is sound, but not from this actor."""

    status = 403
    title = "Not allowed"


class NotFound(DomainError):
    """No such thing."""

    status = 404
    title = "Not found"


class Conflict(DomainError):
    """The request is sound, but the world is not in the state it needs."""

    status = 409
    title = "Conflict"


class TooLarge(DomainError):
    """More bytes than such a request can have."""

    status = 413
    title = "Too large"


class Unauthenticated(DomainError):
    """Nobody said who asks, or with a token that does not hold."""

    status = 401
    title = "Not signed in"


class Unavailable(DomainError):
    """The service cannot answer yet; asking again later helps."""

    status = 503
    title = "Unavailable"
