"""Which accounts belong to one person. Together they count as one where a decision takes two people."""

from django.db.models import Q

from accounts.models import User
from audit import services as audit
from common.errors import Conflict, InvalidInput


def list_other_names(name: str) -> list[str]:
    """The names of the other accounts of the person with this account; none for a name without an account."""
    user = User.objects.filter(username=name).first()
    if user is None:
        return []
    return [other.username for other in list_accounts(user) if other != user]


def list_accounts(user: User) -> list[User]:
    """All accounts of the person with this one, this one included."""
    first = user.counts_as_id or user.pk
    return list(User.objects.filter(Q(pk=first) | Q(counts_as=first)).order_by("pk"))


@audit.locked()
def count_as_one(user: User, other: User, *, actor: object) -> None:
    """Record that both accounts belong to one person, with all their other accounts. Repeating it changes nothing.

    Nothing undoes it: otherwise one person could become two for a moment. Raises InvalidInput for twice the same account,
    and for a service account as the second one.
    """
    if user.pk == other.pk:
        raise InvalidInput("Name two different accounts of the same person.", field="counts_as")
    if other.is_service:
        raise InvalidInput(
            f"{other.username} is a service account. Name the person who is responsible for {user.username}.",
            field="counts_as",
        )
    user, other = User.objects.get(pk=user.pk), User.objects.get(pk=other.pk)
    first = other.counts_as or other
    if user.is_service and user.counts_as not in (None, first):
        raise Conflict(
            f"{user.counts_as} is responsible for {user.username} already. Create another service account."
        )
    for account in list_accounts(user):
        if account != first and account.counts_as_id != first.pk:
            User.objects.filter(pk=account.pk).update(counts_as=first)
            audit.record(
                "user.linked", account, actor=actor, detail={"counts_as": first.pk, "name": first.username}
            )
