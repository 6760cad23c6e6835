from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate

from audit import triggers
from gates.db_guards import GUARDS


def adopt_own_policies(sender: Any, **kwargs: Any) -> None:
    from gates.services.policies import ensure_own_policies

    ensure_own_policies()


class GatesConfig(AppConfig):
    name = "gates"
    verbose_name = "Gates"

    def ready(self) -> None:
        triggers.register(GUARDS)
        post_migrate.connect(adopt_own_policies, sender=self, dispatch_uid="gates.adopt_own_policies")
