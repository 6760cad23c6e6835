"""One decision for one coin, from candles and one state: no network, no disk, no long-held lock."""

from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType

from crpbot_runtime.decision import NEUTRAL, Decision
from crpbot_runtime.errors import ClientError
from crpbot_runtime.frames import to_candles
from crpbot_runtime.live_windows import LiveWindows
from crpbot_runtime.protocol.snapshot import Snapshot
from crpbot_runtime.state import State
from crpbot_runtime.timing import find_fault
from mlcore.data.validation import validate_candles
from mlcore.errors import BundleRefused, NotFinite


def decide(
    coin: str,
    candles: object,
    state: State,
    *,
    stale_since: datetime | None,
    windows: LiveWindows,
    max_age_s: float | None,
    now: datetime,
) -> tuple[Decision, str]:
    """Decide for one coin, and count the prediction in `windows`.

    Returns the decision, and why the candles are not to be decided on now (`timing`); empty if they are. Raises what
    `mlcore` raises for bad candles.
    """
    snapshot, predictor = state.snapshot, state.predictors.get(coin)
    neutral = Decision(
        coin=coin,
        direction=NEUTRAL,
        probabilities=MappingProxyType({}),
        line=None,
        release=None,
        revision=snapshot.revision if snapshot else None,
        stale_since=stale_since,
        reason=_explain_neutral(snapshot, stale_since, state.current_problem),
    )
    if predictor is None or snapshot is None:
        return neutral, ""
    source = f"the candles of {coin}"
    window = validate_candles(to_candles(candles, source).tail(predictor.schema.lookback), source)
    interval_s = predictor.manifest.interval_seconds
    if window.height >= predictor.schema.lookback and (
        fault := find_fault(window, interval_s=interval_s, max_age_s=max_age_s, now=now)
    ):
        stale = _explain_stale(stale_since, state.current_problem)
        return replace(neutral, reason=f"no decision: {fault}{'; ' if stale else ''}{stale}"), fault
    try:
        prediction = predictor.predict(window)
    except BundleRefused as error:
        if isinstance(error, NotFinite):
            windows.add(snapshot.revision, coin, None, now)
        return replace(neutral, reason=f"no model: {error}"), ""
    windows.add(snapshot.revision, coin, prediction, now)
    decision = replace(
        neutral,
        direction=prediction.direction,
        probabilities=MappingProxyType(prediction.probabilities),
        line=snapshot.line,
        release=snapshot.release,
        reason=_explain_stale(stale_since, state.current_problem),
        at=prediction.at,
        is_simulated=snapshot.is_simulated,
        bundle=predictor.digest,
    )
    return decision, ""


def _explain_stale(stale_since: datetime | None, problem: ClientError | None) -> str:
    """What is wrong, on one line; empty if nothing is."""
    if stale_since is None:
        return str(problem or "")
    cause = problem or "the service was not asked since"
    return f"stale since {stale_since.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z: {cause}"


def _explain_neutral(
    snapshot: Snapshot | None, stale_since: datetime | None, problem: ClientError | None
) -> str:
    """Why there is no model, on one line: there never was one, or the pointer is offline."""
    if snapshot is None:
        return f"no model: {problem or 'nothing is saved on disk and the service was not asked yet'}"
    offline = f"no model: the pointer is offline ({snapshot.reason})"
    stale = _explain_stale(stale_since, problem)
    return f"{offline}; {stale}" if stale else offline
