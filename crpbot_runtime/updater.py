"""Decides which models a bot uses: which snapshots may be followed, what is in use, what is left to download and to save.

Streamed and polled snapshots, of the threaded and the asyncio client, all end in `Updater.apply`. It takes a fraction of a
millisecond and never blocks on I/O: a set that is loaded replaces the one in use by a single assignment. `run_pending_work`
does everything slow, in another thread.
"""

import logging
import threading
from collections.abc import Callable, Collection
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from crpbot_runtime.bundles import BundleLoader, Download, Predictors
from crpbot_runtime.decide import decide
from crpbot_runtime.decision import Active, Decision
from crpbot_runtime.errors import (
    CacheFailed,
    ClientError,
    DownloadAborted,
    Refused,
    RevisionRefused,
    SignedInFuture,
    SignerUnknown,
    SnapshotExpired,
    SnapshotRefused,
    UnknownCoin,
    UntimelySnapshot,
)
from crpbot_runtime.live_windows import LiveWindows
from crpbot_runtime.protocol.envelope import SignedSnapshot, verify_envelope
from crpbot_runtime.protocol.service import Answer
from crpbot_runtime.protocol.snapshot import ModelSet, Snapshot
from crpbot_runtime.state import NO_PREDICTORS, State
from crpbot_runtime.storage.cache import Cache
from crpbot_runtime.storage.saved_state import ReceivedSnapshot
from crpbot_runtime.version import FIRST_PROTOCOL, OLDEST_READER, PROTOCOL, VERSION

logger = logging.getLogger(__name__)

SAVE_INTERVAL = timedelta(seconds=60)
"""How often the confirmation of an unchanged pointer is saved. After a restart it may look that much older than it is."""
MAX_ERROR_CHARACTERS = 1000
MAX_CLOCK_ERROR = timedelta(minutes=3)
"""How far ahead of this machine's clock a snapshot may be signed: as long as one is valid, in the other direction."""

verify_cached = lru_cache(maxsize=4)(verify_envelope)
"""Clients of one process that share one PublicKeys verify the same bytes once."""


