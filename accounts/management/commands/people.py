from typing import Any

from django.core.management.base import CommandParser

from accounts import services
from accounts.models import User
from accounts.rules import Role, Scope
from audit.command import GateCommand


class Command(GateCommand):
    help = "List people; add one (--add NAME --role operator), grant or withdraw a role, issue a token (--token bot)."

    def add_own_arguments(self, parser: CommandParser) -> None:
        roles = [role.value for role in Role]
        parser.add_argument("--add", metavar="NAME", help="a new person, who signs in with --password")
        parser.add_argument(
            "--user", metavar="NAME", help="the person that --role, --withdraw and --token are for"
        )
        parser.add_argument("--password", help="for --add; without one the person can only use tokens")
        parser.add_argument(
            "--staff", action="store_true", help="for --add; may open the admin, and read there"
        )
        parser.add_argument("--role", action="append", default=[], choices=roles)
        parser.add_argument("--withdraw", action="append", default=[], choices=roles)
        parser.add_argument(
            "--token", choices=[scope.value for scope in Scope], help="issue a token of this scope"
        )

    def answer(self, **options: Any) -> dict[str, Any]:
        raw = None
        name = options["add"] or options["user"]
        if options["add"]:
            services.create_user(
                name,
                password=options["password"],
                roles=[],
                actor="the command line",
                is_staff=options["staff"],
            )
        if name:
            raw = self._change(services.find_user(name), options)
        people = [
            {"name": user.username, "roles": sorted(grant.role for grant in user.grants.all())}
            for user in User.objects.prefetch_related("grants").order_by("username")
        ]
        return {"people": people, "token": raw}

    def _change(self, user: User, options: dict[str, Any]) -> str | None:
        for role in options["role"]:
            services.grant(user, Role(role), actor="the command line")
        for role in options["withdraw"]:
            services.withdraw(user, Role(role), actor="the command line")
        if not options["token"]:
            return None
        _, raw = services.issue_token(
            user, Scope(options["token"]), name="from the command line", actor="the command line"
        )
        return raw

    def say(self, answer: dict[str, Any]) -> str:
        lines = [f"{person['name']:<20} {', '.join(person['roles']) or '—'}" for person in answer["people"]]
        if answer["token"]:
            lines.append(f"Token, shown this once: {answer['token']}")
        return "\n".join(lines) or "Nobody yet: add someone with --add NAME --role operator --password …"
