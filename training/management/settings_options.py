"""Options of commands for the settings of recipes. The services check the values."""

from typing import Any

from django.core.management.base import CommandParser

from common.errors import InvalidInput
from mlcore.fitting.settings import CONTRACT, TRAINING, Parameter

SETTINGS = {**TRAINING, **CONTRACT}


def add_setting_options(parser: CommandParser) -> None:
    for name, setting in SETTINGS.items():
        kind: type = str
        if isinstance(setting, Parameter):
            kind = int if setting.is_whole else float
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=setting.meaning)
    parser.add_argument(
        "--parameter", action="append", default=[], metavar="NAME=VALUE", help="a parameter of an own recipe"
    )


def read_settings(options: dict[str, Any]) -> dict[str, Any]:
    """Those that were given. Raises InvalidInput for a parameter without a number, or one that is given twice."""
    given = {name: options[name] for name in SETTINGS if options[name] is not None}
    for text in options["parameter"]:
        name, _, value = text.partition("=")
        if name in given:
            raise InvalidInput(f"{name} is given twice.", field=name)
        given[name] = _read_number(name, value)
    return given


def _read_number(name: str, value: str) -> float:
    try:
        return int(value) if value.lstrip("-").isdigit() else float(value)
    except ValueError:
        raise InvalidInput(f"--parameter {name}={value}: say NAME=VALUE with a number.", field=name) from None
