from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate

from audit import triggers
from training.db_guards import GUARDS


def create_first_coins(sender: Any, **kwargs: Any) -> None:
    from training.services.coins import ensure_coins

    ensure_coins()


def create_built_in_lines(sender: Any, **kwargs: Any) -> None:
    from training.services.lines import ensure_lines

    ensure_lines()


class TrainingConfig(AppConfig):
    name = "training"
    verbose_name = "Training"

    def ready(self) -> None:
        triggers.register(GUARDS)
        post_migrate.connect(create_first_coins, sender=self, dispatch_uid="training.create_first_coins")
        post_migrate.connect(
            create_built_in_lines, sender=self, dispatch_uid="training.create_built_in_lines"
        )
