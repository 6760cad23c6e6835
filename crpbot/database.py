"""Connections to PostgreSQL whose every answer has a deadline."""

from typing import Any

from django.conf import settings
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
