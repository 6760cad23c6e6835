from typing import Any

from django.apps import AppConfig
from django.db import connection, models
from django.db.models.signals import post_migrate

from audit import database_roles, triggers
from deploy.pointer.db_guards import GUARDS


def advance_after(obj: models.Model) -> None:
    """A worker in production may decide nothing; reconcile looks again within seconds."""
    from deploy.releases.settle import advance_for

    if database_roles.can_decide():
        advance_for(obj)


def leave_room_for_heartbeats(**kwargs: Any) -> None:
    """PostgreSQL updates a row within its page, without touching an index, if the page has room."""
    if connection.vendor == "postgresql" and "deploy_bot" in connection.introspection.table_names():
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE deploy_bot SET (fillfactor = 50)")
            cursor.execute("ALTER TABLE deploy_livetotal SET (fillfactor = 50)")


class DeployConfig(AppConfig):
    name = "deploy"
    verbose_name = "Releases and the pointer"

    def ready(self) -> None:
        from audit import heads
        from audit import services as audit
        from deploy.models import ServiceIdentity
        from deploy.replay import Replay

        heads.name_service_by(ServiceIdentity.get_name)
        audit.compare_with(Replay)
        triggers.register(GUARDS)
        post_migrate.connect(leave_room_for_heartbeats, sender=self)
        audit.subscribe(advance_after)
