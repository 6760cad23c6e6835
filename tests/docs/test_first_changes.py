"""The code of "Your first change: a command" and "a page" works as it is shown."""

import json
import re
import sys
import types
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client, override_settings
from django.urls import path

from accounts.models import User
from crpbot import urls
from tests import factories, scenarios
from tests.processes import REPOSITORY

PAGES = REPOSITORY / "docs" / "development"


def code_of(page: str, file: str) -> str:
    """The code block of a page that begins with the name of this file."""
    blocks = re.findall(r"^```\w+\n(.*?)^```", (PAGES / page).read_text(), re.MULTILINE | re.DOTALL)
    return next(block for block in blocks if file in block.splitlines()[0])


def module_of(page: str, file: str) -> Any:
    module = types.ModuleType(Path(file).stem)
    exec(compile(code_of(page, file), file, "exec"), vars(module))
    return module


@pytest.mark.slow
@pytest.mark.django_db
def test_the_command_prints_text_and_json() -> None:
    command = module_of("first-change-command.md", "deploy/management/commands/moves.py").Command
    out = StringIO()
    call_command(command(), stdout=out)
    assert "has not moved yet" in out.getvalue()
    scenarios.service_in_use()
    out = StringIO()
    call_command(command(), "--json", stdout=out)
    assert [move["revision"] for move in json.loads(out.getvalue())["moves"]] == [1]


@pytest.mark.slow
@pytest.mark.django_db
def test_the_page_is_shown_to_a_signed_in_person(
    tmp_path: Path, client: Client, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deploy").mkdir()
    template = code_of("first-change-page.md", "templates/deploy/signing_keys.html")
    (tmp_path / "deploy" / "signing_keys.html").write_text(template.partition("\n")[2])
    view = module_of("first-change-page.md", "deploy/views/signing_keys.py").index
    conf = types.ModuleType("urls_with_keys")
    own = {name: value for name, value in vars(urls).items() if not name.startswith("__")}
    vars(conf).update(own, urlpatterns=[*urls.urlpatterns, path("keys/", view, name="signing-keys")])
    monkeypatch.setitem(sys.modules, conf.__name__, conf)
    templates = [{**settings.TEMPLATES[0], "DIRS": [tmp_path, *settings.TEMPLATES[0]["DIRS"]]}]
    with override_settings(ROOT_URLCONF=conf.__name__, TEMPLATES=templates):
        factories.person("victor", "viewer")
        client.force_login(User.objects.get(username="victor"))
        assert "<h1>Signing keys</h1>" in client.get("/keys/").content.decode()
