"""One decision for one coin, from candles and what is in use at that moment: no network, no disk, no lock held long."""

from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime, timedelta
from types import MappingProxyType

import polars as pl

from mlcore.bundle.predictor import Prediction
from mlcore.data.candles import validate_candles
from mlcore.errors import BundleRefused, NotFinite
from runtime.decision import NEUTRAL, Decision, why_neutral, why_stale
from runtime.errors import UnknownCoin
from runtime.protocol.snapshot import Snapshot
from runtime.state import State
from runtime.summary import Summaries


class Decider:
    """Decides for the `coins` a bot trades (none named: those of the release), and counts predictions in `summaries`."""

    def __init__(
        self, *, coins: Collection[str], fresh_for: timedelta, clock: Callable[[], datetime]
    ) -> None:
        self._coins, self._fresh_for, self._clock = coins, fresh_for, clock
        self.summaries = Summaries()

    def decide(self, coin: str, candles: pl.DataFrame, state: State) -> Decision:
        """Decide by this state; as `Client.predict`."""
        self._expect_known(coin, state)
        predictor = state.predictors.get(coin)
        if predictor is None or state.snapshot is None:
            return self._neutral(coin, state)
        window = validate_candles(candles.tail(predictor.schema.lookback), f"the candles of {coin}")
        try:
            prediction = predictor.predict(window)
        except BundleRefused as error:
            if isinstance(error, NotFinite):
                self.summaries.add_non_finite(state.snapshot.revision, coin, self._clock())
            return replace(self._neutral(coin, state), reason=f"no model: {error}")
        self.summaries.add(state.snapshot.revision, coin, prediction, self._clock())
        return self._decided(coin, state, state.snapshot, prediction, predictor.digest)

    def _expect_known(self, coin: str, state: State) -> None:
        known = self._coins or state.predictors.keys()
        if known and coin not in known:
            raise UnknownCoin(f"{coin!r} is not one of {', '.join(sorted(known))}")

    def _decided(
        self, coin: str, state: State, snapshot: Snapshot, prediction: Prediction, bundle: str
    ) -> Decision:
        stale_since = state.stale_since(self._clock(), self._fresh_for)
        return Decision(
            coin=coin,
            direction=prediction.direction,
            probabilities=MappingProxyType(prediction.probabilities),
            line=snapshot.line,
            release=snapshot.release,
            revision=snapshot.revision,
            stale_since=stale_since,
            reason=why_stale(stale_since, state.trouble),
            at=prediction.at,
            is_simulated=snapshot.is_simulated,
            bundle=bundle,
        )

    def _neutral(self, coin: str, state: State) -> Decision:
        stale_since = state.stale_since(self._clock(), self._fresh_for)
        return Decision(
            coin=coin,
            direction=NEUTRAL,
            probabilities=MappingProxyType({}),
            line=None,
            release=None,
            revision=state.snapshot.revision if state.snapshot else None,
            stale_since=stale_since,
            reason=why_neutral(state.snapshot, stale_since, state.trouble),
        )
