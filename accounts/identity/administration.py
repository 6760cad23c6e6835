"""Who changes people, roles and tokens from a shell.

In production it takes an administrator: with a token in CRPBOT_TOKEN, or with name, password and code at a terminal. The
first administrator is created without one, which works only while there is none.
"""

import getpass
import os
import sys

from django.conf import settings
from django.contrib.auth import authenticate
from django.http import HttpRequest
from django.utils import timezone

from accounts import services
from accounts.commands import FACTOR_VARIABLE, TOKEN_VARIABLE, find_token_actor
from accounts.decisions import require_role, require_second_factor
from accounts.identity import factors
from accounts.models import User
from accounts.roles import Actor, Role
from audit import services as audit
from common.errors import NotAllowed

COMMAND_LINE = "the command line"
PURPOSE = "change people, roles or tokens"


def authorise(*, adds_first_administrator: bool) -> object:
    """The author of a change; in production an administrator, who is authenticated here. Raises NotAllowed."""
    if settings.IS_EMBEDDED:
        return COMMAND_LINE
    if adds_first_administrator and not services.has_administrator():
        return COMMAND_LINE
    if not services.has_administrator():
        raise NotAllowed(
            "There is no administrator yet. Create the first one: manage.py people --add NAME --role administrator"
        )
    actor = find_token_actor() if os.environ.get(TOKEN_VARIABLE) else _ask()
    with audit.record_refusals("people.change", User(), actor=actor):
        require_role(actor, Role.ADMINISTRATOR, PURPOSE)
        require_second_factor(actor, PURPOSE)
    return actor


def _ask() -> Actor:
    if not sys.stdin.isatty():
        raise NotAllowed(
            f"This takes an administrator. Run it at a terminal, or set {TOKEN_VARIABLE} to an administrator's token, and"
            f" {FACTOR_VARIABLE} to a code of their authenticator app."
        )
    name = input("Administrator: ")
    user = authenticate(_build_request(), username=name, password=getpass.getpass("Password: "))
    if not isinstance(user, User):
        raise NotAllowed("Wrong name or password, or too many wrong ones within the last hour.")
    if not factors.has_factor(user):
        return services.build_actor(user)
    factors.use_code(user, input("Code: "))
    return services.build_actor(user, timezone.now())


def _build_request() -> HttpRequest:
    """What wrong passwords are counted by; they come from this machine."""
    request = HttpRequest()
    request.META["REMOTE_ADDR"] = "127.0.0.1"
    return request
