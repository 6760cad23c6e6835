"""The bot's judgement, without a network: what may be followed, what is in use, what is left to fetch and to write down.

Both ways of hearing, streamed or asked for, and both clients, threaded or asyncio, end in `Follower.hear`. It takes a
fraction of a millisecond and waits for nobody: a set that is loaded already replaces the one in use in a single assignment,
and everything slow is left to `run_errands`, which runs beside.
"""

import logging
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import polars as pl

from mlcore.candles import check
from mlcore.errors import BundleRefused, NotFinite
from mlcore.predictor import Prediction
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
    Superseded,
    UnknownCoin,
)
from runtime.loading import Named, Predictors, Verify, load
from runtime.notes import Kept, Mark
from runtime.service import Answer, Target
from runtime.snapshot import File, Model, Snapshot
from runtime.summary import Summaries
from runtime.version import VERSION

logger = logging.getLogger(__name__)

NOTE_EVERY = timedelta(seconds=60)
"""How often an unchanged pointer's confirmation is written down; a restart may look that much staler than it is."""

MAX_ERROR_LETTERS = 1000

Fetch = Callable[[File, Target], None]
NO_PREDICTORS: Predictors = MappingProxyType({})

verify_once = lru_cache(maxsize=4)(verify)
"""Clients of one process that share one PublicKeys verify the same bytes once."""


@dataclass(frozen=True, slots=True)
class State:
    """All that a decision depends on, replaced as a whole. `was_missed`: the last question was not confirmed.

    `unkept` says why what is in use could not be written down.
    """

    kept: Kept | None = None
    predictors: Predictors = field(default_factory=lambda: NO_PREDICTORS)
    was_missed: bool = False
    problem: ClientError | None = None
    unkept: ClientError | None = None

    @property
    def snapshot(self) -> Snapshot | None:
        return self.kept.snapshot if self.kept else None

    @property
    def trouble(self) -> ClientError | None:
        return self.problem or self.unkept


