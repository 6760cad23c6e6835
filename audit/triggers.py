"""Database guards: triggers that reject forbidden writes from the ORM, the admin, a SQL shell or a race.

A `Guard` is one condition in SQL that both databases understand, compiled for the one at hand. They are installed
after every `migrate`: altering a column on SQLite rebuilds the table and drops its triggers silently.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from django.apps import apps
from django.db import connection, models, transaction

SEARCH_PATH = "pg_catalog, public, pg_temp"
"""Where a guard's function looks for tables on PostgreSQL: without it, a session's own search path would decide."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Guard:
    """Reject `event` on `table` when `condition` (SQL over NEW and OLD) holds, with `message`.

    `vendor` names the only database that needs it; empty means both.
    """

    name: str
    table: str
    event: str
    message: str
    condition: str = ""
    vendor: str = ""

    def build_sqlite(self) -> str:
        when = f" WHEN {self.condition}" if self.condition else ""
        return (
            f"CREATE TRIGGER {self.name} BEFORE {self.event} ON {self.table} FOR EACH ROW{when}"
            f" BEGIN SELECT RAISE(ABORT, '{self.message}'); END"
        )

    def build_postgresql_body(self) -> str:
        refuse = f"RAISE EXCEPTION '{self.message}' USING ERRCODE = 'integrity_constraint_violation';"
        guarded = f"IF {self.condition} THEN {refuse} END IF;" if self.condition else refuse
        returned = {"DELETE": "OLD", "TRUNCATE": "NULL"}.get(self.event, "NEW")
        return f"BEGIN {guarded} RETURN {returned}; END"

    def build_postgresql(self) -> str:
        """The trigger as PostgreSQL itself describes it, with no name qualified by its schema."""
        each = "STATEMENT" if self.event == "TRUNCATE" else "ROW"
        return (
            f"CREATE TRIGGER {self.name} BEFORE {self.event} ON {self.table}"
            f" FOR EACH {each} EXECUTE FUNCTION {self.name}()"
        )

    def build_statements(self) -> list[str]:
        """Create the trigger, in place of one that is there."""
        if connection.vendor == "sqlite":
            return [f"DROP TRIGGER IF EXISTS {self.name}", self.build_sqlite()]
        return [
            f"CREATE OR REPLACE FUNCTION {self.name}() RETURNS trigger LANGUAGE plpgsql"
            f" SET search_path = {SEARCH_PATH} AS $guard${self.build_postgresql_body()}$guard$",
            f"DROP TRIGGER IF EXISTS {self.name} ON {self.table}",
            self.build_postgresql(),
            # Also for a session that replays another server's changes, which leaves out ordinary triggers.
            f"ALTER TABLE {self.table} ENABLE ALWAYS TRIGGER {self.name}",
        ]


_registered: dict[str, Guard] = {}


def register(guards: Iterable[Guard]) -> None:
    """Declare the guards of an app. Called once the app is ready."""
    _registered.update({guard.name: guard for guard in guards})
    kept = {guard.table for guard in guards if guard.event == "DELETE" and not guard.condition}
    for model in apps.get_models(include_auto_created=True):
        if model._meta.db_table in kept:
            _registered.update({guard.name: guard for guard in _build_no_replace(model)})


def list_refused_events(table: str) -> set[str]:
    """The kinds of statement that guards of this table refuse whatever the row."""
    return {guard.event for guard in _registered.values() if guard.table == table and not guard.condition}


def build_append_only(table: str) -> list[Guard]:
    """No row is changed or deleted."""
    message = f"{table} is append-only"
    return [
        Guard(f"{table}_no_update", table, "UPDATE", message),
        Guard(f"{table}_no_delete", table, "DELETE", message),
        Guard(f"{table}_no_truncate", table, "TRUNCATE", message),
    ]


def build_frozen(table: str, *columns: str) -> list[Guard]:
    """These columns and the key never change once written, and the row is never deleted."""
    # With the key free, two rows could exchange their keys, and with that everything that refers to them.
    differs = " OR ".join(f"NEW.{column} IS DISTINCT FROM OLD.{column}" for column in ("id", *columns))
    message = f"{table}: id, {', '.join(columns)} never change"
    return [
        Guard(f"{table}_frozen", table, "UPDATE", message, differs),
        Guard(f"{table}_kept", table, "DELETE", f"{table} rows are kept"),
        Guard(f"{table}_not_truncated", table, "TRUNCATE", f"{table} rows are kept"),
    ]


def build_write_once(table: str, *columns: str) -> list[Guard]:
    """Each of these columns goes from null to a value once."""
    return [
        Guard(
            f"{table}_{column}_once",
            table,
            "UPDATE",
            f"{table}.{column} is written once",
            f"OLD.{column} IS NOT NULL AND NEW.{column} IS DISTINCT FROM OLD.{column}",
        )
        for column in columns
    ]


def _build_no_replace(model: type[models.Model]) -> Iterator[Guard]:
    """SQLite's REPLACE deletes the row that is in the way, by key or by a unique column, without a DELETE trigger."""
    table, key = model._meta.db_table, model._meta.pk.column
    same = " OR ".join(f"({condition})" for condition in _list_unique_conditions(model))
    refuse = f"{table} rows are kept: nothing replaces one"
    clash = f"EXISTS (SELECT 1 FROM {table} other WHERE"
    yield Guard(f"{table}_no_replace", table, "INSERT", refuse, f"{clash} ({same}))", vendor="sqlite")
    differs = f"other.{key} <> OLD.{key} AND ({same})"
    yield Guard(f"{table}_no_update_over", table, "UPDATE", refuse, f"{clash} {differs})", vendor="sqlite")


