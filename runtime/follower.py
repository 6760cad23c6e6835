"""The bot's judgement, without a network: what may be followed, what is in use, what is left to fetch and to write down.

Both ways of hearing, streamed or asked for, and both clients, threaded or asyncio, end in `Follower.hear`. It takes a
fraction of a millisecond and waits for nobody: a set that is loaded already replaces the one in use in a single assignment,
and everything slow is left to `run_errands`, which runs beside.
"""

import logging
import threading
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import polars as pl

from runtime.deciding import Decider
from runtime.decision import Active, Decision
from runtime.errors import (
    AnswerExpired,
    CacheFailed,
    ClientError,
    Refused,
    RevisionRefused,
    SnapshotRefused,
    Superseded,
)
from runtime.fetching import Fetch, Fetcher
from runtime.heartbeat import heartbeat
from runtime.loading import Predictors
from runtime.protocol.envelope import PublicKeys, Signed, verify
from runtime.protocol.service import Answer
from runtime.protocol.snapshot import Announced, Named, Snapshot
from runtime.state import NO_PREDICTORS, State
from runtime.storage.cache import Cache
from runtime.storage.notes import Kept, Mark

logger = logging.getLogger(__name__)

NOTE_EVERY = timedelta(seconds=60)
"""How often an unchanged pointer's confirmation is written down; a restart may look that much staler than it is."""

