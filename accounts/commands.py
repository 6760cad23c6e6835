"""The actor of a command: the owner of a token, or a user name in the embedded profile."""

import os
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from accounts import services, tokens
from accounts.authentication import add_factor
from accounts.roles import Actor
from common.commands import GateCommand
from common.errors import NotAllowed

TOKEN_VARIABLE = "CRPBOT_TOKEN"
FACTOR_VARIABLE = "CRPBOT_SECOND_FACTOR"


class ActingCommand(GateCommand):
    """A command with an actor: `self.actor(options)`."""

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--as",
            dest="acting_as",
            metavar="USER",
            help="act as this user (embedded profile only; else CRPBOT_TOKEN)",
        )

    def actor(self, options: dict[str, Any]) -> Actor:
        if options["acting_as"]:
            if not settings.IS_EMBEDDED:
                raise NotAllowed("--as works in the embedded profile only; in production set CRPBOT_TOKEN.")
            return services.build_actor(services.find_user(options["acting_as"]))
        if not os.environ.get(TOKEN_VARIABLE):
            raise NotAllowed(
                "This command needs an actor: set CRPBOT_TOKEN to your token, or use --as USER in the embedded profile."
            )
        return find_token_actor()


def find_token_actor() -> Actor:
    """The owner of the token in CRPBOT_TOKEN, with the code of their second factor in CRPBOT_SECOND_FACTOR, if it is set."""
    owner = services.authenticate(os.environ.get(TOKEN_VARIABLE, ""))
    if owner is None:
        raise NotAllowed("The token in CRPBOT_TOKEN is unknown, expired or revoked.")
    tokens.store_uses()
    user, actor = owner
    code = os.environ.get(FACTOR_VARIABLE)
    return add_factor(user, actor, code) if code else actor
