"""The bot's side: follow the pointer, keep the last good set, decide from it. All coins change together or none does."""

import logging
import random
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import BinaryIO

import polars as pl

from mlcore.candles import check
from mlcore.errors import BundleRefused
from mlcore.predictor import Prediction, Predictor
from runtime.cache import Cache
from runtime.decision import NEUTRAL, Active, Decision, why_neutral, why_stale
from runtime.envelope import PublicKeys, Signed, verify
from runtime.errors import (
    AnswerExpired,
    CacheFailed,
    ClientError,
    EpochRefused,
    FileRefused,
    Refused,
    SetRefused,
    SnapshotRefused,
    UnknownCoin,
)
from runtime.loading import Verify, load
from runtime.notes import Kept, Mark
from runtime.service import Answer, Service
from runtime.snapshot import Model, Snapshot

logger = logging.getLogger(__name__)

NOTE_EVERY = timedelta(seconds=60)
"""How often an unchanged pointer's confirmation is written down; a restart may look that much staler than it is."""


@dataclass(frozen=True, slots=True)
class _State:
    """All that a decision depends on, replaced as a whole. `was_missed`: the last question was not confirmed."""

    kept: Kept | None = None
    predictors: Mapping[str, Predictor] = field(default_factory=lambda: MappingProxyType({}))
    was_missed: bool = False
    problem: ClientError | None = None

    @property
    def snapshot(self) -> Snapshot | None:
        return self.kept.snapshot if self.kept else None


def _now() -> datetime:
    return datetime.now(UTC)


