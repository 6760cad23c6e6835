"""What a failure of the database means to the person who ran a command."""

from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor


def explain_failure(error: DatabaseError) -> str:
    """A sentence for a person: the database cannot be reached, has not been migrated, or failed otherwise."""
    try:
        executor = MigrationExecutor(connection)
        is_behind = bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))
    except DatabaseError:
        return f"The database cannot be reached ({_shorten(error)}). Start it, or check CRPBOT_DATABASE_URL."
    if is_behind:
        return "The database is empty or of an older version: run `manage.py migrate`, or `make demo` for an example."
    return f"The database failed: {_shorten(error)}. Add --traceback to see where."


def _shorten(error: DatabaseError) -> str:
    return " ".join(str(error).split())[:200]
