"""Which parameters of a test run in `make test`, where all of them take long. The others run in `make long`."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import pytest

Value = TypeVar("Value")


def long_except(values: Iterable[Value], is_short: Callable[[Value], bool]) -> list[Any]:
    """For `parametrize`: the values in their order, marked `long` unless `is_short`."""
    return [value if is_short(value) else pytest.param(value, marks=pytest.mark.long) for value in values]
