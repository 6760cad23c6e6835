"""What changes about sessions and second factors, as events of the audit chain."""

from typing import Any

from allauth.account.internal.flows.login import record_authentication
from allauth.mfa.models import Authenticator
from allauth.mfa.signals import authenticator_added, authenticator_removed, authenticator_reset
from django.contrib.auth.signals import user_logged_in
from django.db.models.signals import post_save
from django.http import HttpRequest

from accounts.identity import factors, sessions
from accounts.models import User
from audit import services as audit


def connect() -> None:
    """Called once, when the apps are ready."""
    user_logged_in.connect(_begin_session)
    post_save.connect(_record_added, sender=Authenticator)
    authenticator_added.connect(_count_as_given)
    authenticator_removed.connect(_record_removed)
    authenticator_reset.connect(_record_renewed)


def _begin_session(request: HttpRequest, **more: Any) -> None:
    sessions.begin(request)


def _record_added(instance: Authenticator, created: bool, raw: bool = False, **more: Any) -> None:
    """In the transaction that adds it; not when a backup is restored."""
    if created and not raw:
        user = instance.user
        audit.record("user.factor_added", user, actor=user.username, detail={"type": instance.type})


def _count_as_given(request: HttpRequest, user: User, authenticator: Authenticator, **more: Any) -> None:
    """Setting up a factor proves it, so it counts as given, and its code as used."""
    if authenticator.type == Authenticator.Type.TOTP:
        factors.use_up_current_code(authenticator)
    if authenticator.type != Authenticator.Type.RECOVERY_CODES:
        record_authentication(
            request, user, "mfa", id=authenticator.pk, type=authenticator.type, reauthenticated=True
        )


def _record_removed(user: User, authenticator: Authenticator, **more: Any) -> None:
    audit.record("user.factor_removed", user, actor=user.username, detail={"type": authenticator.type})


def _record_renewed(user: User, authenticator: Authenticator, **more: Any) -> None:
    audit.record("user.recovery_codes_renewed", user, actor=user.username)
