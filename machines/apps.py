from django.apps import AppConfig

from audit import triggers
from machines.db_guards import GUARDS


class MachinesConfig(AppConfig):
    name = "machines"
    verbose_name = "Machines"

    def ready(self) -> None:
        triggers.register(GUARDS)