verify_once = lru_cache(maxsize=4)(verify)
"""Clients of one process that share one PublicKeys verify the same bytes once."""


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
        self._cache, self._keys = cache, keys
        self._coins = frozenset(coins or ())
        self._timeout_s, self._fresh_for, self._clock = timeout_s, fresh_for, clock
        self._fetcher = Fetcher(cache, fetch, timeout_s=timeout_s)
        self._decider = Decider(coins=self._coins, fresh_for=fresh_for, clock=clock)
        self._replacing = threading.Lock()  # held for a moment, by whoever replaces the state
        self._on_errands = threading.Lock()  # held by whoever downloads, loads or writes
        self._wanted: Kept | None = None  # heard of, and not in use until its set is at hand
        self._sets: dict[str, Predictors] = {}  # of the releases in use, before it and announced
        self._before = ""
        self._is_closing = False
        self._unready = ""  # why something announced cannot be had
        self._noted: Kept | None = None
        self._logged = ""
        self._state = self._from_disk()
        self._log_trouble()

    @property
    def active(self) -> Active:
        """What this bot runs at this moment."""
        state = self._state
        return state.active(self._stale_since(state))

    @property
    def etag(self) -> str | None:
        """What to ask with, so that an unchanged pointer costs a short answer."""
        kept = self._state.kept
        return kept.etag if kept else None

    @property
    def ready_for(self) -> int | None:
        """The release that awaits approval, once it is fetched, verified, loaded and warm."""
        kept = self._state.kept
        return self._number_at_hand(kept.signed.next if kept else None)

    @property
    def holds_fallback(self) -> int | None:
        """The fallback's release, once it is fetched, verified, loaded and warm."""
        kept = self._state.kept
        return self._number_at_hand(kept.signed.fallback if kept else None)

    @property
    def is_waiting(self) -> bool:
        """Whether the pointer names a set that is not at hand yet."""
        return self._wanted is not None

    @property
    def has_errands(self) -> bool:
        """Whether `run_errands` would find something to do."""
        return self.is_waiting or self._is_unnoted() or bool(self._lacking())

    def decide(self, coin: str, candles: pl.DataFrame) -> Decision:
        """Decide for one coin; as `Client.predict`."""
        # The state is read once: the set may be replaced while this decision is made.
        return self._decider.decide(coin, candles, self._state)

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
        return heartbeat(
            instance,
            state,
            stale_since=self._stale_since(state),
            ready_for=self.ready_for,
            holds_fallback=self.holds_fallback,
            trouble=str(state.trouble or (self._unready if self._lacking() else "")),
        )

    def windows(self, instance: str) -> list[dict[str, Any]]:
        """What its predictions looked like, where that is due; each is given out once."""
        return [window.document(instance) for window in self._decider.summaries.take(self._clock())]

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
        self._wanted = None
        # A rollback must find the set that it goes back to.
        self._before = before.snapshot.set_digest if before.snapshot else ""
        self._hold(heard.snapshot, predictors)

    def _hold(self, named: Named, predictors: Predictors) -> None:
        """Keep this set loaded, and besides it only those of the releases in use, before it and announced."""
        held = {self._before, *(one.set_digest for one in self._announced())}
        held |= {self._state.snapshot.set_digest} if self._state.snapshot else set()
        sets = self._sets | {named.set_digest: predictors}
        self._sets = {digest: loaded for digest, loaded in sets.items() if digest in held}

    def _confirm(self, kept: Kept) -> None:
        seen = self._cache.notes.mark(kept.snapshot.service)
        if seen is not None and seen.revision > kept.snapshot.revision:
            raise RevisionRefused(
                f"the service confirms revision {kept.snapshot.revision}, but revision {seen.revision} was seen already"
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
            predictors = self._fetcher.bring(wanted.snapshot, is_wanted)
        except Superseded:
            return
        with self._replacing:
            if self._wanted is not None and is_wanted():
                self._flip(self._wanted, predictors)

    def _prepare(self) -> None:
        """Have at hand what a move may name next, so that it will cost no download."""
        problems = [str(problem) for one in self._lacking() if (problem := self._fetch_ahead(one))]
        unready = "; ".join(problems)
        if unready and unready != self._unready:
            logger.warning("%s", unready)
        self._unready = unready

    def _fetch_ahead(self, announced: Announced) -> ClientError | None:
        """Fetch and load it while that is wanted and nothing is more urgent; why it cannot be had, where it cannot."""

        def is_wanted() -> bool:
            is_announced = announced.set_digest in {one.set_digest for one in self._announced()}
            return is_announced and not (self.is_waiting or self._has_unnoted_move() or self._is_closing)

        try:
            self._expect_coins(announced)
            predictors = self._fetcher.bring(announced, is_wanted)
        except Superseded:
            return None
        except ClientError as error:
            return type(error)(f"release {announced.release} cannot be fetched ahead: {error}")
        with self._replacing:
            if is_wanted():
                self._hold(announced, predictors)
        return None

    def _announced(self) -> tuple[Announced, ...]:
        kept = self._state.kept
        return kept.signed.announced if kept else ()

    def _lacking(self) -> list[Announced]:
        """What is announced and not at hand yet, the more urgent first."""
        return [one for one in self._announced() if one.set_digest not in self._sets]

    def _number_at_hand(self, announced: Announced | None) -> int | None:
        return announced.release if announced and announced.set_digest in self._sets else None

    def _is_unnoted(self) -> bool:
        kept, noted = self._state.kept, self._noted
        if kept is None or noted is kept:
            return False
        if noted is None or self._has_unnoted_move() or _ahead(noted) != _ahead(kept):
            return True
        return kept.confirmed_at - noted.confirmed_at > NOTE_EVERY

    def _has_unnoted_move(self) -> bool:
        """Whether a restart would begin with another revision: more urgent than what is only announced."""
        kept, noted = self._state.kept, self._noted
        return kept is not None and (noted is None or _place(noted.snapshot) != _place(kept.snapshot))

    def _settle(self) -> None:
        """Write down what is in use; where the disk refuses it stays in use all the same, and the problem is told.

        After the flip: a full disk must not hold a bot on a model that the pointer has left.
        """
        kept = self._state.kept
        if kept is None or not self._is_unnoted():
            return
        unkept = None
        try:
            with self._cache.exclusive(self._timeout_s):
                self._cache.notes.write_marks()
                self._fetcher.complete(kept.snapshot, lambda: not self._is_closing)
                self._cache.notes.keep(kept)
                self._noted = kept
                self._cache.prune(())
        except ClientError as error:
            self._noted = None
            unkept = CacheFailed(
                f"revision {kept.snapshot.revision} is in use but not kept for a restart: {error}"
            )
        with self._replacing:
            self._state = replace(self._state, unkept=unkept)
        self._log_trouble()

    def _log_trouble(self) -> None:
        trouble = str(self._state.trouble or "")
        if trouble and trouble != self._logged:  # once, not at every answer
            in_use = self._state.snapshot
            logger.warning("%s; in use: %s", trouble, f"revision {in_use.revision}" if in_use else "no model")
        self._logged = trouble

    def _expect_no_step_back(self, snapshot: Snapshot) -> None:
        seen = self._cache.notes.mark(snapshot.service)
        if seen is not None and snapshot.revision < seen.revision:
            raise RevisionRefused(
                f"the service says revision {snapshot.revision}, but revision {seen.revision} was seen already: an old "
                "answer, or a service restored from a backup, which must move its pointer past that revision"
            )
        if seen is not None and snapshot.revision == seen.revision and snapshot.content != seen.content:
            raise RevisionRefused(
                f"revision {snapshot.revision} was seen already, with another release or other files"
            )
        if seen is None or snapshot.revision > seen.revision:
            self._cache.notes.raise_mark(snapshot.service, Mark(snapshot.revision, snapshot.content))

    def _expect_coins(self, named: Named) -> None:
        missing = sorted(self._coins - named.models.keys())
        if missing and named.release is not None:
            raise SnapshotRefused(
                f"release {named.release} lacks {', '.join(missing)}, which this bot trades"
            )

    def _from_disk(self) -> State:
        try:
            kept = self._cache.notes.current()
            if kept is None:
                return State()
            self._expect_coins(kept.snapshot)
            predictors = self._fetcher.from_disk(kept.snapshot)
        except (CacheFailed, Refused) as error:
            return State(problem=CacheFailed(f"the set on disk cannot be used: {error}"))
        self._noted = kept
        self._sets = {kept.snapshot.set_digest: predictors}
        # The pointer may have moved while this bot was down, and even been followed (a kill between flip and note).
        return State(kept, predictors, was_missed=True)

    def _stale_since(self, state: State) -> datetime | None:
        return state.stale_since(self._clock(), self._fresh_for)


def _place(snapshot: Snapshot) -> tuple[str, int]:
    # Of one service, a revision never means two things (_expect_no_step_back).
    return snapshot.service, snapshot.revision


def _ahead(kept: Kept) -> list[str]:
    """The sets that must stay on the disk besides what is in use."""
    return [one.set_digest for one in kept.signed.announced]
