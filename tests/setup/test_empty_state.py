"""Before the first migration, and without a setting that is needed, every command ends with one sentence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.db import DatabaseError, connection, transaction
from django.db.migrations.recorder import MigrationRecorder

from audit import triggers
from crpbot.checks import check_db_guards
from crpbot.database_failures import is_not_migrated

REPOSITORY = Path(__file__).resolve().parents[2]
COMMANDS = {
    "active": [],
    "advance_revision": ["--by", "1", "--reason", "x"],
    "approve": ["1", "--revision", "1", "--reason", "x"],
    "backup": ["create"],
    "bots": [],
    "cancel": ["1", "--reason", "x"],
    "coins": [],
    "database_roles": [],
    "decline": ["1", "--reason", "x"],
    "diagnose": ["--coin", "BTC"],
    "export_candles": ["1", "x.csv"],
    "fetch_candles": ["BTC", "--since", "2020-09-20"],
    "import_candles": ["BTC", "x.csv"],
    "import_model": ["x.pt", "--coin", "BTC", "--line", "v5"],
    "inherit": ["1", "--reason", "x"],
    "judge": ["1"],
    "keys": [],
    "lines": [],
    "machines": [],
    "people": [],
    "pin": ["--reason", "x"],
    "policies": [],
    "prepare_storage": [],
    "prune": [],
    "reconcile": ["--once"],
    "register_fallback": ["1", "--reason", "x"],
    "release": ["--line", "v5"],
    "report": ["1"],
    "restore": ["1", "--revision", "1", "--reason", "x"],
    "retire_bot": ["trader", "desk-1", "--reason", "x"],
    "runs": [],
    "simulate_candles": ["--coin", "BTC"],
    "studies": [],
    "train": ["--coin", "BTC"],
    "verify_audit": [],
    "withdraw_dataset": ["1", "--reason", "x"],
    "workers": [],
}
"""Every command of the project with arguments that it accepts."""

RUN_EACH = """
import contextlib, io, json, os, sys
import manage
said = {}
for name, arguments in json.loads(sys.argv[1]).items():
    out = io.StringIO()
    for words in ([*arguments, "--as", "olga"], arguments):
        sys.argv = ["manage.py", name, *words]
        with contextlib.redirect_stderr(out), contextlib.redirect_stdout(out):
            try:
                manage.main()
                end = "done"
            except SystemExit as stopped:
                end = stopped.code
            except BaseException as error:
                end = f"TRACEBACK {type(error).__name__}: {error}"
        if end != 2:
            break
    said[name] = [end, out.getvalue()[-300:]]
os.write(3, json.dumps(said).encode())
"""
ALONE = {"prepare_storage": "done", "database_roles": "SQLite has no roles"}
"""Commands that need no table, and how they end."""


@pytest.mark.slow
@pytest.mark.long
def test_every_command_on_an_empty_state_says_what_to_do(tmp_path: Path) -> None:
    folders = [path for path in REPOSITORY.glob("*/management/commands") if "site-packages" not in str(path)]
    own = {file.stem for folder in folders for file in folder.glob("*.py")} - {"__init__"}
    assert own == set(COMMANDS)
    answers = tmp_path / "answers.json"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CRPBOT_")}
    environment |= {"CRPBOT_STATE_DIR": str(tmp_path / "state"), "DJANGO_SETTINGS_MODULE": "crpbot.settings"}
    with answers.open("wb") as file:
        subprocess.run(
            [
                "bash",
                "-c",
                'exec "$0" "$@" 3>' + f"'{file.name}'",
                sys.executable,
                "-c",
                RUN_EACH,
                json.dumps(COMMANDS),
            ],
            cwd=REPOSITORY,
            env=environment,
            check=True,
            timeout=240,
        )
    said = json.loads(answers.read_text())
    wrong = {
        name: end
        for name, (end, out) in said.items()
        if "manage.py migrate" not in str(end) and ALONE.get(name, "\0") not in f"{end} {out}"
    }
    assert wrong == {}


ASK_EACH = """
import django, json, sys
django.setup()
from django.test import Client
client = Client(raise_request_exception=False, headers={"Host": "localhost"})
answers = {}
for method, path in json.loads(sys.argv[1]):
    data = {"username": "olga", "password": "secret"} if path == "/sign-in/" else None
    client.cookies["sessionid"] = "of an earlier visit"
    answer = getattr(client, method)(path, data, headers={"Authorization": "Bearer crp_x"} if "/api/" in path else {})
    answers[path] = [answer.status_code, answer.getvalue().decode()]
print(json.dumps(answers))
"""


@pytest.mark.slow
def test_pages_and_api_on_an_empty_state_say_what_to_do(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CRPBOT_")}
    environment |= {"CRPBOT_STATE_DIR": str(tmp_path / "state"), "DJANGO_SETTINGS_MODULE": "crpbot.settings"}
    asked = [
        *(("get", path) for path in ("/", "/bots/", "/admin/", "/healthz", "/api/v1/releases/")),
        ("post", "/sign-in/"),
    ]
    done = subprocess.run(
        [sys.executable, "-c", ASK_EACH, json.dumps(asked)],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert {path: status for path, (status, _) in answers.items()} == {path: 503 for _, path in asked}
    assert {path for path, (_, text) in answers.items() if "manage.py migrate" not in text} == set()


@pytest.mark.django_db
@pytest.mark.postgresql
def test_a_missing_table_means_migrate_only_before_the_migrations() -> None:
    with pytest.raises(DatabaseError) as missing, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM nowhere")
    assert not is_not_migrated(missing.value)
    MigrationRecorder.Migration.objects.filter(app="deploy").delete()
    assert is_not_migrated(missing.value)
    assert not is_not_migrated(DatabaseError("the disk is full"))


@pytest.mark.parametrize(
    "command",
    [
        ["manage.py", "people"],
        ["-m", "uvicorn", "crpbot.asgi:application"],
        ["-m", "celery", "-A", "crpbot", "worker"],
    ],
    ids=["a command", "a web process", "a worker"],
)
def test_production_without_a_setting_names_what_is_missing(command: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CRPBOT_")}
    environment |= {
        "CRPBOT_PROFILE": "production",
        "CRPBOT_DATABASE_URL": "postgres://u@h/d",
        "DJANGO_SETTINGS_MODULE": "crpbot.settings",
    }
    found = subprocess.run(
        [sys.executable, *command],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.returncode == 1
    assert found.stderr.startswith("The production profile needs: CRPBOT_")
    assert found.stderr.count("\n") == 1


@pytest.mark.django_db
def test_missing_guards_are_a_warning() -> None:
    assert check_db_guards(databases=["default"]) == []
    triggers.drop()
    try:
        assert [warning.id for warning in check_db_guards(databases=["default"])] == ["crpbot.W001"]
    finally:
        triggers.install()


@pytest.mark.slow
@pytest.mark.long
def test_the_first_migration_warns_of_nothing(tmp_path: Path) -> None:
    """It would say that guards are missing, and to run what is running."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CRPBOT_")}
    environment |= {"CRPBOT_STATE_DIR": str(tmp_path / "state"), "DJANGO_SETTINGS_MODULE": "crpbot.settings"}
    migrate = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
    done = subprocess.run(
        migrate, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
