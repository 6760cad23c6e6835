import logging

from django.apps import AppConfig
from django.conf import settings
from django.contrib.admin import apps as admin_apps
from django.db.backends.signals import connection_created


class GateAdminConfig(admin_apps.AdminConfig):
    default_site = "crpbot.admin_site.GateAdminSite"


class CrpbotConfig(AppConfig):
    name = "crpbot"

    def ready(self) -> None:
        from common import metrics
        from crpbot import checks  # noqa: F401 - importing registers them

        connection_created.connect(metrics.time_queries)
        logging.captureWarnings(settings.LOG_FORMAT == "json")
