import getpass
import sys
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandParser

from accounts import services, tokens
from accounts.identity import factors, oidc
from accounts.identity.administration import authorise
from accounts.identity.people import count_as_one
from accounts.models import User
from accounts.roles import Role, Scope
from common.commands import GateCommand
from common.errors import InvalidInput

MAX_DAYS = 3650
CHANGES = (
    "add",
    "role",
    "withdraw",
    "new_password",
    "token",
    "close",
    "revoke",
    "counts_as",
    "subject",
    "remove_factors",
)
"""Options that change something; without any of them the command only lists."""


class Command(GateCommand):
    help = (
        "List people; add one (--add NAME --role operator), change one (--user NAME --role … --withdraw … --new-password),"
        " close an account, issue a token (--token bot), list tokens and revoke one. A password is prompted for, or"
        " read from standard input; it is never part of the command line. In production a change takes an administrator:"
        " CRPBOT_TOKEN and CRPBOT_SECOND_FACTOR, or name, password and code at a terminal."
    )

    def add_own_arguments(self, parser: CommandParser) -> None:
        roles = [role.value for role in Role]
        parser.add_argument(
            "--add",
            metavar="NAME",
            help="add a person; prompts for a password unless --service or --no-password",
        )
        parser.add_argument("--user", metavar="NAME", help="the person that the other options are for")
        parser.add_argument(
            "--service",
            action="store_true",
            help="for --add: a service account, such as a bot's, which cannot sign in",
        )
        parser.add_argument(
            "--no-password",
            action="store_true",
            help="for --add: a person who signs in by single sign-on only",
        )
        parser.add_argument("--staff", action="store_true", help="for --add: may read the admin")
        parser.add_argument("--role", action="append", default=[], choices=roles)
        parser.add_argument("--withdraw", action="append", default=[], choices=roles)
        parser.add_argument(
            "--new-password", action="store_true", help="ends every session and token of this person"
        )
        parser.add_argument(
            "--counts-as",
            metavar="NAME",
            help="this account and NAME belong to one person; of a service account: who is responsible. For good",
        )
        parser.add_argument(
            "--subject", metavar="SUB", help="this person signs in as SUB at the single sign-on provider"
        )
        parser.add_argument(
            "--remove-factors",
            action="store_true",
            help="this person lost their second factors; ends their sessions",
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
        raw = (
            self._change(options) if any(options[name] not in (None, False, []) for name in CHANGES) else None
        )
        people = [
            {
                "name": user.username,
                "roles": sorted(grant.role for grant in user.grants.all()),
                "is_active": user.is_active,
                "is_service": user.is_service,
                "counts_as": user.counts_as.username if user.counts_as else None,
            }
            for user in User.objects.select_related("counts_as")
            .prefetch_related("grants")
            .order_by("username")
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
        author = authorise(adds_first_administrator=_adds_first_administrator(options))
        if options["revoke"] is not None:
            services.revoke_token(services.find_token(options["revoke"]), actor=author)
        if options["close"]:
            services.close_account(services.find_user(options["close"]), actor=author)
        if options["add"]:
            password = None if options["service"] or options["no_password"] else _read_password()
            services.create_user(
                options["add"],
                password=password,
                roles=[],
                actor=author,
                is_staff=options["staff"],
                is_service=options["service"],
            )
        name = options["add"] or options["user"]
        return self._change_person(services.find_user(name), options, author) if name else None

    def _change_person(self, user: User, options: dict[str, Any], author: object) -> str | None:
        if options["counts_as"]:
            count_as_one(user, services.find_user(options["counts_as"]), actor=author)
            user.refresh_from_db()
        if options["subject"]:
            oidc.connect(user, options["subject"], actor=author)
        for role in options["role"]:
            services.grant(user, Role(role), actor=author)
        for role in options["withdraw"]:
            services.withdraw(user, Role(role), actor=author)
        if options["remove_factors"]:
            factors.remove_all(user, actor=author)
        if options["new_password"]:
            services.set_password(user, _read_password(), actor=author)
        if not options["token"]:
            return None
        lifetime = _read_lifetime(str(options["days"]))
        _, raw = services.issue_token(
            user, Scope(options["token"]), name="from the command line", actor=author, lifetime=lifetime
        )
        return raw

    def format_answer(self, answer: dict[str, Any]) -> str:
        lines = [
            f"{person['name']:<20} {', '.join(person['roles']) or '—'}{_format_notes(person)}"
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


def _adds_first_administrator(options: dict[str, Any]) -> bool:
    """Whether the options add one administrator, with a token of that scope at most, and change nothing else."""
    others = [name for name in CHANGES if name not in ("add", "role", "token")]
    return (
        bool(options["add"])
        and options["role"] == [Role.ADMINISTRATOR]
        and options["token"] in (None, Scope.ADMINISTRATOR)
        and not options["service"]
        and not any(options[name] not in (None, False, []) for name in others)
    )


def _format_notes(person: dict[str, Any]) -> str:
    notes = [
        "closed" if not person["is_active"] else "",
        "service account" if person["is_service"] else "",
        f"counts as {person['counts_as']}" if person["counts_as"] else "",
    ]
    return f" ({', '.join(filter(None, notes))})" if any(notes) else ""


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
