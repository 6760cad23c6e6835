"""The bot's side: follow the pointer, keep the last good set, decide from it. All coins change together or none does."""

import logging
import random
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType

import polars as pl

from mlcore import bundle, features
from mlcore.candles import check
from mlcore.errors import BundleRefused
from mlcore.predictor import Prediction, Predictor
from runtime.cache import Cache, Kept, Mark
from runtime.errors import (
    CacheFailed,
    ClientError,
    EpochRefused,
    Refused,
    SetRefused,
    SnapshotRefused,
    UnknownCoin,
)
from runtime.service import Answer, Service
from runtime.snapshot import Model, Snapshot, parse

logger = logging.getLogger(__name__)

NEUTRAL = "neutral"
NOTE_EVERY = timedelta(seconds=60)
"""How often an unchanged pointer's confirmation is written down; a restart may look that much staler than it is."""

Locate = Callable[[Model, Callable[[Path], None]], Path]


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with one coin now.

    `direction` is one of down, neutral, up; `probabilities` of the three add up to 1 and are empty without a model.
    `line`, `release` and `epoch` say which model spoke; `at` is the opening time of the last bar it saw. `stale_since`
    is when the service last confirmed that model, None while it does; `reason` is empty when nothing is amiss.
    `is_simulated` warns that the model was trained on a made-up market.
    """

    coin: str
    direction: str
    probabilities: Mapping[str, float]
    line: str | None
    release: int | None
    epoch: int | None
    stale_since: datetime | None
    reason: str
    at: datetime | None = None
    is_simulated: bool = False


@dataclass(frozen=True, slots=True)
class Active:
    """What this client runs, and what keeps it from running what the service says, if anything (`problem`).

    `moved_at` and `reason` are those of the pointer's last move; without any set, all but `problem` is empty.
    """

    service: str | None = None
    epoch: int | None = None
    line: str | None = None
    release: int | None = None
    coins: tuple[str, ...] = ()
    is_simulated: bool = False
    moved_at: datetime | None = None
    reason: str = ""
    stale_since: datetime | None = None
    problem: ClientError | None = None

    @property
    def has_model(self) -> bool:
        """Whether decisions come from a model; without one they are neutral."""
        return bool(self.coins)


@dataclass(frozen=True, slots=True)
class _State:
    """All that a decision depends on, replaced as a whole."""

    kept: Kept | None = None
    predictors: Mapping[str, Predictor] = field(default_factory=lambda: MappingProxyType({}))
    asked_at: datetime | None = None
    problem: ClientError | None = None


def _now() -> datetime:
    return datetime.now(UTC)


class Client:
    """Follows one service for one bot; safe to use from several threads, decisions never wait for the network.

    It starts from what `cache_dir` holds, without asking anybody; `refresh` or `watch` ask the service.

    `coins` are those the bot trades: a release without one of them is refused. `timeout_s` bounds each wait for the
    network. After `fresh_for_s` seconds without an answer a decision says *stale since*.

    Raises Misconfigured (address or token) and CacheFailed (the folder cannot be made); no other method raises for a
    reason of network, service or disk.
    """

    def __init__(
        self,
        url: str,
        token: str,
        cache_dir: str | Path,
        *,
        coins: Collection[str] | None = None,
        timeout_s: float = 10.0,
        fresh_for_s: float = 60.0,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._service = Service(url, token, timeout_s=timeout_s)
        self._cache = Cache(Path(cache_dir), str(self._service.url))
        self._coins = None if coins is None else frozenset(coins)
        self._timeout_s = timeout_s
        self._fresh_for = timedelta(seconds=fresh_for_s)
        self._clock = clock
        self._noted_at: datetime | None = None
        self._refreshing = threading.Lock()
        self._state = self._from_disk()

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
        if state.kept is None:
            return Active(problem=state.problem)
        snapshot = state.kept.snapshot
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
        if state.kept is None or predictor is None:
            return self._neutral(coin, state)
        window = check(candles.tail(predictor.schema.lookback), f"the candles of {coin}")
        try:
            prediction = predictor.predict(window)
        except BundleRefused as error:
            return replace(
                self._neutral(coin, state), reason=f"no model: release {state.kept.snapshot.release}: {error}"
            )
        return self._decided(coin, state.kept.snapshot, state, prediction)

    def refresh(self) -> Active:
        """Ask the service once, and follow it where that is safe; what is not comes back as `problem`.

        A new set is downloaded, verified and loaded whole before it replaces the old one in a single assignment.
        """
        with self._refreshing:
            try:
                self._ask()
            except ClientError as problem:
                self._report(problem)
                self._state = replace(self._state, asked_at=self._clock())
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

    # Following the pointer; the caller holds `_refreshing`

    def _ask(self) -> None:
        kept = self._state.kept
        answer = self._service.active(kept.etag if kept else None)
        if answer is not None:
            with self._cache.exclusive(self._timeout_s):
                self._follow(answer)
        elif kept is not None:
            self._confirm(kept)

    def _follow(self, answer: Answer) -> None:
        snapshot = parse(answer.body)
        self._expect_no_step_back(snapshot)
        self._expect_coins(snapshot)
        wanted = snapshot.models.values()
        self._cache.prune(
            wanted
        )  # first, so that a disk full of what crashes and refusals left has room again
        predictors = self._load(snapshot, self._bring)
        now = self._clock()
        kept = Kept(answer.body, snapshot, answer.etag, now)
        self._state = _State(kept, predictors, asked_at=now)
        # After the flip: a full disk must not hold a bot on a model that the pointer has left.
        self._note(kept)
        self._cache.prune(wanted)

    def _confirm(self, kept: Kept) -> None:
        seen = self._cache.mark(kept.snapshot.service)
        if seen is not None and seen.epoch > kept.snapshot.epoch:
            raise EpochRefused(
                f"the service confirms epoch {kept.snapshot.epoch}, but epoch {seen.epoch} was seen already"
            )
        now = self._clock()
        kept = replace(kept, confirmed_at=now)
        self._state = replace(self._state, kept=kept, asked_at=now, problem=None)
        if self._noted_at is None or now - self._noted_at > NOTE_EVERY:
            with self._cache.exclusive(self._timeout_s):
                self._note(kept)

    def _note(self, kept: Kept) -> None:
        """Write down what is in use; where the disk refuses it stays in use all the same, and the problem is told."""
        try:
            self._cache.keep(kept)
            self._noted_at = kept.confirmed_at
        except CacheFailed as error:
            self._noted_at = None
            self._report(
                CacheFailed(f"epoch {kept.snapshot.epoch} is in use but not kept for a restart: {error}")
            )

    def _report(self, problem: ClientError) -> None:
        before = self._state
        self._state = replace(before, problem=problem)
        if str(problem) != str(before.problem):  # not once more at every poll
            logger.warning(
                "%s; in use: %s", problem, f"epoch {self.active.epoch}" if before.kept else "no model"
            )

    def _expect_no_step_back(self, snapshot: Snapshot) -> None:
        seen = self._cache.mark(snapshot.service)
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
            self._cache.raise_mark(snapshot.service, Mark(snapshot.epoch, snapshot.content))

    def _expect_coins(self, snapshot: Snapshot) -> None:
        missing = (self._coins or frozenset()) - snapshot.models.keys()
        if missing and not snapshot.is_offline:
            raise SnapshotRefused(
                f"release {snapshot.release} lacks {', '.join(sorted(missing))}, which this bot trades"
            )

    def _load(self, snapshot: Snapshot, locate: Locate) -> Mapping[str, Predictor]:
        """A predictor for every coin, or Refused, ServiceUnavailable, NotAuthorised, CacheFailed."""
        loaded = {coin: _loaded(snapshot, model, locate) for coin, model in snapshot.models.items()}
        return MappingProxyType(loaded)

    def _bring(self, model: Model, verify: Callable[[Path], None]) -> Path:
        """The bundle's folder, downloaded where it is not at hand or not what it should be."""
        if self._cache.holds(model):
            try:
                return self._at_hand(model, verify)
            except SetRefused as error:
                logger.warning("downloading again what lies damaged in the cache: %s", error)
        return self._cache.admit(
            model, lambda name, target: self._service.download(model.files[name], target), verify
        )

    def _from_disk(self) -> _State:
        try:
            kept = self._cache.current()
            if kept is None:
                return _State()
            return _State(kept, self._load(kept.snapshot, self._at_hand))
        except (CacheFailed, Refused) as error:
            return _State(problem=CacheFailed(f"the set on disk cannot be used: {error}"))

    def _at_hand(self, model: Model, verify: Callable[[Path], None]) -> Path:
        folder = self._cache.bundle(model)
        verify(folder)
        return folder

    # Deciding

    def _expect_known(self, coin: str, state: _State) -> None:
        known = self._coins or state.predictors.keys()
        if known and coin not in known:
            raise UnknownCoin(f"{coin!r} is not one of {', '.join(sorted(known))}")

    def _stale_since(self, state: _State) -> datetime | None:
        if state.kept is None:
            return None
        confirmed_at = state.kept.confirmed_at
        was_missed = state.asked_at is not None and state.asked_at > confirmed_at
        return confirmed_at if was_missed or self._clock() - confirmed_at > self._fresh_for else None

    def _decided(self, coin: str, snapshot: Snapshot, state: _State, prediction: Prediction) -> Decision:
        stale_since = self._stale_since(state)
        return Decision(
            coin=coin,
            direction=prediction.direction,
            probabilities=MappingProxyType(prediction.probabilities),
            line=snapshot.line,
            release=snapshot.release,
            epoch=snapshot.epoch,
            stale_since=stale_since,
            reason=_staleness(stale_since, state.problem),
            at=prediction.at,
            is_simulated=snapshot.is_simulated,
        )

    def _neutral(self, coin: str, state: _State) -> Decision:
        stale_since = self._stale_since(state)
        snapshot = state.kept.snapshot if state.kept else None
        return Decision(
            coin=coin,
            direction=NEUTRAL,
            probabilities=MappingProxyType({}),
            line=None,
            release=None,
            epoch=snapshot.epoch if snapshot else None,
            stale_since=stale_since,
            reason=_no_model(snapshot, stale_since, state.problem),
        )


