"""Database guards: triggers that reject forbidden writes from the ORM, the admin, a SQL shell or a race.

A `Guard` is one condition in SQL that both databases understand, compiled for the one at hand. They are installed
after every `migrate`: altering a column on SQLite rebuilds the table and drops its triggers silently.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from django.db import connection, transaction


@dataclass(frozen=True)
class Guard:
    """Reject `event` on `table` when `condition` (SQL over NEW and OLD) holds, with `message`."""

    name: str
    table: str
    event: str
    message: str
    condition: str = ""

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

    def build_postgresql_row(self) -> tuple[str, str, int, str]:
        """The guard as in PostgreSQL's catalogue: name, table, type (tgtype: before, for each row, its event) and body."""
        event = {"INSERT": 4, "DELETE": 8, "UPDATE": 16, "TRUNCATE": 32}[self.event]
        row = 0 if self.event == "TRUNCATE" else 1
        return self.name, self.table, row | 2 | event, self.build_postgresql_body()

    def build_statements(self) -> list[str]:
        """Create the trigger, in place of one that is there."""
        drop = f"DROP TRIGGER IF EXISTS {self.name}"
        if connection.vendor == "sqlite":
            return [drop, self.build_sqlite()]
        each = "STATEMENT" if self.event == "TRUNCATE" else "ROW"
        return [
            f"CREATE OR REPLACE FUNCTION {self.name}() RETURNS trigger LANGUAGE plpgsql"
            f" AS $guard${self.build_postgresql_body()}$guard$",
            f"{drop} ON {self.table}",
            f"CREATE TRIGGER {self.name} BEFORE {self.event} ON {self.table}"
            f" FOR EACH {each} EXECUTE FUNCTION {self.name}()",
        ]


_registered: dict[str, Guard] = {}


def register(guards: Iterable[Guard]) -> None:
    """Declare the guards of an app. Called once the app is ready."""
    _registered.update({guard.name: guard for guard in guards})


def build_append_only(table: str, key: str = "id") -> list[Guard]:
    """No row is changed or deleted. The INSERT guard stops SQLite's REPLACE, which deletes without a DELETE trigger."""
    message = f"{table} is append-only"
    return [
        Guard(f"{table}_no_update", table, "UPDATE", message),
        Guard(f"{table}_no_delete", table, "DELETE", message),
        Guard(f"{table}_no_truncate", table, "TRUNCATE", message),
        Guard(
            f"{table}_no_replace",
            table,
            "INSERT",
            message,
            f"EXISTS (SELECT 1 FROM {table} WHERE {key} = NEW.{key})",
        ),
    ]


def build_frozen(table: str, *columns: str) -> list[Guard]:
    """These columns never change once written, and the row is never deleted."""
    differs = " OR ".join(f"NEW.{column} IS DISTINCT FROM OLD.{column}" for column in columns)
    message = f"{table}: {', '.join(columns)} never change"
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


def install() -> None:
    """Install every registered guard whose table exists; safe to repeat."""
    tables = set(connection.introspection.table_names())
    with transaction.atomic(), connection.cursor() as cursor:
        for guard in _list_applicable():
            for statement in guard.build_statements() if guard.table in tables else ():
                cursor.execute(statement)


def drop() -> None:
    """Remove every guard: only for a test database that is about to be emptied."""
    with transaction.atomic(), connection.cursor() as cursor:
        for guard in _list_applicable():
            target = "" if connection.vendor == "sqlite" else f" ON {guard.table}"
            cursor.execute(f"DROP TRIGGER IF EXISTS {guard.name}{target}")


def find_missing() -> list[str]:
    """Names of guards that are not installed, disabled, or not as this code declares them."""
    expected: list[tuple[object, ...]]
    if connection.vendor == "sqlite":
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
        expected = [(guard.name, guard.build_sqlite()) for guard in _list_applicable()]
    else:
        query = _POSTGRESQL_TRIGGERS
        expected = [*(guard.build_postgresql_row() for guard in _list_applicable())]
    with connection.cursor() as cursor:
        cursor.execute(query)
        installed = set(cursor.fetchall())
    return sorted(str(row[0]) for row in expected if row not in installed)


_POSTGRESQL_TRIGGERS = """SELECT t.tgname, c.relname, t.tgtype::int, p.prosrc
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_language l ON l.oid = p.prolang
WHERE NOT t.tgisinternal AND t.tgenabled IN ('O', 'A') AND t.tgqual IS NULL AND t.tgattr::text = ''
AND l.lanname = 'plpgsql' AND p.proconfig IS NULL AND pg_table_is_visible(c.oid)"""
"""With its table and event: a trigger of the right name on another table, or with a condition of its own, guards nothing."""


def _list_applicable() -> list[Guard]:
    is_sqlite = connection.vendor == "sqlite"
    return [guard for guard in _registered.values() if not (is_sqlite and guard.event == "TRUNCATE")]
