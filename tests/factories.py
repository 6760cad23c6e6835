"""The small cast of the tests, made by plain functions."""

from accounts import services as accounts
from accounts.models import User
from accounts.rules import Actor, Role, Scope

PASSWORD = "correct horse battery staple"


def person(name: str, *roles: str) -> User:
    return accounts.create_user(
        name, password=PASSWORD, roles=[Role(role) for role in roles], actor="the tests"
    )


def actor(name: str, *roles: str) -> Actor:
    """Somebody to act, without a row: the services ask the actor's roles, not the database."""
    return Actor(name, frozenset(Role(role) for role in roles))


def token(user: User, scope: str) -> str:
    """The secret of a new token of this scope."""
    return accounts.issue_token(user, Scope(scope), name="for a test", actor="the tests")[1]