def _list_unique_conditions(model: type[models.Model]) -> Iterator[str]:
    """For each unique key, the SQL that says whether another row (`other`) and NEW have the same."""
    groups = [[field.attname] for field in model._meta.fields if field.unique]
    groups += [list(names) for names in model._meta.unique_together]
    columns = {name: field.column for field in model._meta.fields for name in (field.name, field.attname)}
    for group in groups:
        yield " AND ".join(f"other.{columns[name]} = NEW.{columns[name]}" for name in group)
    for constraint in model._meta.constraints:
        if not isinstance(constraint, models.UniqueConstraint):
            continue
        same = [f"other.{columns[name]} = NEW.{columns[name]}" for name in constraint.fields]
        if constraint.condition is not None:
            for name, value in constraint.condition.children:  # type: ignore[misc]  # only a = b occurs here
                is_null = value is None
                same += [
                    f"{row}.{columns[str(name)]} IS NULL"
                    if is_null
                    else f"{row}.{columns[str(name)]} = '{value}'"
                    for row in ("other", "NEW")
                ]
        yield " AND ".join(same)


def install() -> None:
    """Install every registered guard whose table exists, and remove other triggers from these tables; safe to repeat."""
    tables = set(connection.introspection.table_names())
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL search_path = public")
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # a table with a pending check cannot be altered
        for name, table in _list_foreign():
            logger.warning("the trigger %s on %s is no guard of this code, and is removed", name, table)
            target = "" if connection.vendor == "sqlite" else f' ON "{table}"'
            cursor.execute(f'DROP TRIGGER "{name}"{target}')
        for guard in _list_applicable():
            for statement in guard.build_statements() if guard.table in tables else ():
                cursor.execute(statement)
        if connection.vendor == "postgresql":
            cursor.execute("SET CONSTRAINTS ALL DEFERRED")


def drop() -> None:
    """Remove every guard: only before a migration, and for a test database that is about to be emptied."""
    with transaction.atomic(), connection.cursor() as cursor:
        for guard in _list_applicable():
            target = "" if connection.vendor == "sqlite" else f" ON {guard.table}"
            cursor.execute(f"DROP TRIGGER IF EXISTS {guard.name}{target}")


def find_missing() -> list[str]:
    """Names of guards that are not installed, disabled, or not as this code declares them, and of what was put in their way.

    In the way of a guard are triggers of others on its table, which can change a row after the guard has seen it, and on
    PostgreSQL rewrite rules and row security, which can hide rows from it.
    """
    expected: set[tuple[str, ...]]
    if connection.vendor == "sqlite":
        expected = {(guard.name, guard.build_sqlite()) for guard in _list_applicable()}
    else:
        path = f"search_path={SEARCH_PATH}"
        expected = {
            (guard.name, guard.build_postgresql(), guard.build_postgresql_body(), path)
            for guard in _list_applicable()
        }
    installed, in_the_way = _read_installed()
    return sorted({name for name, *_ in expected ^ installed} | set(in_the_way))


def _list_foreign() -> list[tuple[str, str]]:
    """Triggers on guarded tables that are no guards, with their tables."""
    tables = sorted({guard.table for guard in _list_applicable()})
    marks = ", ".join(["%s"] * len(tables))
    if connection.vendor == "sqlite":
        query = f"SELECT name, tbl_name FROM sqlite_master WHERE type = 'trigger' AND tbl_name IN ({marks})"
    else:
        query = (
            "SELECT t.tgname, c.relname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"
            f" WHERE NOT t.tgisinternal AND c.relnamespace = 'public'::regnamespace AND c.relname IN ({marks})"
        )
    known = {guard.name for guard in _list_applicable()}
    with connection.cursor() as cursor:
        cursor.execute(query, tables)
        return [(name, table) for name, table in cursor.fetchall() if name not in known]


def _read_installed() -> tuple[set[tuple[str, ...]], list[str]]:
    """The triggers on guarded tables, each as `find_missing` expects it, and the names of what is in their way."""
    tables = sorted({guard.table for guard in _list_applicable()})
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            marks = ", ".join(["%s"] * len(tables))
            query = f"SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name IN ({marks})"
            cursor.execute(query, tables)
            return set(cursor.fetchall()), []
        cursor.execute(
            "SELECT t.tgname, replace(pg_get_triggerdef(t.oid), 'public.', ''), p.prosrc,"
            " array_to_string(p.proconfig, '; '), t.tgenabled = 'A' AND p.pronamespace = 'public'::regnamespace"
            " AND p.prolang = (SELECT oid FROM pg_language WHERE lanname = 'plpgsql')"
            " FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_class c ON c.oid = t.tgrelid"
            " WHERE NOT t.tgisinternal AND c.relnamespace = 'public'::regnamespace AND c.relname = ANY(%s)",
            [tables],
        )
        installed = {
            tuple(texts) if is_enabled else (texts[0], "not enabled")
            for *texts, is_enabled in cursor.fetchall()
        }
        cursor.execute(
            "SELECT 'row security of ' || relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            " AND relname = ANY(%s) AND relrowsecurity UNION ALL SELECT 'rule ' || rulename FROM pg_rules"
            " WHERE schemaname = 'public' AND tablename = ANY(%s)",
            [tables, tables],
        )
        return installed, [name for (name,) in cursor.fetchall()]


def _list_applicable() -> list[Guard]:
    is_sqlite = connection.vendor == "sqlite"
    return [
        guard
        for guard in _registered.values()
        if guard.vendor in ("", connection.vendor) and not (is_sqlite and guard.event == "TRUNCATE")
    ]
