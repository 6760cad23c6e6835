"""docs/operations/first-monday.md and disaster.md: each of their commands is run, in the order of the page."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as active_settings
from django.core.files.storage import default_storage
from django.core.management import call_command

from accounts.models import ApiToken, User
from audit import services as audit
from audit import triggers
from crpbot.backup import journal
from deploy.models import BackupTask, PointerMove, SigningKey
from deploy.pointer import pointer
from deploy.rules import KeyState, MoveKind
from deploy.serving import signing
from tests import factories
from tests.operations.shell import Shell, list_commands
from tests.processes import REPOSITORY
from training import artifact_store
from training.models import Artifact

pytestmark = [pytest.mark.slow, pytest.mark.processes, pytest.mark.usefixtures("committed", "folders")]
PAGES = REPOSITORY / "docs" / "operations"


@pytest.fixture(autouse=True)
def every_day(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.BACKUP_HOURS = 24
    monkeypatch.setattr(journal, "_looked_at", 0)
    monkeypatch.setattr(journal, "_paused_until", 0.0)


def run_page(name: str, shell: Shell, before: dict[str, Callable[[], object]]) -> list[tuple[str, str]]:
    """Run every command of the page; `before` has what happens before a command with these words. What each answered."""
    answers = []
    steps = dict(before)
    for command in list_commands(PAGES / name):
        for words in [words for words in steps if words in command]:
            steps.pop(words)()
        status, said = shell.run(command)
        assert status == 0 or " active" in command, f"{command}: {said}"
        assert "Traceback" not in said
        answers.append((command, said))
    assert not steps, f"no command of {name} has these words"
    return answers


@pytest.mark.long
def test_the_first_monday(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / ".env.example", tmp_path / ".env.example")
    shell = Shell(tmp_path, actor="anna")

    def read_key() -> None:
        shell.known["4f2c"] = SigningKey.objects.latest("pk").key_id

    answers = run_page("first-monday.md", shell, {"keys activate": read_key})
    said = dict(answers)
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    secrets = [answer.strip() for command, answer in answers if command.startswith("python3")]
    assert len(secrets) == 2
    assert all(len(secret) >= 40 for secret in secrets)
    assert re.fullmatch("[0-9a-f]+", secrets[1]), "letters and digits, as it is part of an address"
    assert {user.username for user in User.objects.all()} == {"ada", "olivia", "anna", "arthur", "bot"}
    assert SigningKey.objects.get(state=KeyState.ACTIVE).public_hex in "".join(said.values())
    assert {(task.kind, task.state) for task in BackupTask.objects.all()} == {
        ("backup", "done"),
        ("drill", "done"),
    }
    assert audit.verify() == []


@pytest.mark.long
def test_disaster(service: PointerMove, tmp_path: Path) -> None:
    """A service in use loses files, its database, its keys and its backups, one after the other."""
    shell = Shell(tmp_path, actor="anna")
    olivia = factories.person("olivia", "operator")
    shell.run("docker compose run --rm reconcile python manage.py backup create")
    lost = {}

    def close() -> None:
        shell.known["12"] = str(ApiToken.objects.get(user__username="desk").pk)

    def lose_files() -> None:
        lost["artifact"] = Artifact.objects.filter(name="model.onnx")[0]
        Path(default_storage.path(artifact_store.key(lost["artifact"].sha256))).write_bytes(b"other bytes")

    def lose_the_database() -> None:
        assert artifact_store.is_intact(lost["artifact"].sha256, lost["artifact"].size)
        signing.get_envelope()
        journal.write()
        triggers.drop()
        call_command("flush", interactive=False, verbosity=0)
        shutil.rmtree(default_storage.path(""))
        shell.known["4"] = ""

    def count_missing() -> None:
        assert not User.objects.get(username="olivia").is_active, "closed since the backup"
        move = pointer.get_current()
        assert move is not None
        assert move.kind == MoveKind.PIN
        shell.known["4"] = str(signing.count_missing_revisions(signing.read_highest()))

    def lose_the_keys() -> None:
        assert signing.find_problem() is None
        shutil.rmtree(active_settings.SIGNING_KEYS_DIR)
        Path(active_settings.SIGNING_KEYS_DIR).mkdir()

    def read_key() -> None:
        shell.known["4f2c"] = SigningKey.objects.latest("pk").key_id

    def lose_the_backups() -> None:
        assert shell.run("manage.py keys export")[0] == 0
        shutil.rmtree(active_settings.BACKUP_DIR)

    exports = [command for command in list_commands(PAGES / "disaster.md") if "keys export" in command]
    assert len(exports) == 1
    before: dict[str, Callable[[], object]] = {
        "people --revoke": close,
        "backup files": lose_files,
        "stop web": lose_the_database,
        "advance_revision": count_missing,
        "keys create": lose_the_keys,
        "keys activate": read_key,
        "keys export": lose_the_backups,
    }
    answers = run_page("disaster.md", shell, before)
    assert any("1 file(s) were missing or damaged" in said for _, said in answers)
    restored = next(said for command, said in answers if "backup restore" in command)
    assert f"account {olivia.username} closed" in restored
    assert "the pointer leaves it" in restored
    assert PointerMove.objects.latest("revision").is_advance
    assert BackupTask.objects.filter(kind="drill", state="done").exists()
    assert audit.verify() == []
