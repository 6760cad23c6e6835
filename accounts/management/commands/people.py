import getpass
import sys
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandParser

from accounts import services, tokens
from accounts.models import User
from accounts.roles import Role, Scope
from common.commands import GateCommand
from common.errors import InvalidInput

ACTOR = "the command line"
MAX_DAYS = 3650


class Command(GateCommand):
    help = (
        "List people; add one (--add NAME --role operator), change one (--user NAME --role … --withdraw … --new-password),"
        " close an account, issue a token (--token bot), list tokens and revoke one. A password is prompted for, or"
        " read from standard input; it is never part of the command line."
    )

    def add_own_arguments(self, parser: CommandParser) -> None:
        roles = [role.value for role in Role]
        parser.add_argument(
            "--add", metavar="NAME", help="add a person; prompts for a password unless --token-only"
        )
        parser.add_argument("--user", metavar="NAME", help="the person that the other options are for")
        parser.add_argument(
            "--token-only", action="store_true", help="for --add: an account without sign-in, such as a bot's"
        )
        parser.add_argument("--staff", action="store_true", help="for --add: may read the admin")
        parser.add_argument("--role", action="append", default=[], choices=roles)
        parser.add_argument("--withdraw", action="append", default=[], choices=roles)
        parser.add_argument(
            "--new-password", action="store_true", help="ends every session and token of this person"
        )
        parser.add_argument(
            "--token", choices=[scope.value for scope in Scope], help="issue a token of this scope"
        )
        parser.add_argument(
            "--days",
            default=str(tokens.LIFETIME.days),
            metavar="N",
            help=f"for --token: expires after this many days (default {tokens.LIFETIME.days}), or: never",
        )
        parser.add_argument("--close", metavar="NAME", help="close an account: no session, no token")
        parser.add_argument(
            "--tokens",
            action="store_true",
            help="list the tokens that were not revoked, with expiry and last use",
        )
        parser.add_argument("--revoke", type=int, metavar="N", help="revoke token number N at once")

    def answer(self, **options: Any) -> dict[str, Any]:
        raw = self._change(options)
        people = [
            {
                "name": user.username,
                "roles": sorted(grant.role for grant in user.grants.all()),
                "is_active": user.is_active,
            }
            for user in User.objects.prefetch_related("grants").order_by("username")
        ]
        listed = [
            {
                "number": token.pk,
                "name": str(token),
                "expires_at": token.expires_at,
                "last_used_at": token.last_used_at,
            }
            for token in tokens.list_unrevoked()
        ]
        return {"people": people, "tokens": listed if options["tokens"] else None, "token": raw}

    def _change(self, options: dict[str, Any]) -> str | None:
        """Carry out the options; returns the secret of a new token."""
        if options["revoke"] is not None:
            services.revoke_token(services.find_token(options["revoke"]), actor=ACTOR)
        if options["close"]:
            services.close_account(services.find_user(options["close"]), actor=ACTOR)
        if options["add"]:
            password = None if options["token_only"] else _read_password()
            services.create_user(
                options["add"], password=password, roles=[], actor=ACTOR, is_staff=options["staff"]
            )
        name = options["add"] or options["user"]
        return self._change_person(services.find_user(name), options) if name else None

    def _change_person(self, user: User, options: dict[str, Any]) -> str | None:
        for role in options["role"]:
            services.grant(user, Role(role), actor=ACTOR)
        for role in options["withdraw"]:
            services.withdraw(user, Role(role), actor=ACTOR)
        if options["new_password"]:
            services.set_password(user, _read_password(), actor=ACTOR)
        if not options["token"]:
            return None
        lifetime = _read_lifetime(str(options["days"]))
        _, raw = services.issue_token(
            user, Scope(options["token"]), name="from the command line", actor=ACTOR, lifetime=lifetime
        )
        return raw

    def format_answer(self, answer: dict[str, Any]) -> str:
        lines = [
            f"{person['name']:<20} {', '.join(person['roles']) or '—'}{'' if person['is_active'] else ' (closed)'}"
            for person in answer["people"]
        ]
        for token in answer["tokens"] or []:
            until = f"until {token['expires_at']:%Y-%m-%d}" if token["expires_at"] else "never expires"
            used = (
                f"last used {token['last_used_at']:%Y-%m-%d %H:%M}"
                if token["last_used_at"]
                else "not used yet"
            )
            lines.append(f"token {token['number']}: {token['name']}, {until}, {used}")
        if answer["token"]:
            lines.append(f"Token, shown this once: {answer['token']}")
        return "\n".join(lines) or "No people yet: add one with --add NAME --role operator"


def _read_lifetime(days: str) -> timedelta | None:
    """How long a token is valid; None for "never". Raises InvalidInput for days out of range."""
    if days == "never":
        return None
    if not days.isdecimal() or not 1 <= int(days[:9]) <= MAX_DAYS:
        raise InvalidInput(f"--days is {days}; choose from 1 to {MAX_DAYS:,}, or never.", field="days")
    return timedelta(days=int(days))


def _read_password() -> str:
    """Prompt twice at a terminal, else read one line of standard input."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password = getpass.getpass("Password: ")
    if password != getpass.getpass("Again: "):
        raise InvalidInput("The two passwords differ. Nothing was changed.", field="password")
    return password
