from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connection

from audit import database_roles
from common.commands import GateCommand
from common.errors import Conflict


class Command(GateCommand):
    help = "Create or update the database roles of application and workers, with exactly their grants. Run as the owner."

    def answer(self, **options: Any) -> dict[str, Any]:
        if connection.vendor != "postgresql":
            raise Conflict(
                "SQLite has no roles: a process that may write to the file may change everything in it."
            )
        try:
            return {"roles": database_roles.apply()}
        except (ImproperlyConfigured, DatabaseError) as error:
            raise Conflict(f"The roles were not changed: {error}") from error

    def format_answer(self, answer: dict[str, Any]) -> str:
        return f"Roles with their grants: {', '.join(answer['roles'])}."
