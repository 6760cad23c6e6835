"""Taking back candles that were stored wrongly (ADR 0006).

It stands here and not in training, because whether they can be spared is said in releases.
"""

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from accounts.rules import Actor, Role
from audit import services as audit
from common.errors import Conflict
from common.reasons import required_reason
from deploy.models import Release
from deploy.pointer import pointer
from deploy.rules import ReleaseState
from training import services as training
from training.models import Dataset

_IN_USE = (ReleaseState.BUILDING, ReleaseState.AWAITING_APPROVAL, ReleaseState.LIVE)


def withdraw_dataset(dataset: Dataset, *, actor: Actor, reason: str) -> Dataset:
    """Say of candles that they were stored wrongly: they judge no others, and nothing that is released trains on them.

    The row, its file and its verdict stay, and so does what was made of it. Raises NotAllowed unless an operator or an
    approver asks, Conflict when it was withdrawn already, or while a release that is undecided, live or the registered
    fallback stands on it.
    """
    with audit.refusals_recorded("dataset.withdraw", dataset, actor=actor, reason=reason):
        if not actor.has(Role.APPROVER):
            actor.require(Role.OPERATOR, "withdraw candles")
        reason = required_reason(reason)
        with transaction.atomic():
            audit.lock_head()
            dataset = training.find_dataset(dataset.pk)
            _require_spare(dataset)
            detail = {
                "digest": dataset.digest,
                "verdict": dataset.verdict,
                "refused_beside": [other.pk for other in training.refused_beside(dataset)],
            }
            # The event comes first: the database lets the columns change only under it.
            audit.record("dataset.withdrawn", dataset, actor=actor, reason=reason, detail=detail)
            dataset.withdrawn_at = timezone.now()
            dataset.withdrawn_by, dataset.withdrawn_reason = actor.name, reason
            dataset.save(update_fields=["withdrawn_at", "withdrawn_by", "withdrawn_reason"])
    return dataset


def _require_spare(dataset: Dataset) -> None:
    if dataset.is_withdrawn:
        raise Conflict(f"{training.verdict_sentence(dataset)} That is not said twice, nor taken back.")
    if held := _standing_on(dataset):
        told = ", ".join(f"{release}, {release.state}" for release in held)
        stands = "stands" if len(held) == 1 else "stand"
        raise Conflict(
            f"Dataset {dataset.pk} cannot be withdrawn: {told} {stands} on it. Cancel or decline what is undecided, and put"
            " another in the place of what is live or the fallback."
        )


def _standing_on(dataset: Dataset) -> list[Release]:
    """The releases that need these candles to be sound: undecided, live, pointed at, or registered as the fallback."""
    now, fallback = pointer.current(), pointer.fallback()
    kept = [release.pk for release in (fallback, now.release if now else None) if release is not None]
    rows = Release.objects.select_related("status").filter(
        Q(coins__dataset=dataset) | Q(coins__bundle__dataset=dataset),
        Q(status__state__in=_IN_USE) | Q(pk__in=kept),
    )
    return list(rows.distinct().order_by("id"))