class Follower:
    """What one bot knows of one service, over one cache folder. Safe to use from several threads.

    `fetch` downloads one file. `coins` are those the bot trades; without an answer for `fresh_for` it is stale; `timeout_s`
    bounds each wait for the folder's lock.
    """

    def __init__(
        self,
        cache: Cache,
        keys: PublicKeys,
        fetch: Fetch,
        *,
        coins: Collection[str] | None,
        timeout_s: float,
        fresh_for: timedelta,
        clock: Callable[[], datetime],
    ) -> None:
        self._cache, self._keys, self._fetch = cache, keys, fetch
        self._coins = frozenset(coins or ())
        self._timeout_s, self._fresh_for, self._clock = timeout_s, fresh_for, clock
        self.summaries = Summaries()
        self._replacing = threading.Lock()  # held for a moment, by whoever replaces the state
        self._on_errands = threading.Lock()  # held by whoever downloads, loads or writes
        self._wanted: Kept | None = None  # heard of, and not in use until its set is at hand
        self._sets: dict[str, Predictors] = {}  # of the releases in use, before it and announced
        self._before = ""
        self._is_closing = False
        self._ready_for: int | None = None
        self._unready: ClientError | None = None
        self._noted: Kept | None = None
        self._logged = ""
        self._state = self._from_disk()
        self._log_trouble()

    @property
    def active(self) -> Active:
        """What this bot runs at this moment."""
        state = self._state
        snapshot = state.snapshot
        if snapshot is None:
            return Active(problem=state.trouble)
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
            problem=state.trouble,
        )

    @property
    def etag(self) -> str | None:
        """What to ask with, so that an unchanged pointer costs a short answer."""
        kept = self._state.kept
        return kept.etag if kept else None

    @property
    def ready_for(self) -> int | None:
        """The announced release, once it is fetched, verified, loaded and warm."""
        following = self._following()
        return self._ready_for if following is not None and following.release == self._ready_for else None

    @property
    def is_waiting(self) -> bool:
        """Whether the pointer names a set that is not at hand yet."""
        return self._wanted is not None

    @property
    def has_errands(self) -> bool:
        """Whether `run_errands` would find something to do."""
        return self.is_waiting or self._is_unnoted() or self._announces_news()

    def decide(self, coin: str, candles: pl.DataFrame) -> Decision:
        """Decide for one coin; as `Client.predict`."""
        state = self._state  # read once: the set may be replaced while this decision is made
        self._expect_known(coin, state)
        predictor = state.predictors.get(coin)
        if predictor is None or state.snapshot is None:
            return self._neutral(coin, state)
        window = check(candles.tail(predictor.schema.lookback), f"the candles of {coin}")
        try:
            prediction = predictor.predict(window)
        except BundleRefused as error:
            if isinstance(error, NotFinite):
                self.summaries.add_non_finite(state.snapshot.epoch, coin, self._clock())
            return replace(self._neutral(coin, state), reason=f"no model: {error}")
        self.summaries.add(state.snapshot.epoch, coin, prediction, self._clock())
        return self._decided(coin, state, state.snapshot, prediction, predictor.digest)

    def hear(self, answer: Answer) -> None:
        """Take what the service says, if it is signed and newer; waits for neither network nor locks of others.

        Raises Refused where it must not be followed, AnswerExpired where it is in use but was signed too long ago.
        """
        signed = verify_once(answer.body, self._keys)
        with self._replacing:
            kept = self._state.kept
            if kept is not None and signed.snapshot.content == kept.snapshot.content:
                etag = answer.etag or (kept.etag if answer.body == kept.body else None)
                self._confirm(replace(kept, body=answer.body, signed=signed, etag=etag))
            else:
                self._take(Kept(answer.body, signed, answer.etag, self._confirmed_at(signed)))
        self._log_trouble()
        self._expect_vouched_for(signed)

    def hear_unchanged(self, etag: str | None) -> None:
        """Take the answer that nothing differs from what had this ETag. Raises as `hear`."""
        with self._replacing:
            kept = self._state.kept
            if kept is None or kept.etag != etag:
                return  # it went on while the answer was on its way
            self._confirm(kept)
        self._log_trouble()
        self._expect_vouched_for(kept.signed)

    def miss(self, problem: ClientError) -> None:
        """Remember why the service was not heard, or not followed."""
        with self._replacing:
            self._state = replace(self._state, problem=problem, was_missed=True)
        self._log_trouble()

    def run_errands(self) -> None:
        """Write down what is in use, bring what the pointer names, then what is announced. Waits for disk and network.

        Raises ClientError where what the pointer names cannot be had; the rest is only told (`report`), and tried again
        with the next call.
        """
        with self._on_errands:
            self._settle()
            if (wanted := self._wanted) is not None:
                self._bring(wanted)
                self._settle()
            self._prepare()

    def close(self) -> None:
        """Give up downloads, and give the folder back; decisions go on from memory."""
        self._is_closing = True
        with self._on_errands:
            self._cache.close()

    def report(self, instance: str) -> dict[str, Any]:
        """The heartbeat: what this bot runs at this moment."""
        state = self._state
        snapshot, stale_since = state.snapshot, self._stale_since(state)
        trouble = state.trouble or self._unready
        return {
            "instance": instance,
            "client_version": VERSION,
            "service": snapshot.service if snapshot else None,
            "epoch": snapshot.epoch if snapshot else None,
            "line": snapshot.line if snapshot else None,
            "release": snapshot.release if snapshot else None,
            "bundles": {coin: model.bundle for coin, model in snapshot.models.items()} if snapshot else {},
            "ready_for": self.ready_for,
            "last_error": str(trouble)[:MAX_ERROR_LETTERS] if trouble else None,
            "stale_since": stale_since.isoformat() if stale_since else None,
        }

    def windows(self, instance: str) -> list[dict[str, Any]]:
        """What its predictions looked like, where that is due; each is given out once."""
        return [window.document(instance) for window in self.summaries.take(self._clock())]

    def _take(self, heard: Kept) -> None:
        self._expect_no_step_back(heard.snapshot)
        self._expect_coins(heard.snapshot)
        predictors = self._at_hand(heard.snapshot)
        if predictors is None:
            self._wanted = heard
        else:
            self._flip(heard, predictors)

    def _at_hand(self, named: Named) -> Predictors | None:
        return self._sets.get(named.set_digest) if named.models else NO_PREDICTORS

    def _flip(self, heard: Kept, predictors: Predictors) -> None:
        before = self._state
        self._state = State(heard, predictors)
        self._wanted, self._unready, self._ready_for = None, None, None
        # A rollback must find the set that it goes back to.
        self._before = before.snapshot.set_digest if before.snapshot else ""
        self._hold(heard.snapshot, predictors)

    def _hold(self, named: Named, predictors: Predictors) -> None:
        """Keep this set loaded, and besides it only those of the release in use, before it and announced."""
        held = {self._before, *(one.set_digest for one in (self._state.snapshot, self._following()) if one)}
        sets = self._sets | {named.set_digest: predictors}
        self._sets = {digest: loaded for digest, loaded in sets.items() if digest in held}

    def _confirm(self, kept: Kept) -> None:
        seen = self._cache.notes.mark(kept.snapshot.service)
        if seen is not None and seen.epoch > kept.snapshot.epoch:
            raise EpochRefused(
                f"the service confirms epoch {kept.snapshot.epoch}, but epoch {seen.epoch} was seen already"
            )
        kept = replace(kept, confirmed_at=self._confirmed_at(kept.signed))
        self._state = replace(self._state, kept=kept, was_missed=False, problem=None)
        self._wanted = None

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

    def _bring(self, wanted: Kept) -> None:
        """Have the set that the pointer names at hand, and then in use, unless it meanwhile names another."""
        digest = wanted.snapshot.set_digest

        def is_wanted() -> bool:
            now = self._wanted
            return not self._is_closing and now is not None and now.snapshot.set_digest == digest

        try:
            predictors = self._loaded(wanted.snapshot, is_wanted)
        except Superseded:
            return
        with self._replacing:
            if self._wanted is not None and is_wanted():
                self._flip(self._wanted, predictors)

    def _prepare(self) -> None:
        """Have at hand what awaits approval, so that the move will cost no download."""
        following = self._following()
        if following is None or not self._announces_news():
            return

        def is_wanted() -> bool:
            now = self._following()
            is_announced = now is not None and now.set_digest == following.set_digest
            return is_announced and not (self.is_waiting or self._is_unnoted() or self._is_closing)

        try:
            self._expect_coins(following)
            predictors = self._at_hand(following) or self._loaded(following, is_wanted)
        except Superseded:
            return
        except ClientError as error:
            problem = f"release {following.release} cannot be fetched ahead: {error}"
            if problem != str(self._unready or ""):
                logger.warning("%s", problem)
            self._unready = type(error)(problem)
            return
        with self._replacing:
            if is_wanted():
                self._hold(following, predictors)
                self._ready_for, self._unready = following.release, None

    def _following(self) -> Named | None:
        kept = self._state.kept
        return kept.signed.next if kept else None

    def _announces_news(self) -> bool:
        following = self._following()
        return following is not None and following.release != self._ready_for

    def _loaded(self, named: Named, is_wanted: Callable[[], bool]) -> Predictors:
        with self._cache.exclusive(self._timeout_s):
            self._cache.notes.write_marks()
            # Before the download: a disk full of what crashes and refusals left has room again.
            self._cache.prune(named.models.values())
            return load(named, partial(self._bundle, is_wanted))

    def _bundle(self, is_wanted: Callable[[], bool], model: Model, verify: Verify) -> Path:
        """The bundle's folder, downloaded where it is not at hand or not what it should be."""
        if self._cache.holds(model):
            try:
                return self._on_disk(model, verify)
            except SetRefused as error:
                logger.warning("downloading again what lies damaged in the cache: %s", error)
        return self._cache.admit(model, partial(self._download, is_wanted, model), verify)

    def _on_disk(self, model: Model, verify: Verify) -> Path:
        folder = self._cache.bundle(model)
        verify(folder)
        return folder

    def _download(self, is_wanted: Callable[[], bool], model: Model, name: str, target: BinaryIO) -> None:
        try:
            self._fetch(model.files[name], _Interruptible(target, is_wanted))
        except FileRefused as error:
            raise FileRefused(f"{model.coin}: {name}: {error}") from error

    def _is_unnoted(self) -> bool:
        kept, noted = self._state.kept, self._noted
        if kept is None or noted is kept:
            return False
        # Of one service, an epoch never means two things (_expect_no_step_back).
        if noted is None or _place(noted.snapshot) != _place(kept.snapshot):
            return True
        return kept.confirmed_at - noted.confirmed_at > NOTE_EVERY

    def _settle(self) -> None:
        """Write down what is in use; where the disk refuses it stays in use all the same, and the problem is told.

        After the flip: a full disk must not hold a bot on a model that the pointer has left.
        """
        kept = self._state.kept
        if kept is None or not self._is_unnoted():
            return
        following, unkept = kept.signed.next, None
        try:
            with self._cache.exclusive(self._timeout_s):
                self._cache.notes.write_marks()
                self._expect_on_disk(kept.snapshot)
                self._cache.notes.keep(kept)
                self._noted = kept
                self._cache.prune(following.models.values() if following else ())
        except ClientError as error:
            self._noted = None
            unkept = CacheFailed(f"epoch {kept.snapshot.epoch} is in use but not kept for a restart: {error}")
        with self._replacing:
            self._state = replace(self._state, unkept=unkept)
        self._log_trouble()

    def _expect_on_disk(self, snapshot: Snapshot) -> None:
        """A set that was at hand in memory may have gone from a folder that several clients share: fetch it again."""
        if not all(self._cache.holds(model) for model in snapshot.models.values()):
            load(snapshot, partial(self._bundle, lambda: not self._is_closing))

    def _log_trouble(self) -> None:
        trouble = str(self._state.trouble or "")
        if trouble and trouble != self._logged:  # once, not at every answer
            in_use = self._state.snapshot
            logger.warning("%s; in use: %s", trouble, f"epoch {in_use.epoch}" if in_use else "no model")
        self._logged = trouble

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

    def _expect_coins(self, named: Named) -> None:
        missing = sorted(self._coins - named.models.keys())
        if missing and named.release is not None:
            raise SnapshotRefused(
                f"release {named.release} lacks {', '.join(missing)}, which this bot trades"
            )

    def _expect_known(self, coin: str, state: State) -> None:
        known = self._coins or state.predictors.keys()
        if known and coin not in known:
            raise UnknownCoin(f"{coin!r} is not one of {', '.join(sorted(known))}")

    def _from_disk(self) -> State:
        try:
            kept = self._cache.notes.current()
            if kept is None:
                return State()
            self._expect_coins(kept.snapshot)
            predictors = load(kept.snapshot, self._on_disk)
        except (CacheFailed, Refused) as error:
            return State(problem=CacheFailed(f"the set on disk cannot be used: {error}"))
        self._noted = kept
        self._sets = {kept.snapshot.set_digest: predictors}
        return State(kept, predictors)

    def _stale_since(self, state: State) -> datetime | None:
        if state.kept is None:
            return None
        confirmed_at = state.kept.confirmed_at
        # Either way: a clock set back must not make an old answer look new for hours.
        is_old = abs(self._clock() - confirmed_at) > self._fresh_for
        return confirmed_at if state.was_missed or is_old else None

    def _decided(
        self, coin: str, state: State, snapshot: Snapshot, prediction: Prediction, bundle: str
    ) -> Decision:
        stale_since = self._stale_since(state)
        return Decision(
            coin=coin,
            direction=prediction.direction,
            probabilities=MappingProxyType(prediction.probabilities),
            line=snapshot.line,
            release=snapshot.release,
            epoch=snapshot.epoch,
            stale_since=stale_since,
            reason=why_stale(stale_since, state.trouble),
            at=prediction.at,
            is_simulated=snapshot.is_simulated,
            bundle=bundle,
        )

    def _neutral(self, coin: str, state: State) -> Decision:
        stale_since = self._stale_since(state)
        return Decision(
            coin=coin,
            direction=NEUTRAL,
            probabilities=MappingProxyType({}),
            line=None,
            release=None,
            epoch=state.snapshot.epoch if state.snapshot else None,
            stale_since=stale_since,
            reason=why_neutral(state.snapshot, stale_since, state.trouble),
        )


def _place(snapshot: Snapshot) -> tuple[str, int]:
    return snapshot.service, snapshot.epoch


class _Interruptible:
    """A file that a download writes to for as long as it is wanted."""

    def __init__(self, file: BinaryIO, is_wanted: Callable[[], bool]) -> None:
        self._file, self._is_wanted = file, is_wanted

    def write(self, chunk: bytes, /) -> object:
        if not self._is_wanted():
            raise Superseded("the pointer meanwhile names something else")
        return self._file.write(chunk)
