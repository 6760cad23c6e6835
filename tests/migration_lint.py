"""`python -m tests.migration_lint`: refuse a migration that two versions of the service could not share a database with.

An upgrade runs the migrations first, while the version before still serves (docs/operations/upgrade.md). So a migration may
only expand: nothing that old code uses goes away or is renamed, what old code leaves out of an insert stays allowed, and no
statement holds a lock of PostgreSQL while it reads a whole table. A later version contracts: a migration with `contract` in
its name may drop columns and tables.

django-migration-linter reads the SQL that PostgreSQL would be given. The first migration of an app is left out: it creates.
What a RunPython does is no SQL, and is not read.
"""

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence

import django
from django.apps import apps
from django_migration_linter import MigrationLinter
from django_migration_linter.sql_analyser.analyser import analyse_sql_statements
from django_migration_linter.sql_analyser.base import Check, CheckMode, CheckType, Issue, has_add_unique
from django_migration_linter.sql_analyser.postgresql import PostgresqlAnalyser

from tests.postgres import start

CONTRACT = re.compile(r"^\d+_(\w+_)?contract(_|$)")
CONTRACTING = ("DROP_COLUMN", "DROP_DEFAULT", "DROP_TABLE")
ADVICE = {
    "RENAME_TABLE": "add the new table, copy, and drop the old one in a later version",
    "RENAME_COLUMN": "add the new column, write both, and drop the old one in a later version",
    "DROP_COLUMN": "old code still reads it: leave it, and drop it in a later version, by a migration named contract",
    "DROP_TABLE": "old code still reads it: leave it, and drop it in a later version, by a migration named contract",
    "DROP_DEFAULT": "old code leaves the column to it: keep it, and drop it in a later version, by a migration named"
    " contract",
    "CHANGE_ROWS": "old code reads and writes these rows, which stay locked: change them in small batches, in a RunPython"
    " of a migration with atomic = False",
    "NOT_NULL": "old code leaves it out of its inserts: make it null=True, or give it a db_default",
    "ALTER_COLUMN": "PostgreSQL may rewrite the table, and old code expects the old type: add a new column",
    "ADD_UNIQUE": "old code may still write duplicates, and building the index locks the table",
    "ADD_CONSTRAINT": "it reads the whole table under a lock: AddConstraintNotValid of common.migration_operations, and"
    " ValidateConstraint in a later migration",
    "CREATE_INDEX": "it locks out writers: AddIndexConcurrently of common.migration_operations, with atomic = False",
    "CREATE_INDEX_EXCLUSIVE": "it prolongs another lock: put it into a migration of its own",
    "DROP_INDEX": "it locks out readers: RemoveIndexConcurrently of common.migration_operations, with atomic = False",
    "REINDEX": "it locks out writers: REINDEX CONCURRENTLY",
}


def adds_required_column(statements: Sequence[str], **_: object) -> bool:
    """Whether an insert that leaves out a column, as old code does, would fail."""
    for position, statement in enumerate(statements):
        if re.search(r"ALTER COLUMN \S+ SET NOT NULL", statement):
            return True
        added = re.search(r"ALTER TABLE (\S+) ADD COLUMN (\S+) .*NOT NULL", statement)
        if added is None:
            continue
        loses = re.compile(
            rf"ALTER TABLE {re.escape(added[1])} ALTER COLUMN {re.escape(added[2])} DROP DEFAULT"
        )
        if " DEFAULT " not in statement or any(map(loses.search, statements[position:])):
            return True
    return False


def adds_checked_constraint(statements: Sequence[str], **_: object) -> bool:
    """Whether a table that holds rows is read under a lock."""
    created = {found[1] for each in statements if (found := re.match(r"CREATE TABLE (\S+)", each))}
    added = (re.match(r"ALTER TABLE (\S+) ADD CONSTRAINT \S+ (?!UNIQUE)(.*)", each) for each in statements)
    return any(each[1] not in created and "NOT VALID" not in each[2] for each in added if each)


def adds_unique_column(statements: Sequence[str], **_: object) -> bool:
    """Whether a column of a table that holds rows becomes unique, by itself or by a constraint."""
    created = {found[1] for each in statements if (found := re.match(r"CREATE TABLE (\S+)", each))}
    added = (
        re.match(r"ALTER TABLE (\S+) ADD (?:COLUMN )?(?:.* )?(?:UNIQUE|PRIMARY KEY)\b", each)
        for each in statements
    )
    return has_add_unique(list(statements)) or any(each[1] not in created for each in added if each)


def drops_default(statements: Sequence[str], **_: object) -> bool:
    """Whether a column loses a default that it had before. Those that the migration itself gave do not count."""
    given = set()
    for statement in statements:
        if found := re.match(
            r"ALTER TABLE (\S+) (?:ADD COLUMN (\S+)|ALTER COLUMN (\S+) SET DEFAULT)", statement
        ):
            given.add((found[1], found[2] or found[3]))
        dropped = re.match(r"ALTER TABLE (\S+) ALTER COLUMN (\S+) DROP DEFAULT", statement)
        if dropped and (dropped[1], dropped[2]) not in given:
            return True
    return False


def changes_rows(statement: str, **_: object) -> bool:
    return re.match(r"\s*(WITH .*\b)?(TRUNCATE|DELETE FROM|UPDATE) ", statement, re.IGNORECASE) is not None


class Analyser(PostgresqlAnalyser):
    """The linter's own checks, of which the one for NOT NULL would take one column's default for another's."""

    migration_checks = [
        *PostgresqlAnalyser.migration_checks,
        Check("ADD_UNIQUE", adds_unique_column, "ADDING a unique column", CheckMode.TRANSACTION, CheckType.ERROR),
        Check("DROP_DEFAULT", drops_default, "DROPPING a default", CheckMode.TRANSACTION, CheckType.ERROR),
        Check("CHANGE_ROWS", changes_rows, "CHANGING rows", CheckMode.ONE_LINER, CheckType.ERROR),
        Check("NOT_NULL", adds_required_column, "NOT NULL without a default", CheckMode.TRANSACTION, CheckType.ERROR),
        Check(
            "ADD_CONSTRAINT", adds_checked_constraint, "ADDING a constraint that reads the table",
            CheckMode.TRANSACTION, CheckType.ERROR,
        ),
    ]  # fmt: skip


def find_issues(name: str, statements: Sequence[str]) -> list[Issue]:
    """What is wrong with the migration of this name that runs these statements."""
    allowed = CONTRACTING if CONTRACT.match(name) else ()
    errors, _, warnings = analyse_sql_statements(Analyser, list(statements), allowed)
    return [*errors, *warnings]


def lint() -> Iterator[str]:
    """A line for each issue of the migrations of this repository."""
    linter = MigrationLinter(analyser_string="postgresql", no_output=True, no_cache=True)
    own = {config.label for config in apps.get_app_configs() if "site-packages" not in config.path}
    for (app, name), migration in sorted(linter.migration_loader.disk_migrations.items()):
        is_first = all(other != app for other, _ in migration.dependencies)
        if app in own and not is_first:
            for issue in find_issues(name, linter.get_sql(app, name)):
                yield f"{app}/migrations/{name}.py: {issue.code}: {ADVICE[issue.code]}"


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(CRPBOT_PROFILE="embedded", CRPBOT_STATE_DIR=folder)
        os.environ["CRPBOT_DATABASE_URL"] = start(folder)
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "crpbot.settings")
        django.setup()
        lines = list(lint())
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
