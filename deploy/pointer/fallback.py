"""Whether the registered fallback would work now: this code, the stored bytes, every required coin.

The pin, the alarm, the board and the API all ask `check_readiness`, so that they never contradict one another.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import cast

from django.conf import settings
from django.core.cache import cache
from django.db.models import OuterRef, Subquery
from django.utils import timezone

from common.deadlines import run_within
from deploy.models import Release, ReleaseCoin
from deploy.outcomes import list_damaged_files, list_release_coins, list_required_coins
from deploy.pointer import pointer
from deploy.rules import FALLBACK_GATES, READY_GATES, Outcome
from gates.catalogue.registry import GATES
from gates.evaluation import evaluate
from gates.models import GatePolicy, Measurement
from gates.services.policies import policy_in_force
from mlcore.features.indicators import find_schema
from training.models import Bundle, Coin
from training.rules import JobState

CACHED_SECONDS = 20
_ENDED = [state.value for state in JobState if state.has_ended]


@dataclass(frozen=True)
class FileCheck:
    """What the file store answered about a release's bytes: the damaged files, or why they could not be read."""

    damaged: Sequence[str]
    unchecked: str | None
    at: datetime


FileChecker = Callable[[Release, Sequence[ReleaseCoin]], FileCheck]


@dataclass(frozen=True)
class FallbackReadiness:
    """Whether the registered fallback can be served right now, and if not, why."""

    release: Release | None
    problems: Sequence[str] = ()
    """Why a pin goes offline (rule 7, docs/rules.md#7)."""
    doubts: Sequence[str] = ()
    """What was not confirmed lately. It is pinned all the same: the pin is the emergency brake (ADR 0009)."""
    unchecked: str | None = None
    """Why its bytes could not be read. It is pinned all the same: bots verify every file themselves (ADR 0009)."""
    files_read_at: datetime | None = None
    measured_at: datetime | None = None
    """When the coin that was measured longest ago was measured."""

    @property
    def problem(self) -> str | None:
        return "; ".join(self.problems) or None

    @property
    def is_ready(self) -> bool:
        return self.release is not None and not self.problems

    @property
    def unconfirmed(self) -> list[str]:
        """Everything that is not known for sure about a fallback that could be pinned."""
        unread = [f"its bytes could not be read: {self.unchecked}"] if self.unchecked else []
        return [*self.doubts, *unread]


@dataclass
class _Findings:
    """What was found about the coins so far."""

    problems: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    unmeasured: list[str] = field(default_factory=list)
    """Failed last measurements. While the file store is away, they say nothing about the bundle."""
    measured_at: list[datetime] = field(default_factory=list)


def check_fallback() -> FallbackReadiness:
    """Check the registered fallback completely. This hashes every file, so never call it inside a transaction."""
    return _check_registered(check_files)


def check_fallback_cached() -> FallbackReadiness:
    """The same for frequent callers: its files are read again only every few seconds."""
    return _check_registered(check_files_cached)


def _check_registered(check: FileChecker) -> FallbackReadiness:
    release = pointer.get_fallback()
    if release is None:
        return FallbackReadiness(None, problems=("no fallback is registered",))
    return check_readiness(release, check)


def check_files(release: Release, release_coins: Sequence[ReleaseCoin]) -> FileCheck:
    """Read and hash the release's files within FILE_CHECK_SECONDS; whatever prevents it makes them unchecked."""
    try:
        damaged = run_within(settings.FILE_CHECK_SECONDS, lambda: list_damaged_files(release_coins))
    except TimeoutError as error:
        return FileCheck((), f"the file store: {error}", timezone.now())
    except Exception as error:  # noqa: BLE001 - a pin works whatever fails here (ADR 0009)
        return FileCheck((), str(error) or type(error).__name__, timezone.now())
    return FileCheck(damaged, None, timezone.now())


def check_files_cached(release: Release, release_coins: Sequence[ReleaseCoin]) -> FileCheck:
    """The same, at most every CACHED_SECONDS."""
    bundles = "-".join(str(row.bundle_id) for row in release_coins)
    key = f"release-files-{release.pk}-{bundles}"
    return cast(FileCheck, cache.get_or_set(key, lambda: check_files(release, release_coins), CACHED_SECONDS))


