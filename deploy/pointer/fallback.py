"""Whether the registered fallback would work now: today's code, the stored bytes, every required coin.

The pin, the alarm, the board and the API all ask `fitness_of`, so that none of them can say otherwise than another.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.core.cache import cache
from django.utils import timezone

from common.errors import Unavailable
from deploy.models import Release, ReleaseCoin
from deploy.outcomes import damaged_files, places_of, required_coins
from deploy.pointer import pointer
from deploy.rules import FALLBACK_GATES, READY_GATES, Outcome, Result
from gates.models import GatePolicy, Measurement
from gates.policy import GATES, evaluate
from gates.services import policy_in_force
from mlcore.features.indicators import SCHEMAS
from training.models import Bundle, Coin
from training.rules import JobState

READY_FOR_SECONDS = 20
_ENDED = [state.value for state in JobState if state.has_ended]


@dataclass(frozen=True)
class Look:
    """What the file store says of the fallback's bytes: what is damaged, or why nobody could look."""

    damaged: Sequence[str]
    unchecked: str | None
    at: datetime


@dataclass(frozen=True)
class Fitness:
    """Whether the registered fallback can be served right now, and if not, why."""

    release: Release | None
    against: Sequence[str] = ()
    """Why it is not fit: a pin goes offline (rule 7)."""
    doubts: Sequence[str] = ()
    """What nobody has confirmed of late. It is pinned all the same: that is the emergency brake (ADR 0009)."""
    unchecked: str | None = None
    """Why its bytes could not be looked at. It is pinned all the same: bots verify every file themselves (ADR 0009)."""
    files_read_at: datetime | None = None
    measured_at: datetime | None = None
    """When the coin that was measured longest ago was measured."""

    @property
    def problem(self) -> str | None:
        return "; ".join(self.against) or None

    @property
    def is_ready(self) -> bool:
        return self.release is not None and not self.against

    @property
    def unconfirmed(self) -> list[str]:
        """Everything that is not known for sure of a fallback that could be pinned."""
        unread = [f"its bytes could not be read: {self.unchecked}"] if self.unchecked else []
        return [*self.doubts, *unread]


@dataclass(frozen=True)
class _Word:
    """What stands against one coin, or is not known of it."""

    against: Sequence[str] = ()
    doubts: Sequence[str] = ()
    unmeasured: str | None = None
    """Its last measuring came to nothing. While the file store is away, that says nothing of the bundle."""
    measured_at: datetime | None = None


def fallback_fitness() -> Fitness:
    """Look at the registered fallback with everything it takes: it hashes every file, so never inside a transaction."""
    return _registered(look_at)


def readiness() -> Fitness:
    """The same; its files looked at no more than every few seconds, for whoever asks again and again."""
    return _registered(_looked_at_lately)


def _registered(look: Callable[[Release, Sequence[ReleaseCoin]], Look]) -> Fitness:
    release = pointer.fallback()
    if release is None:
        return Fitness(None, against=("no fallback is registered",))
    return fitness_of(release, look)


def look_at(release: Release, places: Sequence[ReleaseCoin]) -> Look:
    try:
        return Look(damaged_files(places), None, timezone.now())
    except Unavailable as away:
        return Look((), away.message, timezone.now())


def _looked_at_lately(release: Release, places: Sequence[ReleaseCoin]) -> Look:
    key = f"fallback-files-{release.pk}-{'-'.join(str(place.bundle_id) for place in places)}"
    found: Look | None = cache.get(key)
    if found is None:
        found = look_at(release, places)
        cache.set(key, found, READY_FOR_SECONDS)
    return found


def fitness_of(release: Release, look: Callable[[Release, Sequence[ReleaseCoin]], Look] = look_at) -> Fitness:
    """Whether this release would do as the fallback: every required coin in it, each measured and passed by the gates that
    a fallback must pass, of the feature schema that this code computes, its bytes unchanged.
    """
    places = places_of(release)
    held = {place.coin_id: place for place in places}
    latest = latest_measurements(places)
    policy = policy_in_force()
    words = [_word(coin, held.get(coin.pk), latest, release, policy) for coin in required_coins()]
    seen = look(release, places)
    unmeasured = [word.unmeasured for word in words if word.unmeasured]
    against = [line for word in words for line in word.against]
    if never := pointer.why_never(release, places):
        against.append(never)
    doubts = [line for word in words for line in word.doubts]
    (doubts if seen.unchecked else against).extend(unmeasured)
    measured = [word.measured_at for word in words]
    return Fitness(
        release,
        against=(*against, *seen.damaged),
        doubts=tuple(doubts),
        unchecked=seen.unchecked,
        files_read_at=seen.at,
        measured_at=min((at for at in measured if at), default=None),
    )


