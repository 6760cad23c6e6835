"""Connections to PostgreSQL whose every answer has a deadline, and what a failure of the database means."""

from typing import Any

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from psycopg import Connection, errors


class BoundedConnection(Connection[Any]):
    """Waits at most DATABASE_ANSWER_SECONDS for the server, then closes itself.

    PostgreSQL's own timeouts are kept by the server, so they say nothing while the server itself is frozen.
    """

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Raises OperationalError when the server does not answer in time."""
        try:
            return super().wait(
                gen, interval, settings.DATABASE_ANSWER_SECONDS if timeout is None else timeout
            )
        except errors._WaitTimeout:
            # A late answer must not be taken for the answer to another query.
            self.pgconn.finish()
            raise


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
