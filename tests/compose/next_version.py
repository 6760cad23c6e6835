"""The next version of the service and its client, as an upgrade meets it: a copy of this tree with a few changes.

One expand migration on tables that every version writes to, and a protocol that adds to heartbeat and snapshot.
"""

import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.compose.engine import REPOSITORY, run
from tests.compose.errors import TrialFailed

VERSION = "0.2.0"
MIGRATED = ("deploy", "training")


class Edit(NamedTuple):
    """`old` occurs once in the file."""

    file: str
    old: str
    new: str


EDITS = (
    # Columns that old processes leave out of their inserts, on the tables of heartbeats and of the workers' jobs.
    Edit(
        "deploy/models/bot.py",
        "    first_heard_at = models.DateTimeField()\n",
        "    first_heard_at = models.DateTimeField()\n    added = models.CharField(max_length=100, null=True)\n",
    ),
    Edit(
        "training/models.py",
        "\nclass TrainingRun(Job):\n",
        "\nclass TrainingRun(Job):\n    added = models.CharField(max_length=100, null=True)\n",
    ),
    Edit(
        "training/models.py",
        "\nclass Epoch(models.Model):\n",
        "\nclass Epoch(models.Model):\n    added = models.CharField(max_length=100, null=True)\n",
    ),
    Edit("deploy/serving/protocol.py", "\nVERSION = 2\n", "\nVERSION = 3\n"),
    Edit(
        "deploy/serving/snapshot.py",
        '        "revision": move.revision,\n',
        '        "revision": move.revision,\n        "added": "by the next version",\n',
    ),
    Edit(
        "deploy/bots/heartbeat_checks.py",
        "    is_stopping: bool = False\n",
        '    is_stopping: bool = False\n    added: str = ""\n',
    ),
    Edit(
        "deploy/api/bots.py",
        "        is_stopping = api_fields.Boolean(\n",
        '        added = api_fields.Text(max_length=100, default="")\n        is_stopping = api_fields.Boolean(\n',
    ),
    Edit("crpbot_runtime/version.py", "\nPROTOCOL = 2\n", "\nPROTOCOL = 3\n"),
    Edit("crpbot_runtime/version.py", 'VERSION = "0.1.0"', f'VERSION = "{VERSION}"'),
    Edit(
        "crpbot_runtime/updater.py",
        '    return {"protocol": {',
        '    added = {"added": "by the next version"} if snapshot.protocol >= 3 else {}\n    return added | {"protocol": {',
    ),
)


def write(tree: Path) -> None:
    """The next version's files in this folder."""
    if tree.exists():
        shutil.rmtree(tree)
    tree.mkdir(parents=True)
    copied = re.findall(r"^!(.+)$", (REPOSITORY / ".dockerignore").read_text(), re.MULTILINE)
    for name in (*copied, "distribution", "Dockerfile", ".dockerignore"):
        source, target = REPOSITORY / name, tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    for edit in EDITS:
        _apply(edit, tree)
    with tempfile.TemporaryDirectory() as state:
        command = [sys.executable, "manage.py", "makemigrations", *MIGRATED, "--name", "added"]
        own = {"CRPBOT_STATE_DIR": state, "DJANGO_SETTINGS_MODULE": "crpbot.settings"}
        run(command, own, folder=tree)


def _apply(edit: Edit, tree: Path) -> None:
    file = tree / edit.file
    text = file.read_text()
    if text.count(edit.old) != 1:
        raise TrialFailed(f"{edit.file} does not have once: {edit.old.strip()}")
    file.write_text(text.replace(edit.old, edit.new))
