"""Reads settings from the environment. A value that cannot be is refused in one sentence, which never shows a secret."""

import math
import os
import re
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

_Number = TypeVar("_Number", int, float, Decimal)
MAX_NUMBER = 10**12
_RATE = re.compile(r"\d{1,9}/(s|sec|second|m|min|minute|h|hour|d|day)")
_REDIS_PATH = re.compile(r"/?\d{0,5}")
_FALSE = ("0", "false", "no", "n", "off")


class Environment(environ.Env):
    """`environ.Env` guesses: it reads any text as *false*, and any digits in a text as its number. This one refuses.

    Variables that are empty count as unset, as docker compose leaves them. Every method raises ImproperlyConfigured.
    """

    def int(self, var: str, default: Any) -> int:
        """A whole number from 0 on."""
        return _read_number(var, int, default, "a whole number of 0 or more, such as 60")

    def float(self, var: str, default: Any) -> float:
        """A number from 0 on."""
        return _read_number(var, float, default, "a number of 0 or more, such as 7.5")

    def usd(self, var: str, default: str) -> str:
        """US dollars, as text that a Decimal is made of."""
        _read_number(var, Decimal, default, "an amount of US dollars, such as 1.50")
        return _read(var) or default

    def bool(self, var: str, default: Any) -> bool:
        text = _read(var).lower()
        if text and text not in (*self.BOOLEAN_TRUE_STRINGS, *_FALSE):
            raise _refuse(var, text, "1 or 0")
        return text in self.BOOLEAN_TRUE_STRINGS if text else bool(default)

    def rate(self, var: str, default: str) -> str:
        """So many in a period; empty for no limit, where somebody left it empty."""
        text = os.environ.get(var, default).strip()
        if text and not _RATE.fullmatch(text):
            raise _refuse(var, text, "a number and a period, such as 120/min, or empty for no limit")
        return text

    def address(self, var: str) -> str:
        """Of a service over HTTP; empty if there is none."""
        text = _read(var)
        if text and not _is_address(text, ("http", "https")):
            raise _refuse(var, text, "an address, such as https://host:9000")
        return text

    def redis(self, var: str) -> str:
        """Of Redis; empty if there is none."""
        text = _read(var)
        is_remote = _is_address(text, ("redis", "rediss")) and _REDIS_PATH.fullmatch(urlsplit(text).path)
        if text and not is_remote and not text.startswith("unix:///"):
            raise ImproperlyConfigured(f"{var} is no address of Redis; write redis://:password@host:6379/0.")
        return text

    def database(self, var: str) -> dict[str, Any]:
        """Of PostgreSQL, as Django takes it."""
        with suppress(ValueError):
            if _read(var).startswith(("postgres://", "postgresql://")):
                found: dict[str, Any] = self.db_url(var)
                if found["NAME"] and 0 <= int(found["PORT"] or 0) < 65_536:
                    return found
        raise ImproperlyConfigured(
            f"{var} is no address of a PostgreSQL database; write postgres://user:password@host:5432/name, with letters such"
            " as @ and / of the password as %40 and %2F."
        )


def _read(var: str) -> str:
    return os.environ.get(var, "").strip()


def _read_number(var: str, kind: Callable[[Any], _Number], default: Any, wanted: str) -> _Number:
    text = _read(var)
    with suppress(ValueError, OverflowError, InvalidOperation):
        number = kind(text or default)
        if math.isfinite(number) and 0 <= number <= MAX_NUMBER:
            return number
    raise _refuse(var, text, wanted)


def _is_address(text: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in schemes and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _refuse(var: str, text: str, wanted: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"{var} is {text[:60]!a}; it must be {wanted}.")
