"""`.env.example` names every setting of production, with the default that the settings and docker-compose.yml have."""

import os
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings as active_settings

REPOSITORY = Path(active_settings.BASE_DIR)
LINES = (REPOSITORY / ".env.example").read_text().splitlines()
ENTRY = re.compile(r"(#?)(CRPBOT_\w+)=(.*)")
ENTRIES = [match for line in LINES if (match := ENTRY.fullmatch(line))]
NAMES = [entry[2] for entry in ENTRIES]
REQUIRED = {entry[2] for entry in ENTRIES if not entry[1]}
DEFAULTS = {entry[2]: entry[3] for entry in ENTRIES if entry[1]}

COMPOSE_TEXT = (REPOSITORY / "docker-compose.yml").read_text()
COMPOSE_VARIABLES = re.findall(r"\$\{(CRPBOT_\w+)(?::?([-?])([^}]*))?\}", COMPOSE_TEXT)
COMPOSE_ENVIRONMENT = yaml.safe_load(COMPOSE_TEXT)["services"]["reconcile"]["environment"]
PASSED_THROUGH = {name for name, value in COMPOSE_ENVIRONMENT.items() if value is None}
SETTINGS = set(re.findall(r'"(CRPBOT_\w+)"', (REPOSITORY / "crpbot" / "settings.py").read_text()))
EMBEDDED_ONLY = {"CRPBOT_STATE_DIR"}


def read_settings(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> dict[str, Any]:
    """The values of crpbot/settings.py in the production profile with this environment and no other setting."""
    for name in [name for name in os.environ if name.startswith("CRPBOT_")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    values = runpy.run_path(str(REPOSITORY / "crpbot" / "settings.py"))
    values["AWS_S3_CLIENT_CONFIG"] = vars(values["AWS_S3_CLIENT_CONFIG"])
    return {name: value for name, value in values.items() if name.isupper()}


def test_it_names_every_setting_of_production_once() -> None:
    assert set(NAMES) == (SETTINGS - EMBEDDED_ONLY) | {name for name, *_ in COMPOSE_VARIABLES}
    assert len(NAMES) == len(set(NAMES))


def test_every_setting_has_a_comment_of_one_line() -> None:
    before = {
        match[2]: LINES[index - 1] for index, line in enumerate(LINES) if (match := ENTRY.fullmatch(line))
    }
    assert [name for name, line in before.items() if not re.fullmatch(r"# [A-Za-z].{5,110}", line)] == []


def test_what_compose_requires_is_to_be_filled_in() -> None:
    assert {name for name, kind, _ in COMPOSE_VARIABLES if kind == "?"} == REQUIRED
    assert [entry[2] for entry in ENTRIES if not entry[1] and entry[3]] == [], "a secret has no example value"


def test_its_defaults_are_those_of_compose() -> None:
    in_compose = {name: default for name, kind, default in COMPOSE_VARIABLES if kind == "-"}
    assert {name: DEFAULTS[name] for name in in_compose} == in_compose


def test_its_other_defaults_are_those_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    required = dict.fromkeys(
        SETTINGS & (REQUIRED | {"CRPBOT_S3_BUCKET"}), "a value that is long enough to be a secret"
    )
    required |= {
        name: DEFAULTS[name] for name in ("CRPBOT_PROFILE", "CRPBOT_DATABASE_URL", "CRPBOT_REDIS_URL")
    }
    documented = {name: DEFAULTS[name] for name in PASSED_THROUGH | {"CRPBOT_SIGNING_KEYS_DIR"}}
    assert read_settings(monkeypatch, required | documented) == read_settings(monkeypatch, required)
