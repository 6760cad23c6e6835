"""A strict JSON parser: two parsers cannot read a body differently."""

import json
from collections.abc import Mapping
from typing import IO, Any, NoReturn

from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser


class StrictJSONParser(JSONParser):
    """UTF-8 only, no NaN or Infinity, no duplicate names, no excessive nesting."""

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        try:
            return json.loads(
                stream.read().decode(), object_pairs_hook=_reject_duplicates, parse_constant=_reject_constant
            )
        except RecursionError:
            raise ParseError("The body is nested too deeply.") from None
        except ValueError as error:
            raise ParseError(f"The body is not JSON: {error}.") from error


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("an object has a duplicate name")
    return document


def _reject_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a JSON number")
