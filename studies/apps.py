from django.apps import AppConfig
from django.db import models

from audit import database_roles, triggers
from studies.db_guards import GUARDS


def advance_after(obj: models.Model) -> None:
    """A worker in production may launch nothing; reconcile looks again within seconds."""
    from studies.services.advance import advance_for

    if database_roles.can_decide():
        advance_for(obj)


class StudiesConfig(AppConfig):
    name = "studies"
    verbose_name = "Studies"

    def ready(self) -> None:
        from audit import services as audit
        from studies.services.trials import TrialObserver
        from training.jobs import observers

        triggers.register(GUARDS)
        audit.subscribe(advance_after)
        observers.register(TrialObserver())