class Updater:
    """The models of one bot, kept up to date with one service, over one cache folder. Safe to use from several threads.

    `download` downloads one file, `fetch_key_sets` the service's signed sets of keys. `coins` are those the bot trades.
    Without confirmation for `fresh_for` the state is stale. `max_age_s` bounds the age of a last bar, as `timing` says.
    `timeout_s` bounds each wait for the folder's lock. With `start_stale` a bot without any set begins with an expired one.
    """

    def __init__(
        self,
        cache: Cache,
        download: Download,
        fetch_key_sets: Callable[[], bytes],
        *,
        coins: Collection[str] | None,
        timeout_s: float,
        fresh_for: timedelta,
        max_age_s: float | None,
        start_stale: bool,
        clock: Callable[[], datetime],
    ) -> None:
        self._cache, self._fetch_key_sets, self._start_stale = cache, fetch_key_sets, start_stale
        self._coins = frozenset(coins or ())
        self._timeout_s, self._fresh_for, self._clock = timeout_s, fresh_for, clock
        self._max_age_s = max_age_s
        self._loader = BundleLoader(cache, download, timeout_s=timeout_s)
        self._create_locks()
        self._pending: ReceivedSnapshot | None = None  # accepted, not in use until its set is loaded
        # By set digest: of the current, previous and announced releases.
        self._loaded: dict[str, Predictors] = {}
        self._previous_set = ""
        self._asked_key_version = 0
        self._is_closing = False
        self._prefetch_problem = ""
        self._candle_faults: dict[str, str] = {}  # of each coin's last decision
        self._saved: ReceivedSnapshot | None = None
        self._logged = ""
        self._state = self._load_saved_state()
        self._log_problem()

    def _create_locks(self) -> None:
        self._windows = LiveWindows()
        self._state_lock = threading.Lock()  # held for a moment, to replace the state
        self._work_lock = threading.Lock()  # held while downloading, loading or saving

    def renew_after_fork(self) -> None:
        """In the child no thread holds the locks, and the open windows are reported by the parent."""
        self._cache.renew_after_fork()
        self._create_locks()

    @property
    def active(self) -> Active:
        state = self._state
        return state.to_active(self._compute_stale_since(state))

    @property
    def etag(self) -> str | None:
        """The ETag of the snapshot in use, for conditional requests; None if no key that signed it is trusted any more."""
        received = self._state.received
        return received.etag if received and self._is_trusted(received.signed) else None

    @property
    def prefetched(self) -> dict[str, int | None]:
        """The announced releases as heartbeats report them: each once it is downloaded, verified, loaded and warm."""
        received = self._state.received
        return {
            "prefetched_next": self._get_number_if_loaded(received.signed.next if received else None),
            "prefetched_fallback": self._get_number_if_loaded(received.signed.fallback if received else None),
        }

    @property
    def is_waiting(self) -> bool:
        """Whether the pointer names a set that is not loaded yet."""
        return self._pending is not None

    @property
    def has_pending_work(self) -> bool:
        """Whether `run_pending_work` would find something to do."""
        has_keys_to_save = self._cache.saved_state.has_unsaved_keys
        is_unsaved = self._is_unsaved() or has_keys_to_save
        return self.is_waiting or is_unsaved or self._has_newer_keys() or bool(self._list_missing())

    def decide(self, coin: str, candles: object) -> Decision:
        """Decide for one coin; as `Client.predict`."""
        state = self._state  # read once: the set may be replaced while this decision is made
        known = self._coins or state.predictors.keys()
        if not isinstance(coin, str) or (known and coin not in known):
            raise UnknownCoin(f"{coin!r:.80} is not one of {', '.join(sorted(known)) or 'the coins'}")
        decision, fault = decide(
            coin,
            candles,
            state,
            stale_since=self._compute_stale_since(state),
            windows=self._windows,
            max_age_s=self._max_age_s,
            now=self._clock(),
        )
        self._candle_faults[coin] = fault
        return decision

    def apply(self, answer: Answer | None, etag: str | None = None) -> None:
        """Apply the service's answer; None says that the snapshot of `etag` is unchanged. Never blocks on I/O.

        An answer that is expired or signed in the future may confirm what is in use, and never changes it. Raises Refused
        if the answer must not be followed (SignerUnknown: see `find_signer`), UntimelySnapshot if it is not of now.
        """
        signed = None if answer is None else verify_cached(answer.body, self._cache.saved_state.keys)
        with self._state_lock:
            current = self._state.received
            if signed is not None:
                self._cache.saved_state.record_head(signed)
            if answer is None or signed is None:
                if current is None or current.etag != etag or not self._is_trusted(current.signed):
                    return  # another snapshot was applied while the answer was on its way, or the keys changed
                signed = current.signed
                self._confirm(current)
            elif current is not None and signed.snapshot.content == current.snapshot.content:
                new_etag = answer.etag or (current.etag if answer.body == current.body else None)
                self._confirm(replace(current, body=answer.body, signed=signed, etag=new_etag))
            elif (fault := self._find_clock_fault(signed)) is None or (
                isinstance(fault, SnapshotExpired) and current is None and self._start_stale
            ):
                confirmed_at = self._compute_confirmed_at(signed)
                self._accept(ReceivedSnapshot(answer.body, signed, answer.etag, confirmed_at))
        self._log_problem()
        if (fault := self._find_clock_fault(signed)) is not None:
            raise fault

    def record_problem(self, problem: ClientError) -> None:
        """Remember why the service was not reached, or not followed."""
        with self._state_lock:
            self._state = replace(self._state, problem=problem, is_unconfirmed=True)
        self._log_problem()

    def run_pending_work(self) -> None:
        """Save the state, load the set that the pointer names, prefetch announced ones, follow new keys. Blocks on I/O.

        Raises ClientError if the set that the pointer names cannot be loaded, or the keys cannot be followed. A failed
        prefetch is only reported in the heartbeat, and tried again by the next call.
        """
        with self._work_lock:
            self._save()
            if (pending := self._pending) is not None:
                self._load_pending(pending)
                self._save()
            self._prefetch_announced()
            # Last: a service that does not hand out its keys must not keep a bot from what the pointer names.
            if self._has_newer_keys():
                self._update_keys()
                self._save()

    def find_signer(self, unknown: SignerUnknown) -> None:
        """After `apply` did not know a signer: follow the sets of keys from the trusted ones on. Blocks on the network.

        Raises `unknown` if that does not change what is trusted: asking again would be useless.
        """
        try:
            has_changed = self._update_keys()
        except ClientError as error:
            raise SignerUnknown(f"{unknown}; its sets of keys: {error}") from error
        if not has_changed:
            raise unknown

    def close(self) -> None:
        """Abort downloads and close the cache folder; decisions go on from memory."""
        self._is_closing = True
        with self._work_lock:
            self._cache.close()

    def build_heartbeat(self, instance: str) -> dict[str, Any]:
        """The request body of `POST bots/heartbeat/`: what this bot runs at this moment."""
        state = self._state
        snapshot, stale_since = state.snapshot, self._compute_stale_since(state)
        error = str(state.current_problem or (self._prefetch_problem if self._list_missing() else ""))
        faults = "; ".join(f"{coin}: {fault}" for coin, fault in sorted(self._candle_faults.items()) if fault)
        head = self._cache.saved_state.get_highest_head(snapshot.service) if snapshot else None
        return {
            "instance": instance,
            "client_version": VERSION,
            **_state_protocol(snapshot),
            "service": snapshot.service if snapshot else None,
            "revision": snapshot.revision if snapshot else None,
            "line": snapshot.line if snapshot else None,
            "release": snapshot.release if snapshot else None,
            "bundles": {coin: model.bundle for coin, model in snapshot.models.items()} if snapshot else {},
            **self.prefetched,
            "audit_head": asdict(head) if head else None,
            "trusted_keys": list(self._cache.saved_state.keys.key_ids),
            "last_error": (error or faults)[:MAX_ERROR_CHARACTERS] or None,
            "stale_since": stale_since.isoformat() if stale_since else None,
            "sent_at": self._clock().isoformat(),
        }

    def pop_windows(self, instance: str) -> list[dict[str, Any]]:
        """The live windows to post, each returned once."""
        return [window.to_document(instance) for window in self._windows.pop_closed(self._clock())]

    def _accept(self, received: ReceivedSnapshot) -> None:
        self._require_newer(received)
        self._require_coins(received.snapshot)
        snapshot = received.snapshot
        predictors = self._loaded.get(snapshot.set_digest) if snapshot.models else NO_PREDICTORS
        if predictors is None:
            self._pending = received
        else:
            self._swap(received, predictors)

    def _swap(self, received: ReceivedSnapshot, predictors: Predictors) -> None:
        previous = self._state.snapshot
        self._state = State(received, predictors, save_problem=self._cache.problem)
        self._pending = None
        # A rollback must find the previous set still loaded.
        self._previous_set = previous.set_digest if previous else ""
        self._keep_loaded(received.snapshot, predictors)

    def _keep_loaded(self, model_set: ModelSet, predictors: Predictors) -> None:
        """Keep this set loaded, and of the others only the current, the previous and the announced ones."""
        wanted = {self._previous_set, *(release.set_digest for release in self._announced)}
        if self._state.snapshot:
            wanted.add(self._state.snapshot.set_digest)
        sets = self._loaded | {model_set.set_digest: predictors}
        self._loaded = {digest: loaded for digest, loaded in sets.items() if digest in wanted}

    def _confirm(self, received: ReceivedSnapshot) -> None:
        highest = self._cache.saved_state.get_highest_revision(received.snapshot.service)
        if highest is not None and highest.revision > received.snapshot.revision:
            raise RevisionRefused(
                f"the service confirms revision {received.snapshot.revision}, but revision {highest.revision} was seen"
                " already"
            )
        self._cache.saved_state.record_revision(received)  # under a key that has just begun to sign
        received = replace(received, confirmed_at=self._compute_confirmed_at(received.signed))
        self._state = replace(self._state, received=received, is_unconfirmed=False, problem=None)
        self._pending = None

    def _find_clock_fault(self, signed: SignedSnapshot) -> UntimelySnapshot | None:
        """Whether the snapshot is of now, by this machine's clock."""
        # Asked twice of each bot at each move, so nothing is formatted where there is no fault.
        now = self._clock()
        if now > signed.expires_at:
            return SnapshotExpired(
                f"{_describe_signing(signed)} and valid until {signed.expires_at:%H:%M:%S}Z: the service, or a proxy before"
                " it, repeats an old one, or this machine's clock is ahead"
            )
        if signed.issued_at - now > MAX_CLOCK_ERROR:
            return SignedInFuture(
                f"{_describe_signing(signed)}, and here it is {now.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z: this machine's clock"
                " is behind, or the service's is ahead"
            )
        return None

    def _compute_confirmed_at(self, signed: SignedSnapshot) -> datetime:
        # A stored answer that something repeats confirms nothing beyond its signed time.
        return min(self._clock(), signed.expires_at)

    def _load_pending(self, pending: ReceivedSnapshot) -> None:
        """Load the set that the pointer names and use it, unless the pointer names another by then."""
        digest = pending.snapshot.set_digest

        def is_wanted() -> bool:
            current = self._pending
            return not self._is_closing and current is not None and current.snapshot.set_digest == digest

        try:
            predictors = self._loader.load(pending.snapshot, is_wanted)
        except DownloadAborted:
            return
        with self._state_lock:
            if self._pending is not None and is_wanted():
                self._swap(self._pending, predictors)

    def _prefetch_announced(self) -> None:
        """Load what a move may name next, so that the move costs no download."""
        problems = [str(problem) for release in self._list_missing() if (problem := self._prefetch(release))]
        message = "; ".join(problems)
        if message and message != self._prefetch_problem:
            logger.warning("%s", message)
        self._prefetch_problem = message

    def _prefetch(self, release: ModelSet) -> ClientError | None:
        """Load an announced release while nothing is more urgent; returns the problem if it fails."""

        def is_wanted() -> bool:
            is_announced = release.set_digest in {announced.set_digest for announced in self._announced}
            return is_announced and not (self.is_waiting or self._has_unsaved_move() or self._is_closing)

        try:
            self._require_coins(release)
            predictors = self._loader.load(release, is_wanted)
        except DownloadAborted:
            return None
        except ClientError as error:
            return type(error)(f"release {release.release} cannot be prefetched: {error}")
        with self._state_lock:
            if is_wanted():
                self._keep_loaded(release, predictors)
        return None

    @property
    def _announced(self) -> tuple[ModelSet, ...]:
        received = self._state.received
        return received.signed.announced if received else ()

    def _list_missing(self) -> list[ModelSet]:
        """The announced releases that are not loaded yet, the most urgent first."""
        return [release for release in self._announced if release.set_digest not in self._loaded]

    def _get_number_if_loaded(self, announced: ModelSet | None) -> int | None:
        return announced.release if announced and announced.set_digest in self._loaded else None

    def _is_unsaved(self) -> bool:
        current, saved = self._state.received, self._saved
        if current is None or saved is current:
            return False
        if saved is None or saved.mark != current.mark or saved.signed.announced != current.signed.announced:
            return True
        if self._is_trusted(current.signed) and not self._is_trusted(saved.signed):
            return True  # or a restart would find nothing that it may begin with
        return current.confirmed_at - saved.confirmed_at > SAVE_INTERVAL

    def _has_unsaved_move(self) -> bool:
        """Whether a restart would begin with another revision: more urgent than any prefetch."""
        current, saved = self._state.received, self._saved
        return current is not None and (saved is None or saved.mark != current.mark)

    def _save(self) -> None:
        """Save what is in use. If the disk refuses it, it stays in use and the problem is reported.

        After the swap: a full disk must not keep a bot on a model that the pointer has left.
        """
        current = self._state.received
        if current is None or not self._is_unsaved():
            self._save_keys()
            return
        problem = self._cache.problem
        try:
            with self._cache.lock(self._timeout_s):
                self._cache.saved_state.save_revisions()
                self._loader.restore_missing(current.snapshot, lambda: not self._is_closing)
                self._cache.saved_state.save_current(current)
                self._saved = current
                self._cache.delete_unused()
        except ClientError as error:
            self._saved = None
            problem = CacheFailed(
                f"revision {current.snapshot.revision} is in use but not saved for a restart: {error}"
            )
        with self._state_lock:
            self._state = replace(self._state, save_problem=problem)
        self._log_problem()

    def _save_keys(self) -> None:
        if self._cache.saved_state.has_unsaved_keys:
            with self._cache.lock(self._timeout_s):
                self._cache.saved_state.save_revisions()

    def _is_trusted(self, signed: SignedSnapshot) -> bool:
        return not self._cache.saved_state.keys.key_ids.isdisjoint(signed.key_ids)

    def _has_newer_keys(self) -> bool:
        """Whether the service says, signed, that it has changed its keys since they were last asked for."""
        received = self._state.received
        known = max(self._cache.saved_state.keys.version, self._asked_key_version)
        return received is not None and received.signed.key_version > known

    def _update_keys(self) -> bool:
        """Follow the service's sets of keys; returns whether that changed what is trusted. Raises ClientError."""
        received = self._state.received
        has_changed = self._cache.saved_state.follow_keys(self._fetch_key_sets())
        self._asked_key_version = received.signed.key_version if received else 0
        return has_changed

    def _log_problem(self) -> None:
        problem = str(self._state.current_problem or "")
        if problem and problem != self._logged:  # once, not at every answer
            snapshot = self._state.snapshot
            in_use = f"revision {snapshot.revision}" if snapshot else "no model"
            logger.warning("%s; in use: %s", problem, in_use)
        self._logged = problem

    def _require_newer(self, received: ReceivedSnapshot) -> None:
        snapshot = received.snapshot
        highest = self._cache.saved_state.get_highest_revision(snapshot.service)
        if highest is not None and snapshot.revision < highest.revision:
            raise RevisionRefused(
                f"the service names revision {snapshot.revision}, but revision {highest.revision} was seen already: an old "
                "answer, or a service restored from a backup, which must move its pointer past that revision"
            )
        if highest is not None and snapshot.revision == highest.revision and received.mark != highest:
            raise RevisionRefused(
                f"revision {snapshot.revision} was seen already, with another release or other files"
            )
        self._cache.saved_state.record_revision(received)

    def _require_coins(self, model_set: ModelSet) -> None:
        missing = sorted(self._coins - model_set.models.keys())
        if missing and model_set.release is not None:
            raise SnapshotRefused(
                f"release {model_set.release} lacks {', '.join(missing)}, which this bot trades"
            )

    def _load_saved_state(self) -> State:
        try:
            saved = self._cache.saved_state.load_current()
            if saved is None:
                return State(save_problem=self._cache.problem)
            self._require_coins(saved.snapshot)
            predictors = self._loader.load_from_disk(saved.snapshot)
        except (CacheFailed, Refused) as error:
            problem = CacheFailed(f"the set on disk cannot be used: {error}")
            return State(problem=problem, save_problem=self._cache.problem)
        self._saved = saved
        self._loaded = {saved.snapshot.set_digest: predictors}
        # Unconfirmed: the pointer may have moved since, and this bot may even have followed it before it was killed.
        return State(saved, predictors, is_unconfirmed=True, save_problem=self._cache.problem)

    def _compute_stale_since(self, state: State) -> datetime | None:
        return state.compute_stale_since(self._clock(), self._fresh_for)


def _state_protocol(snapshot: Snapshot | None) -> dict[str, Any]:
    """The heartbeat's protocol, once the service is known to understand that it is stated."""
    if snapshot is None or snapshot.protocol == FIRST_PROTOCOL:
        return {}
    return {"protocol": {"version": PROTOCOL, "oldest_reader": OLDEST_READER}}


def _describe_signing(signed: SignedSnapshot) -> str:
    return f"the answer was signed at {signed.issued_at:%Y-%m-%d %H:%M:%S}Z"
