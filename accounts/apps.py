from django.apps import AppConfig

from audit import triggers

# Events and releases name people: who renames themselves, or takes the name of a deleted account, would be two people.
GUARDS = triggers.build_frozen("accounts_user", "username")


class AccountsConfig(AppConfig):
    name = "accounts"
    verbose_name = "People and tokens"

    def ready(self) -> None:
        from accounts.identity import events

        triggers.register(GUARDS)
        events.connect()