def check_readiness(release: Release, check: FileChecker = check_files) -> FallbackReadiness:
    """Whether this release would work as the fallback.

    It needs every required coin. Each must be measured, pass the gates that a fallback must pass, use a feature schema
    that this code computes, and have its bytes unchanged.
    """
    release_coins = list_release_coins(release)
    by_coin = {row.coin_id: row for row in release_coins}
    latest, policy, found = _find_latest_measurements(release_coins), policy_in_force(), _Findings()
    for coin in list_required_coins():
        row = by_coin.get(coin.pk)
        if row is None:
            found.problems.append(f"{coin}: became required, and {release} has no model for it")
        elif row.bundle is None:
            found.problems.append(f"{coin}: {release} has no bundle for it")
        else:
            _check_coin(coin, row.bundle, latest.get(row.bundle.pk), policy, found)
    files = check(release, release_coins)
    if blocker := pointer.find_serving_blocker(release, release_coins):
        found.problems.append(blocker)
    (found.doubts if files.unchecked else found.problems).extend(found.unmeasured)
    return FallbackReadiness(
        release,
        problems=(*found.problems, *files.damaged),
        doubts=tuple(found.doubts),
        unchecked=files.unchecked,
        files_read_at=files.at,
        measured_at=min(found.measured_at, default=None),
    )


def _find_latest_measurements(release_coins: Sequence[ReleaseCoin]) -> dict[int, Measurement]:
    """By bundle, its last measurement that ended, on the candles of its release. Without its figures."""
    rows = Measurement.objects.filter(
        bundle=OuterRef("bundle"), dataset=OuterRef("dataset"), state__in=_ENDED
    )
    # The fallback is measured every day: only the last one of each coin is read.
    coins = ReleaseCoin.objects.filter(pk__in=[row.pk for row in release_coins])
    latest = coins.annotate(latest=Subquery(rows.order_by("-id").values("pk")[:1])).values("latest")
    return {row.bundle_id: row for row in Measurement.objects.filter(pk__in=latest).defer("body")}


def _check_coin(
    coin: Coin, bundle: Bundle, measurement: Measurement | None, policy: GatePolicy, found: _Findings
) -> None:
    if problem := _find_schema_problem(bundle):
        found.problems.append(f"{coin}: {problem}")
    if measurement is None:
        found.problems.append(f"{coin}: not measured yet")
    elif measurement.state != JobState.SUCCEEDED:
        failure = measurement.failure or "no reason given"
        found.unmeasured.append(f"{coin}: its last measurement {measurement.state}: {failure}")
    else:
        found.problems += _list_gate_failures(coin, measurement, policy)
        found.doubts += _list_doubts(coin, measurement)
        found.measured_at += [measurement.finished_at] if measurement.finished_at else []


def _find_schema_problem(bundle: Bundle) -> str | None:
    """Whether this code computes the features that it was trained on: an upgrade may have changed them."""
    named = json.loads(bundle.manifest)["schema"]
    schema = find_schema(named["name"])
    if schema is None:
        return f"this code does not know the features {named['name']!r}"
    if schema.digest != named["digest"]:
        return f"this code computes other {named['name']} features than it was trained on"
    return None


def _list_doubts(coin: Coin, measurement: Measurement) -> list[str]:
    """Without ages: the text must stay the same while the condition does, or it would be another alarm each time."""
    doubts = []
    if measurement.code_version != settings.CODE_VERSION:
        version = measurement.code_version or "unknown"
        doubts.append(f"{coin}: measured by code {version}, not yet by this one, {settings.CODE_VERSION}")
    too_old = timezone.now() - timedelta(seconds=2 * settings.FALLBACK_CHECK_SECONDS)
    if measurement.finished_at is None or measurement.finished_at < too_old:
        doubts.append(f"{coin}: not measured for {settings.FALLBACK_CHECK_SECONDS / 1800:.0f} hours or more")
    return doubts


def _list_gate_failures(coin: Coin, measurement: Measurement, policy: GatePolicy) -> list[str]:
    key = f"fallback-gates-{measurement.pk}-{policy.pk}-{settings.CODE_VERSION}"
    failures = cache.get_or_set(
        key, lambda: _evaluate_gates(coin.symbol, measurement, policy.document), CACHED_SECONDS
    )
    return cast(list[str], failures)


def _evaluate_gates(
    coin: str, measurement: Measurement, policy: Mapping[str, Mapping[str, object]]
) -> list[str]:
    """By the thresholds of the policy in force, and each gate's own threshold where the policy names none."""
    document = measurement.document
    # Older code did not measure the schema. That its digest still fits is known all the same, from the manifest.
    has_schema = measurement.code_version == settings.CODE_VERSION or "schema" in document
    gates = READY_GATES if has_schema else FALLBACK_GATES
    entries = {
        name: policy["gates"].get(name) or {"required": True, **GATES[name].defaults} for name in gates
    }
    return Outcome(coin, evaluate(document, {**policy, "gates": entries}, coin=coin)).failures(gates)
