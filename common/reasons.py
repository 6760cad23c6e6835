"""The reason that every decision gives: required, and bounded."""

from common.errors import InvalidInput

REASON_LIMIT = 1000
"""Characters of a reason, wherever it is given."""


def require_reason(reason: str) -> str:
    """Every decision says why."""
    cleaned = reason.strip()
    if not cleaned:
        raise InvalidInput("Give a reason: it is recorded in the audit history.", field="reason")
    if len(cleaned) > REASON_LIMIT:
        raise InvalidInput(
            f"The reason has {len(cleaned)} characters; {REASON_LIMIT:,} are enough.", field="reason"
        )
    return cleaned