def latest_measurements(places: Sequence[ReleaseCoin]) -> dict[int, Measurement]:
    """By bundle, its last measurement that came to an end, on the candles it has in its release. Without its figures."""
    datasets = {place.bundle_id: place.dataset_id for place in places if place.bundle_id}
    rows = Measurement.objects.filter(bundle__in=datasets, state__in=_ENDED).defer("body").order_by("id")
    return {row.bundle_id: row for row in rows if row.dataset_id == datasets[row.bundle_id]}


def _word(
    coin: Coin,
    place: ReleaseCoin | None,
    latest: Mapping[int, Measurement],
    release: Release,
    policy: GatePolicy,
) -> _Word:
    if place is None:
        return _Word(against=[f"{coin}: became required, and {release} holds nothing for it"])
    if place.bundle is None:
        return _Word(against=[f"{coin}: {release} holds no bundle for it"])
    against = [line] if (line := _schema_problem(coin, place.bundle)) else []
    measurement = latest.get(place.bundle.pk)
    if measurement is None:
        return _Word(against=[*against, f"{coin}: not measured yet"])
    if measurement.state != JobState.SUCCEEDED:
        why = f"{coin}: its last measuring {measurement.state}: {measurement.failure or 'no reason given'}"
        return _Word(against=against, unmeasured=why)
    return _Word(
        against=[*against, *_failures(coin, measurement, policy)],
        doubts=_doubts(coin, measurement),
        measured_at=measurement.finished_at,
    )


def _schema_problem(coin: Coin, bundle: Bundle) -> str | None:
    """Whether this code computes the features it was trained on: an upgrade may have changed them."""
    named = json.loads(bundle.manifest)["schema"]
    schema = SCHEMAS.get(named["name"])
    if schema is None:
        return f"{coin}: this code knows no features {named['name']!r}"
    if schema.digest != named["digest"]:
        return f"{coin}: this code computes other {named['name']} features than it was trained on"
    return None


def _doubts(coin: Coin, measurement: Measurement) -> list[str]:
    """Without ages in figures: the words must stay the same while the trouble does."""
    doubts = []
    if measurement.code_version != settings.CODE_VERSION:
        version = measurement.code_version or "unknown"
        doubts.append(f"{coin}: measured by code {version}, not yet by this one, {settings.CODE_VERSION}")
    too_old = timezone.now() - timedelta(seconds=2 * settings.FALLBACK_CHECK_SECONDS)
    if measurement.finished_at is None or measurement.finished_at < too_old:
        doubts.append(f"{coin}: not measured for {settings.FALLBACK_CHECK_SECONDS / 1800:.0f} hours or more")
    return doubts


def _failures(coin: Coin, measurement: Measurement, policy: GatePolicy) -> list[str]:
    key = f"fallback-gates-{measurement.pk}-{policy.pk}-{settings.CODE_VERSION}"
    found: list[str] | None = cache.get(key)
    if found is None:
        found = _judged(coin.symbol, measurement, policy.document)
        cache.set(key, found, READY_FOR_SECONDS)
    return found


def _judged(coin: str, measurement: Measurement, policy: Mapping[str, Mapping[str, object]]) -> list[str]:
    """By the thresholds of the policy in force, and each gate's own where it names none."""
    document = measurement.document
    # Older code did not look at the schema. That its digest still fits is known all the same, from the manifest.
    is_todays = measurement.code_version == settings.CODE_VERSION or "schema" in document
    gates = READY_GATES if is_todays else FALLBACK_GATES
    entries = {
        name: policy["gates"].get(name) or {"required": True, **GATES[name].baseline_parameters}
        for name in gates
    }
    spoken = evaluate(document, {**policy, "gates": entries}, coin=coin)
    results = [Result(coin, o.gate, o.is_required, o.verdict, o.observed, o.threshold) for o in spoken]
    return Outcome(coin, results).failures(gates)
