"""What a failure of the database means to a person: the same sentence by page, API and command."""

from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor

NOT_MIGRATED = (
    "The database is empty or of an older version: run `manage.py migrate`, or `make demo` for an example."
)
_MISSING_IN_SQLITE = ("no such table", "no such column")
_MISSING_IN_POSTGRESQL = ("42P01", "42703")
"""SQLSTATE of an undefined table or column."""
_FULL_DISK = ("disk I/O error", "database or disk is full")
"""What SQLite says where its files cannot grow. Then it cannot even be read, for want of room beside it."""


def explain_failure(error: DatabaseError) -> str:
    """A sentence for a person: the database cannot be reached or written, has not been migrated, or failed otherwise."""
    if connection.vendor == "sqlite" and str(error).startswith(_FULL_DISK):
        return (
            f"The database cannot be written ({_shorten(error)}): its disk is full or broken. Make room beside"
            f" {connection.settings_dict['NAME']}, and ask again."
        )
    try:
        is_behind = _is_behind()
    except DatabaseError:
        return f"The database cannot be reached ({_shorten(error)}). Start it, or check CRPBOT_DATABASE_URL."
    return (
        NOT_MIGRATED
        if is_behind
        else f"The database failed: {_shorten(error)}. Add --traceback to see where."
    )


def is_not_migrated(error: BaseException | None) -> bool:
    """Whether a table or column was missing because migrations have not run. Any other error costs no query."""
    if not isinstance(error, DatabaseError):
        return False
    sqlstate = getattr(error.__cause__, "sqlstate", None)
    if sqlstate not in _MISSING_IN_POSTGRESQL and not str(error).startswith(_MISSING_IN_SQLITE):
        return False
    try:
        return _is_behind()
    except DatabaseError:
        return False


def _is_behind() -> bool:
    executor = MigrationExecutor(connection)
    return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def _shorten(error: DatabaseError) -> str:
    return " ".join(str(error).split())[:200]
