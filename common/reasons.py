"""The reason of a decision: required, with a maximum length."""

from common.errors import InvalidInput

REASON_LIMIT = 1000
"""Maximum characters of a reason."""


def require_reason(reason: str) -> str:
    """The reason without surrounding space. Raises InvalidInput when it is empty or too long."""
    cleaned = reason.strip()
    if not cleaned:
        raise InvalidInput("Give a reason: it is recorded in the audit history.", field="reason")
    if len(cleaned) > REASON_LIMIT:
        raise InvalidInput(
            f"The reason has {len(cleaned)} characters; the limit is {REASON_LIMIT:,}.", field="reason"
        )
    return cleaned
