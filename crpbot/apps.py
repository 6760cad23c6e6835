from django.apps import AppConfig
from django.contrib.admin import apps as admin_apps


class GateAdminConfig(admin_apps.AdminConfig):
    default_site = "crpbot.admin_site.GateAdminSite"


class CrpbotConfig(AppConfig):
    name = "crpbot"

    def ready(self) -> None:
        from crpbot import checks  # noqa: F401 - importing registers them
