"""Withdrawing candles that were stored by mistake (ADR 0006).

This is in `deploy` and not in `training`, because releases decide whether a dataset is still needed.
"""

from django.db.models import Q
from django.utils import timezone

from accounts.decisions import decision
from accounts.roles import Actor, Role
from audit import services as audit
from common.errors import Conflict
from deploy.models import Release
from deploy.pointer import pointer
from deploy.rules import ReleaseState
from training.models import Dataset
from training.services import candle_checks, datasets

WITHDRAWERS = (Role.OPERATOR, Role.APPROVER)
_IN_USE = (ReleaseState.BUILDING, ReleaseState.AWAITING_APPROVAL, ReleaseState.LIVE)


def withdraw_dataset(dataset: Dataset, *, actor: Actor, reason: str) -> Dataset:
    """Mark a dataset as stored by mistake: no other dataset is compared with it, and no launch uses it.

    The row, its file, its verdict and what was trained on it stay. Raises NotAllowed unless an operator or an approver
    asks, Conflict when it was withdrawn already, or while a release that is undecided, live or the registered fallback
    uses it.
    """
    authorised = decision(
        "dataset.withdraw", dataset, actor=actor, role=WITHDRAWERS, to="withdraw candles", reason=reason
    )
    with authorised as reason, audit.locked():
        dataset = datasets.find_dataset(dataset.pk)
        _require_unused(dataset)
        detail = {
            "digest": dataset.digest,
            "verdict": dataset.verdict,
            "refused_datasets": [other.pk for other in candle_checks.list_datasets_refused_for(dataset)],
        }
        # The event comes first: the database lets the columns change only under it.
        audit.record("dataset.withdrawn", dataset, actor=actor, reason=reason, detail=detail)
        dataset.withdrawn_at = timezone.now()
        dataset.withdrawn_by, dataset.withdrawn_reason = actor.name, reason
        dataset.save(update_fields=["withdrawn_at", "withdrawn_by", "withdrawn_reason"])
    return dataset


def _require_unused(dataset: Dataset) -> None:
    if dataset.is_withdrawn:
        raise Conflict(
            f"{candle_checks.format_verdict(dataset)} A withdrawal is neither repeated nor undone."
        )
    if releases := _list_releases_using(dataset):
        users = ", ".join(f"{release} ({release.state})" for release in releases)
        raise Conflict(
            f"Dataset {dataset.pk} cannot be withdrawn: it is used by {users}. Cancel or decline a release that is"
            " undecided; replace one that is live or the fallback."
        )


def _list_releases_using(dataset: Dataset) -> list[Release]:
    """The releases that need these candles: undecided, live, pointed at, or registered as the fallback."""
    move, fallback = pointer.get_current(), pointer.get_fallback()
    kept = [release.pk for release in (fallback, move.release if move else None) if release is not None]
    rows = Release.objects.select_related("status").filter(
        Q(coins__dataset=dataset) | Q(coins__bundle__dataset=dataset),
        Q(status__state__in=_IN_USE) | Q(pk__in=kept),
    )
    return list(rows.distinct().order_by("id"))