class Client:
    """Follows one service for one bot; safe to use from several threads, decisions never wait for the network.

    It starts from what `cache_dir` holds, without asking anybody; `refresh` or `watch` ask the service.

    `public_key` is what `manage.py keys export` prints: 64 hex digits, or two such texts (with a comma between them, or as
    a list) while the service changes its key. Nothing is followed that none of them signed, from the network or the disk.
    `coins` are those the bot trades: a release without one of them is refused. `timeout_s` bounds each wait for the
    network. After `fresh_for_s` seconds without an answer a decision says *stale since*.

    Raises Misconfigured (address, token or key) and CacheFailed (the folder cannot be made); no other method raises for a
    reason of network, service or disk.
    """

    def __init__(
        self,
        url: str,
        token: str,
        public_key: str | Iterable[str],
        cache_dir: str | Path,
        *,
        coins: Collection[str] | None = None,
        timeout_s: float = 10.0,
        fresh_for_s: float = 60.0,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._keys = PublicKeys(public_key)
        self._service = Service(url, token, timeout_s=timeout_s)
        self._cache = Cache(Path(cache_dir), str(self._service.url), self._keys)
        self._coins = frozenset(coins or ())
        self._timeout_s = timeout_s
        self._fresh_for = timedelta(seconds=fresh_for_s)
        self._clock = clock
        self._noted_at: datetime | None = None
        self._logged = ""
        self._refreshing = threading.Lock()
        self._state = self._from_disk()
        self._log_problem()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back connections and the lock file; decisions go on from memory."""
        with self._refreshing:
            self._service.close()
            self._cache.close()

    @property
    def active(self) -> Active:
        """What this client runs at this moment; asks nobody."""
        state = self._state
        snapshot = state.snapshot
        if snapshot is None:
            return Active(problem=state.problem)
        return Active(
            service=snapshot.service,
            epoch=snapshot.epoch,
            line=snapshot.line,
            release=snapshot.release,
            coins=tuple(state.predictors),
            is_simulated=snapshot.is_simulated,
            moved_at=snapshot.moved_at,
            reason=snapshot.reason,
            stale_since=self._stale_since(state),
            problem=state.problem,
        )

    def predict(self, coin: str, candles: pl.DataFrame) -> Decision:
        """Decide for one coin from its candles, the oldest bar first (`mlcore.candles`; 2,048 bars or more).

        Neutral, with the reason, where there is no model or where it answers what is not finite. Raises UnknownCoin,
        and what `mlcore` refuses in the candles: CandlesRefused, NotEnoughBars, FeaturesRefused.
        """
        state = self._state  # read once: the set may be replaced while this decision is made
        self._expect_known(coin, state)
        predictor = state.predictors.get(coin)
        if predictor is None:
            return self._neutral(coin, state)
        window = check(candles.tail(predictor.schema.lookback), f"the candles of {coin}")
        try:
            prediction = predictor.predict(window)
        except BundleRefused as error:
            return replace(self._neutral(coin, state), reason=f"no model: {error}")
        return self._decided(coin, state, prediction)

    def refresh(self) -> Active:
        """Ask the service once, and follow it where that is safe; what is not comes back as `problem`.

        A new set is downloaded, verified and loaded whole before it replaces the old one in a single assignment.
        """
        with self._refreshing:
            try:
                self._ask()
            except ClientError as problem:
                self._state = replace(self._state, problem=problem, was_missed=True)
            self._log_problem()
            return self.active

    def watch(
        self,
        on_change: Callable[[Active], None],
        *,
        every_s: float = 5.0,
        stop: threading.Event | None = None,
    ) -> None:
        """Refresh every `every_s` seconds (give or take a tenth, so that bots spread out) until `stop` is set.

        `on_change` hears where things stand first, and then whenever set or problem differ. A bot runs this in a thread.
        """
        stop = stop or threading.Event()
        told: tuple[object, ...] | None = None
        while not stop.is_set():
            active = self.refresh()
            news = (active.service, active.epoch, active.release, active.coins, str(active.problem or ""))
            if news != told:
                told = news
                on_change(active)
            stop.wait(every_s * random.uniform(0.9, 1.1))

    def _ask(self) -> None:
        kept = self._state.kept
        answer = self._service.active(kept.etag if kept else None)
        if answer is not None and (kept is None or answer.body != kept.body):
            self._hear(answer, verify(answer.body, self._keys))
        elif kept is not None:
            self._confirm(kept)

    def _hear(self, answer: Answer, signed: Signed) -> None:
        """Go on with a verified answer: the same release signed anew, or another one."""
        kept = self._state.kept
        if kept is not None and signed.snapshot.content == kept.snapshot.content:
            self._confirm(replace(kept, body=answer.body, signed=signed, etag=answer.etag))
            return
        with self._cache.exclusive(self._timeout_s):
            self._follow(answer, signed)
        self._expect_vouched_for(signed)

    def _follow(self, answer: Answer, signed: Signed) -> None:
        snapshot = signed.snapshot
        self._expect_no_step_back(snapshot)
        self._expect_coins(snapshot)
        wanted = snapshot.models.values()
        # Before the download: a disk full of what crashes and refusals left has room again.
        self._cache.prune(wanted)
        predictors = load(snapshot, self._bring)
        kept = Kept(answer.body, signed, answer.etag, self._confirmed_at(signed))
        self._state = _State(kept, predictors)
        # After the flip: a full disk must not hold a bot on a model that the pointer has left.
        self._note(kept)
        self._cache.prune(wanted)

    def _confirm(self, kept: Kept) -> None:
        seen = self._cache.notes.mark(kept.snapshot.service)
        if seen is not None and seen.epoch > kept.snapshot.epoch:
            raise EpochRefused(
                f"the service confirms epoch {kept.snapshot.epoch}, but epoch {seen.epoch} was seen already"
            )
        kept = replace(kept, confirmed_at=self._confirmed_at(kept.signed))
        self._state = replace(self._state, kept=kept, was_missed=False, problem=None)
        if self._noted_at is None or kept.confirmed_at - self._noted_at > NOTE_EVERY:
            with self._cache.exclusive(self._timeout_s):
                self._note(kept)
        self._expect_vouched_for(kept.signed)

    def _confirmed_at(self, signed: Signed) -> datetime:
        # An answer that is kept somewhere and repeated confirms nothing beyond what was signed.
        return min(self._clock(), signed.expires_at)

    def _expect_vouched_for(self, signed: Signed) -> None:
        """Raise AnswerExpired where what is in use was signed too long ago; it stays in use."""
        if signed.is_expired(self._clock()):
            raise AnswerExpired(
                f"the answer was signed at {signed.issued_at:%Y-%m-%d %H:%M:%S}Z and held until"
                f" {signed.expires_at:%H:%M:%S}Z: the service, or something before it, repeats an old one, or this machine's"
                " clock is ahead"
            )

    def _note(self, kept: Kept) -> None:
        """Write down what is in use; where the disk refuses it stays in use all the same, and the problem is told."""
        self._noted_at = None
        try:
            self._cache.notes.keep(kept)
            self._noted_at = kept.confirmed_at
        except CacheFailed as error:
            what = f"epoch {kept.snapshot.epoch} is in use but not kept for a restart"
            self._state = replace(self._state, problem=CacheFailed(f"{what}: {error}"))

    def _log_problem(self) -> None:
        problem = str(self._state.problem or "")
        if problem and problem != self._logged:  # once, not at every poll
            in_use = self._state.snapshot
            logger.warning("%s; in use: %s", problem, f"epoch {in_use.epoch}" if in_use else "no model")
        self._logged = problem

    def _expect_no_step_back(self, snapshot: Snapshot) -> None:
        seen = self._cache.notes.mark(snapshot.service)
        if seen is not None and snapshot.epoch < seen.epoch:
            raise EpochRefused(
                f"the service says epoch {snapshot.epoch}, but epoch {seen.epoch} was seen already: an old answer, or a "
                "service restored from a backup, which must move its pointer past that epoch"
            )
        if seen is not None and snapshot.epoch == seen.epoch and snapshot.content != seen.content:
            raise EpochRefused(
                f"epoch {snapshot.epoch} was seen already, with another release or other files"
            )
        if seen is None or snapshot.epoch > seen.epoch:
            self._cache.notes.raise_mark(snapshot.service, Mark(snapshot.epoch, snapshot.content))

    def _expect_coins(self, snapshot: Snapshot) -> None:
        missing = sorted(self._coins - snapshot.models.keys())
        if missing and not snapshot.is_offline:
            raise SnapshotRefused(
                f"release {snapshot.release} lacks {', '.join(missing)}, which this bot trades"
            )

    def _expect_known(self, coin: str, state: _State) -> None:
        known = self._coins or state.predictors.keys()
        if known and coin not in known:
            raise UnknownCoin(f"{coin!r} is not one of {', '.join(sorted(known))}")

    def _from_disk(self) -> _State:
        try:
            kept = self._cache.notes.current()
            if kept is None:
                return _State()
            self._expect_coins(kept.snapshot)
            return _State(kept, load(kept.snapshot, self._at_hand))
        except (CacheFailed, Refused) as error:
            return _State(problem=CacheFailed(f"the set on disk cannot be used: {error}"))

    def _at_hand(self, model: Model, verify: Verify) -> Path:
        folder = self._cache.bundle(model)
        verify(folder)
        return folder

    def _bring(self, model: Model, verify: Verify) -> Path:
        """The bundle's folder, downloaded where it is not at hand or not what it should be."""
        if self._cache.holds(model):
            try:
                return self._at_hand(model, verify)
            except SetRefused as error:
                logger.warning("downloading again what lies damaged in the cache: %s", error)
        return self._cache.admit(model, partial(self._fetch, model), verify)

    def _fetch(self, model: Model, name: str, target: BinaryIO) -> None:
        try:
            self._service.download(model.files[name], target)
        except FileRefused as error:
            raise FileRefused(f"{model.coin}: {name}: {error}") from error

    def _stale_since(self, state: _State) -> datetime | None:
        if state.kept is None:
            return None
        confirmed_at = state.kept.confirmed_at
        # Either way: a clock set back must not make an old answer look new for hours.
        is_old = abs(self._clock() - confirmed_at) > self._fresh_for
        return confirmed_at if state.was_missed or is_old else None

    def _decided(self, coin: str, state: _State, prediction: Prediction) -> Decision:
        snapshot, stale_since = state.snapshot, self._stale_since(state)
        assert snapshot is not None, "predictors come with the snapshot that named them"
        return Decision(
            coin=coin,
            direction=prediction.direction,
            probabilities=MappingProxyType(prediction.probabilities),
            line=snapshot.line,
            release=snapshot.release,
            epoch=snapshot.epoch,
            stale_since=stale_since,
            reason=why_stale(stale_since, state.problem),
            at=prediction.at,
            is_simulated=snapshot.is_simulated,
        )

    def _neutral(self, coin: str, state: _State) -> Decision:
        stale_since = self._stale_since(state)
        return Decision(
            coin=coin,
            direction=NEUTRAL,
            probabilities=MappingProxyType({}),
            line=None,
            release=None,
            epoch=state.snapshot.epoch if state.snapshot else None,
            stale_since=stale_since,
            reason=why_neutral(state.snapshot, stale_since, state.problem),
        )
