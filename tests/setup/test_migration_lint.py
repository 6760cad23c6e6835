"""`make lint` refuses a migration that the version before could not live with; PostgreSQL's own SQL is what it reads."""

import os
import subprocess
import sys

import pytest

from tests.migration_lint import ADVICE, find_issues
from tests.processes import REPOSITORY

MODELS = """
from django.db import models
class Shelf(models.Model):
    name = models.CharField(max_length=20)
class Box(models.Model):
    name = models.CharField(max_length=20)
    old = models.CharField(max_length=20)
    size = models.IntegerField()
    shelf = models.ForeignKey(Shelf, models.PROTECT, db_index=False)
    class Meta:
        indexes = [models.Index(fields=["size"], name="by_size")]
"""
FIELD = 'migrations.AddField("box", "{0}", {1})'
SQL = 'migrations.RunSQL("{0}", migrations.RunSQL.noop)'
SIZED = 'models.CheckConstraint(condition=models.Q(size__gt=0), name="sized")'
MIGRATIONS: dict[str, tuple[str, set[str]]] = {
    "a_column_that_may_be_null": (FIELD.format("note", "models.TextField(null=True)"), set()),
    "a_column_with_a_default_of_the_database": (FIELD.format("n", "models.IntegerField(db_default=1)"), set()),
    "a_table": (
        'migrations.CreateModel("Crate", [("id", models.AutoField(primary_key=True)), '
        '("n", models.IntegerField(unique=True))], options={"indexes": [models.Index(fields=["n"], name="by_n")]})',
        set(),
    ),
    "an_index_that_locks_nobody_out": (
        'operations.AddIndexConcurrently("box", models.Index(fields=["name"], name="by_name"))',
        set(),
    ),
    "an_index_removed_that_locks_nobody_out": ('operations.RemoveIndexConcurrently("box", "by_name")', set()),
    "a_constraint_that_is_not_checked_yet": (f'operations.AddConstraintNotValid("box", {SIZED})', set()),
    "a_constraint_checked_later": ('operations.ValidateConstraint("box", "sized")', set()),
    "a_column_that_must_be_given": (FIELD.format("m", "models.IntegerField(default=1)"), {"NOT_NULL"}),
    "a_required_column_beside_another_with_a_default": (
        FIELD.format("o", "models.IntegerField(default=1)") + ", " + FIELD.format("p", "models.IntegerField(db_default=1)"),
        {"NOT_NULL"},
    ),
    "a_column_that_must_be_given_now": (
        'migrations.AlterField("box", "note", models.TextField(default=""))',
        {"NOT_NULL", "CHANGE_ROWS"},
    ),
    "a_column_of_another_type": ('migrations.AlterField("box", "size", models.TextField())', {"ALTER_COLUMN"}),
    "a_column_renamed": ('migrations.RenameField("box", "name", "title")', {"RENAME_COLUMN"}),
    "an_index": ('migrations.AddIndex("box", models.Index(fields=["title"], name="by_title"))', {"CREATE_INDEX"}),
    "an_index_removed": ('migrations.RemoveIndex("box", "by_title")', {"DROP_INDEX"}),
    "a_reference_with_its_index": (
        FIELD.format("second", 'models.ForeignKey("widgets.Shelf", models.PROTECT, null=True)'),
        {"CREATE_INDEX", "CREATE_INDEX_EXCLUSIVE"},
    ),
    "a_unique_constraint": (
        'migrations.AddConstraint("box", models.UniqueConstraint(fields=["title"], name="one"))',
        {"ADD_UNIQUE"},
    ),
    "a_unique_column": (FIELD.format("code", "models.IntegerField(null=True, unique=True)"), {"ADD_UNIQUE"}),
    "a_default_dropped": ('migrations.AlterField("box", "n", models.IntegerField())', {"DROP_DEFAULT"}),
    "a_required_column_in_a_second_initial": (FIELD.format("q", "models.IntegerField(default=1)"), {"NOT_NULL"}),
    "rows_changed": (SQL.format("UPDATE widgets_box SET size = 1"), {"CHANGE_ROWS"}),
    "rows_deleted": (SQL.format("DELETE FROM widgets_box"), {"CHANGE_ROWS"}),
    "rows_deleted_that_others_name": (
        SQL.format("WITH old AS (SELECT id FROM widgets_shelf) DELETE FROM widgets_box USING old WHERE shelf_id = old.id"),
        {"CHANGE_ROWS"},
    ),
    "a_table_emptied": (SQL.format("TRUNCATE widgets_box"), {"CHANGE_ROWS"}),
    "a_constraint": (
        'migrations.AddConstraint("box", models.CheckConstraint(condition=models.Q(n__gt=0), name="counted"))',
        {"ADD_CONSTRAINT"},
    ),
    "a_column_dropped": ('migrations.RemoveField("box", "old")', {"DROP_COLUMN"}),
    "contract_a_column_dropped": ('migrations.RemoveField("box", "o")', set()),
    "contract_a_default_dropped": ('migrations.AlterField("box", "p", models.IntegerField())', set()),
    "contract_a_column_renamed": ('migrations.RenameField("box", "title", "name")', {"RENAME_COLUMN"}),
    "a_table_renamed": ('migrations.RenameModel("Crate", "Chest")', {"RENAME_TABLE"}),
    "a_table_dropped": ('migrations.DeleteModel("Chest")', {"DROP_TABLE"}),
    "sql_by_hand": (SQL.format("REINDEX TABLE widgets_box"), {"REINDEX"}),
}  # fmt: skip


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the command says of an app with all these migrations, beside the service's own."""
    folder = tmp_path_factory.mktemp("lint")
    migrations = folder / "widgets" / "migrations"
    migrations.mkdir(parents=True)
    (folder / "widgets" / "__init__.py").touch()
    (folder / "widgets" / "models.py").write_text(MODELS)
    (folder / "its_settings.py").write_text(
        "from crpbot.settings import *\nINSTALLED_APPS = [*INSTALLED_APPS, 'widgets']\n"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": f"{folder}:{REPOSITORY}",
        "DJANGO_SETTINGS_MODULE": "its_settings",
    }
    environment.pop("CRPBOT_TEST_DATABASE", None)
    initial = [sys.executable, "manage.py", "makemigrations", "widgets", "--verbosity", "0"]
    state = {"CRPBOT_STATE_DIR": str(folder / "state")}
    subprocess.run(initial, cwd=REPOSITORY, env=environment | state, check=True)
    before = "0001_initial"
    for number, (name, (operation, _)) in enumerate(MIGRATIONS.items(), 2):
        (migrations / f"{number:04}_{name}.py").write_text(
            "from django.db import migrations, models\nfrom common import migration_operations as operations\n"
            f"class Migration(migrations.Migration):\n    initial = {'initial' in name}\n"
            f"    atomic = {'operations.' not in operation}\n"
            f"    dependencies = [('widgets', '{before}')]\n    operations = [{operation}]\n"
        )
        before = f"{number:04}_{name}"
    command = [sys.executable, "-m", "tests.migration_lint"]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "codes"), [(name, codes) for name, (_, codes) in MIGRATIONS.items()], ids=MIGRATIONS
)
def test_a_migration_that_the_version_before_cannot_live_with_is_refused(
    name: str, codes: set[str], said: list[str]
) -> None:
    about = [line.split(": ") for line in said if line.split(":")[0].partition("_")[2] == f"{name}.py"]
    assert {code for _, code, *_ in about} == codes


@pytest.mark.slow
def test_the_migrations_of_the_service_itself_are_fine(said: list[str]) -> None:
    assert [line for line in said if not line.startswith("widgets/")] == []


def test_every_issue_says_what_to_do_instead() -> None:
    (issue,) = find_issues("0002_one", ['ALTER TABLE "box" DROP COLUMN "old" CASCADE;'])
    assert issue.code in ADVICE
    codes = {code for _, codes in MIGRATIONS.values() for code in codes}
    assert codes == set(ADVICE)
