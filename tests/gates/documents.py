"""Changes of measurement documents, for tests of single gates."""

from copy import deepcopy
from typing import Any


def changed(document: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy with other figures at these dotted paths."""
    document = deepcopy(document)
    for path, value in changes.items():
        *steps, last = path.split("/")
        at = document
        for step in steps:
            at = at[step]
        at[last] = value
    return document


def accuracy(point: float, lower: float, upper: float = 0.9, **more: Any) -> dict[str, Any]:
    return {
        f"accuracy/{name}": value
        for name, value in {"point": point, "lower": lower, "upper": upper, **more}.items()
    }
