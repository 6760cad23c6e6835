"""Second factors: an authenticator app (TOTP), security keys (WebAuthn) and recovery codes, kept by django-allauth.

A code is checked here only, whether it comes from a page, with a token or to a command: each counts once, and wrong ones
are counted in the database, so that neither depends on the process that answers.
"""

import time
from datetime import UTC, datetime, timedelta

from allauth.account.internal.flows.login import get_authentication_records
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value
from allauth.mfa.utils import decrypt
from django.conf import settings
from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from rest_framework.request import Request

from accounts.identity import sessions
from accounts.models import FailedCode, User
from audit import services as audit
from common.errors import NotAllowed

MOST_FAILURES = 20
FAILURES_COUNT = timedelta(hours=1)
COUNTER = "last_counter"
"""In the data of an authenticator app: the number of the half minute of its last used code."""


class WrongCode(NotAllowed):
    """The code is wrong, was used before, or too many were wrong."""

    title = "Wrong code"


def has_factor(user: User) -> bool:
    """Whether this person has set up an authenticator app or a security key."""
    kinds = (Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN)
    return bool(Authenticator.objects.filter(user_id=user.pk, type__in=kinds).exists())


def find_time(request: HttpRequest | Request, user: User) -> datetime | None:
    """When this person last gave a second factor in the session of the request; None where they did not."""
    records = get_authentication_records(request, user)
    times = [float(record["at"]) for record in records if record.get("method") == "mfa"]
    return datetime.fromtimestamp(max(times), UTC) if times else None


def use_code(user: User, code: str) -> Authenticator:
    """The factor of this person that the code belongs to; the code is used up by this. Raises WrongCode."""
    with transaction.atomic():
        User.objects.select_for_update().get(pk=user.pk)  # one code of a person at a time
        now = timezone.now()
        wrong = FailedCode.objects.filter(user=user, at__gt=now - FAILURES_COUNT).count()
        if wrong >= MOST_FAILURES:
            raise WrongCode(
                f"There were {wrong} wrong codes for {user.username} within the last hour. Try again in an hour, or use a"
                " security key."
            )
        codes = Authenticator.objects.filter(user_id=user.pk).exclude(type=Authenticator.Type.WEBAUTHN)
        for factor in codes.order_by("-type"):  # the app before recovery codes
            if _accept(factor, code.replace(" ", "")):
                factor.record_usage()
                return factor
        FailedCode.objects.filter(at__lt=now - FAILURES_COUNT).delete()
        FailedCode.objects.create(user=user, at=now)
    raise WrongCode(
        "The code is wrong or was used already. Wait for the next one of your authenticator app, or use a recovery code."
    )


def remove_all(user: User, *, actor: object) -> None:
    """Remove all second factors of a person who lost them, and end their sessions. Repeating it changes nothing."""
    with audit.locked():
        removed, _ = Authenticator.objects.filter(user_id=user.pk).delete()
        sessions.end_all(user)
        if removed:
            audit.record("user.factors_removed", user, actor=actor)


def use_up_current_code(factor: Authenticator) -> None:
    """Let no code of an app count that was valid until now: the one that activated it was seen."""
    factor.data[COUNTER] = _get_counter()
    factor.save(update_fields=["data"])


def _accept(factor: Authenticator, code: str) -> bool:
    if factor.type == Authenticator.Type.RECOVERY_CODES:
        return bool(factor.wrap().validate_code(code))
    secret, used = decrypt(factor.data["secret"]), factor.data.get(COUNTER, -1)
    for counter in range(
        _get_counter() - settings.MFA_TOTP_TOLERANCE, _get_counter() + settings.MFA_TOTP_TOLERANCE + 1
    ):
        is_right = constant_time_compare(format_hotp_value(hotp_value(secret, counter)), code)
        if is_right and counter > used:
            factor.data[COUNTER] = counter
            factor.save(update_fields=["data"])
            return True
    return False


def _get_counter() -> int:
    return int(time.time()) // settings.MFA_TOTP_PERIOD
