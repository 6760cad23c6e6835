"""Options of commands for the settings of recipes. The services check the values."""

from typing import Any

from django.core.management.base import CommandParser

from mlcore.fitting.settings import CONTRACT, TRAINING, Parameter

SETTINGS = {**TRAINING, **CONTRACT}


def add_setting_options(parser: CommandParser) -> None:
    for name, setting in SETTINGS.items():
        kind: type = str
        if isinstance(setting, Parameter):
            kind = int if setting.is_whole else float
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=setting.meaning)


def read_settings(options: dict[str, Any]) -> dict[str, Any]:
    """Those that were given."""
    return {name: options[name] for name in SETTINGS if options[name] is not None}
