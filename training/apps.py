from django.apps import AppConfig

from audit import triggers
from training.refusals import REFUSALS


class TrainingConfig(AppConfig):
    name = "training"
    verbose_name = "Training"

    def ready(self) -> None:
        triggers.register(REFUSALS)
