"""What stands in the database, as the plain values that the rules decide on."""

from collections.abc import Iterable

from common.errors import Conflict
from deploy.models import Release, ReleaseCoin
from deploy.rules import Outcome, Result
from gates.models import Diagnosis, GatePolicy
from training import artifact_store
from training.models import Coin
from training.rules import JobState


def required_coins() -> list[Coin]:
    return list(Coin.objects.filter(is_required=True))


def required_coins_lacking_in(release: Release) -> list[str]:
    """The symbols of the required coins for which it holds no bundle."""
    held = release.coins.filter(bundle__isnull=False).values("coin")
    rows = Coin.objects.filter(is_required=True).exclude(pk__in=held)
    return list(rows.values_list("symbol", flat=True))


def places_of(release: Release) -> list[ReleaseCoin]:
    """The release's coins with all that a decision reads."""
    related = ("coin", "dataset", "run", "bundle__dataset", "diagnosis")
    return list(
        release.coins.select_related(*related).prefetch_related("diagnosis__results", "bundle__artifacts")
    )


def judged(coin: str, diagnosis: Diagnosis) -> Outcome:
    """A diagnosis as an outcome of its coin."""
    results = [
        Result(coin, result.gate, result.is_required, result.verdict, result.observed, result.threshold)
        for result in diagnosis.results.all()
    ]
    return Outcome(coin, results)


def outcome_of(place: ReleaseCoin) -> Outcome | None:
    """What this coin came to; None while it is under way."""
    coin = place.coin.symbol
    if place.diagnosis is not None:
        return judged(coin, place.diagnosis)
    run = place.run
    if run is not None and run.has_ended and run.state != JobState.SUCCEEDED:
        return Outcome(coin, missing=f"{run} {run.state}: {run.failure or 'no reason given'}")
    return None


def passed_its_own_policy(release: Release | None) -> bool:
    """Whether every required coin passed every required gate of the policy the release was launched under."""
    if release is None:
        return False
    by_coin = {place.coin_id: place for place in places_of(release)}
    places = [by_coin.get(coin.pk) for coin in required_coins()]
    return bool(places) and all(_passed(place, release) for place in places)


def _passed(place: ReleaseCoin | None, release: Release) -> bool:
    if place is None or place.diagnosis is None or place.diagnosis.policy_id != release.policy_id:
        return False
    return not judged(place.coin.symbol, place.diagnosis).failures()


def under(policy: GatePolicy, places: Iterable[ReleaseCoin]) -> list[Outcome]:
    """Each required coin's outcome under this policy, from diagnoses that exist. Reads; judges nothing."""
    by_coin = {place.coin_id: place for place in places}
    return [_under(policy, coin, by_coin.get(coin.pk)) for coin in required_coins()]


def _under(policy: GatePolicy, coin: Coin, place: ReleaseCoin | None) -> Outcome:
    if place is None or place.bundle is None:
        return Outcome(coin.symbol, missing="the release holds no bundle for this coin")
    diagnosis = (
        Diagnosis.objects.filter(bundle=place.bundle, coin=coin, policy=policy, dataset=place.dataset)
        .prefetch_related("results")
        .first()
    )
    if diagnosis is None:
        return Outcome(coin.symbol, missing=f"not judged under policy {policy.number}")
    return judged(coin.symbol, diagnosis)


def damaged_files(places: Iterable[ReleaseCoin]) -> list[str]:
    """Every stored file of these bundles that is missing, or not the bytes that were measured. Hashes them all."""
    return [
        f"{place.coin.symbol} {artifact.name}: the stored bytes are not those that were measured"
        for place in places
        if place.bundle is not None
        for artifact in place.bundle.artifacts.all()
        if not artifact_store.is_intact(artifact.sha256, artifact.size)
    ]


def require_intact(release: Release, places: Iterable[ReleaseCoin]) -> None:
    """Raise Conflict when any file of the release changed since it was measured."""
    if damaged := damaged_files(places):
        raise Conflict(f"{release} cannot be used: " + "; ".join(damaged) + ". Launch it again.")
