from typing import Any

from django.apps import AppConfig
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.db.models.signals import post_migrate, pre_migrate

from audit import database_roles, triggers
from audit.db_guards import GUARDS


def make_room_for_migrations(sender: Any, *, plan: list[Any], **kwargs: Any) -> None:
    """SQLite rebuilds a table to change it, and refuses that while a guard of another table reads it.

    No pointer moves while a guard is missing, and the next migration installs them if this one does not end.
    """
    if connection.vendor == "sqlite" and plan:
        triggers.drop()


def protect_database(sender: Any, **kwargs: Any) -> None:
    """After the last migration: guards on every table, then the grants of each role. Raises where a guard is missing."""
    triggers.install()
    if missing := triggers.find_missing():
        raise ImproperlyConfigured(f"Database guards are not as declared: {', '.join(missing)}.")
    if database_roles.is_configured():
        database_roles.apply()


class AuditConfig(AppConfig):
    name = "audit"
    verbose_name = "Audit history"

    def ready(self) -> None:
        triggers.register(GUARDS)
        pre_migrate.connect(
            make_room_for_migrations, sender=self, dispatch_uid="audit.make_room_for_migrations"
        )
        post_migrate.connect(protect_database, sender=self, dispatch_uid="audit.protect_database")
