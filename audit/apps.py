from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate

from audit import triggers
from audit.db_guards import GUARDS


def install_triggers(sender: Any, **kwargs: Any) -> None:
    triggers.install()


class AuditConfig(AppConfig):
    name = "audit"
    verbose_name = "Audit history"

    def ready(self) -> None:
        triggers.register(GUARDS)
        post_migrate.connect(install_triggers, sender=self, dispatch_uid="audit.install_triggers")
