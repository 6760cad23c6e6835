"""Reads from the database the plain values that the rules decide on."""

from collections.abc import Iterable, Sequence

from django.db.models import Q

from common.errors import Conflict
from deploy.models import Release, ReleaseCoin
from deploy.rules import Outcome
from gates.models import Diagnosis, GatePolicy
from training import artifact_store
from training.models import Coin
from training.rules import JobState

_RELATED = ("coin", "dataset", "run", "bundle__dataset", "diagnosis")


def list_required_coins() -> list[Coin]:
    return list(Coin.objects.filter(is_required=True))


def list_missing_coins(release: Release) -> list[str]:
    """The symbols of the required coins for which it has no bundle."""
    held = release.coins.filter(bundle__isnull=False).values("coin")
    rows = Coin.objects.filter(is_required=True).exclude(pk__in=held)
    return list(rows.values_list("symbol", flat=True))


def list_release_coins(release: Release) -> list[ReleaseCoin]:
    """The release's coins with everything that a decision reads."""
    return list(
        release.coins.select_related(*_RELATED).prefetch_related("diagnosis__results", "bundle__artifacts")
    )


def find_release_coin(key: int) -> ReleaseCoin:
    """One coin's row with its release, as a decision reads it."""
    related = (*_RELATED, "release__status", "release__policy", "release__budget")
    return ReleaseCoin.objects.select_related(*related).get(pk=key)


def has_unfinished_coin(release: Release) -> bool:
    """Whether a coin of the release has neither a diagnosis nor a run that ended without a bundle."""
    lost = Q(run__state__in=(JobState.FAILED, JobState.CANCELLED))
    return release.coins.filter(diagnosis=None).exclude(lost).exists()


def read_outcome(coin: str, diagnosis: Diagnosis) -> Outcome:
    """The outcome of a coin, from its diagnosis."""
    return Outcome(coin, [result.outcome for result in diagnosis.results.all()])


def find_outcome(release_coin: ReleaseCoin) -> Outcome | None:
    """The outcome of this coin; None while it is under way."""
    coin = release_coin.coin.symbol
    if release_coin.diagnosis is not None:
        return read_outcome(coin, release_coin.diagnosis)
    run = release_coin.run
    if run is not None and run.has_ended and run.state != JobState.SUCCEEDED:
        return Outcome(coin, missing=f"{run} {run.state}: {run.failure or 'no reason given'}")
    return None


def has_passed_own_policy(release: Release | None) -> bool:
    """Whether every required coin passed every required gate of the policy the release was launched under."""
    if release is None:
        return False
    diagnoses = {row.coin_id: row.diagnosis for row in list_release_coins(release)}
    required = [(coin.symbol, diagnoses.get(coin.pk)) for coin in list_required_coins()]
    return bool(required) and all(
        diagnosis is not None
        and diagnosis.policy_id == release.policy_id
        and not read_outcome(symbol, diagnosis).failures()
        for symbol, diagnosis in required
    )


def list_outcomes(policy: GatePolicy, release_coins: Iterable[ReleaseCoin]) -> list[Outcome]:
    """Each required coin's outcome under this policy, from existing diagnoses. Judges nothing."""
    by_coin = {row.coin_id: row for row in release_coins}
    return [_find_outcome_under(policy, coin, by_coin.get(coin.pk)) for coin in list_required_coins()]


def list_unjudged_coins(policy: GatePolicy, release_coins: Iterable[ReleaseCoin]) -> list[str]:
    """The symbols of the release's coins without a diagnosis under this policy, whether they are required or not."""
    judged = Diagnosis.objects.filter(policy=policy).values_list("bundle", "dataset")
    pairs = set(judged.filter(bundle__in=[row.bundle_id for row in release_coins]))
    return [row.coin.symbol for row in release_coins if (row.bundle_id, row.dataset_id) not in pairs]


def _find_outcome_under(policy: GatePolicy, coin: Coin, release_coin: ReleaseCoin | None) -> Outcome:
    if release_coin is None or release_coin.bundle is None:
        return Outcome(coin.symbol, missing="the release has no bundle for this coin")
    key = {"bundle": release_coin.bundle, "dataset": release_coin.dataset, "coin": coin, "policy": policy}
    diagnosis = Diagnosis.objects.filter(**key).prefetch_related("results").first()
    if diagnosis is None:
        return Outcome(coin.symbol, missing=f"not judged under policy {policy.number}")
    return read_outcome(coin.symbol, diagnosis)


def list_damaged_files(release_coins: Iterable[ReleaseCoin]) -> list[str]:
    """Every stored file of these bundles that is missing or was changed since it was measured. Hashes them all."""
    return [
        f"{row.coin.symbol} {artifact.name}: the stored bytes are not those that were measured"
        for row in release_coins
        if row.bundle is not None
        for artifact in row.bundle.artifacts.all()
        if not artifact_store.is_intact(artifact.sha256, artifact.size)
    ]


def require_complete(release: Release, release_coins: Sequence[ReleaseCoin]) -> None:
    """Raise Conflict when a coin of the release has no bundle, or a file changed since it was measured.

    Bots refuse a release that lacks the model of one of its coins, also of a coin that is no longer required.
    """
    if missing := [row.coin.symbol for row in release_coins if row.bundle is None]:
        raise Conflict(
            f"{release} has no bundle for {', '.join(missing)}, and bots would refuse it. Wait for the bundle, or launch a"
            " release without that coin."
        )
    if damaged := list_damaged_files(release_coins):
        raise Conflict(f"{release} cannot be used: " + "; ".join(damaged) + ". Launch it again.")