def _loaded(snapshot: Snapshot, model: Model, locate: Locate) -> Predictor:
    try:
        _expect_own_schema(model)
        return Predictor(locate(model, partial(_verify, snapshot, model)))
    except BundleRefused as error:
        raise SetRefused(f"{model.coin}: {error}") from error


def _expect_own_schema(model: Model) -> None:
    own = features.SCHEMAS.get(model.feature_schema)
    if own is None:
        raise SetRefused(
            f"{model.coin}: this client does not know the features {model.feature_schema!r}: update it"
        )
    if own.digest != model.schema_digest:
        raise SetRefused(
            f"{model.coin}: {model.feature_schema} is {model.schema_digest} at the service and {own.digest} here: "
            "the two compute different features; bring both to one version"
        )


def _verify(snapshot: Snapshot, model: Model, folder: Path) -> None:
    """Raise SetRefused unless `folder` is this coin's bundle, of this line, as announced."""
    try:
        manifest = bundle.verify(folder, model.bundle).manifest
    except (BundleRefused, OSError) as error:
        raise SetRefused(f"{model.coin}: {error}") from error
    announced = {
        "coin": (manifest.coin, model.coin),
        "line": (manifest.line, snapshot.line),
        "feature schema": (manifest.schema_name, model.feature_schema),
        "classes": (manifest.classes, model.classes),
        "files": ({*manifest.files, bundle.MANIFEST_FILE}, {*model.files}),
    }
    for name, (found, expected) in announced.items():
        if found != expected:
            raise SetRefused(f"{model.coin}: the bundle's {name}: {found}; the snapshot says {expected}")
    if manifest.is_simulated and not snapshot.is_simulated:
        raise SetRefused(f"{model.coin}: trained on a simulated market, and the snapshot does not say so")


def _staleness(stale_since: datetime | None, problem: ClientError | None) -> str:
    if stale_since is None:
        return str(problem) if problem else ""
    return f"stale since {stale_since:%Y-%m-%d %H:%M:%S}Z: {problem or 'the service was not asked since'}"


def _no_model(snapshot: Snapshot | None, stale_since: datetime | None, problem: ClientError | None) -> str:
    if snapshot is None:
        return f"no model: {problem or 'nothing is kept on disk and the service was not asked yet'}"
    why = f"no model: the pointer is offline ({snapshot.reason})"
    return f"{why}; {staleness}" if (staleness := _staleness(stale_since, problem)) else why
