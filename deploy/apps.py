from django.apps import AppConfig
from django.db import models

from audit import database_roles, triggers
from deploy.pointer.db_guards import GUARDS


def advance_after(obj: models.Model) -> None:
    """A worker in production may decide nothing; reconcile looks again within seconds."""
    from deploy.releases.settle import advance_for

    if database_roles.can_decide():
        advance_for(obj)


class DeployConfig(AppConfig):
    name = "deploy"
    verbose_name = "Releases and the pointer"

    def ready(self) -> None:
        from audit import services as audit

        triggers.register(GUARDS)
        audit.subscribe(advance_after)
