"""Three small releases, really trained and written as the service does, and a service on loopback to fetch them from."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from crpbot_runtime import Active, Client
from mlcore.bundle.predictor import Predictor
from mlcore.bundle.writer import write_bundle
from mlcore.data.simulate import simulate
from mlcore.fitting.fit import Trained, fit, prepare
from mlcore.fitting.recipes import RECIPES
from tests.runtime.stub_service import TOKEN, Release, StubService

COINS = ("BTC", "ETH", "SOL")
MakeBot = Callable[..., Client]
ReleaseOf = Callable[[Client], Release]


def wait_until(is_so: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    """Look until it is so; a machine may be busy, and still no test waits longer than it must."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.005)


@contextmanager
def watching(client: Client, *, every_s: float = 0.05) -> Iterator[list[Active]]:
    """The client follows in a thread, as a bot runs it; what it tells of changes."""
    told: list[Active] = []
    stop = threading.Event()
    thread = threading.Thread(
        target=client.watch, args=(told.append,), kwargs={"every_s": every_s, "stop": stop}
    )
    thread.start()
    try:
        yield told
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive(), "watching does not end"


def write(folder: Path, trained: Trained, coin: str) -> Path:
    """The folder, with the bundle in it."""
    dataset_digest = "sha256:" + "0" * 64
    write_bundle(
        folder, trained, coin=coin, dataset_digest=dataset_digest, simulated=True, code_version="test"
    )
    return folder


@pytest.fixture(scope="session")
def candles() -> pl.DataFrame:
    """What a bot would hand in: a little more than the lookback."""
    return simulate("BTC", bars=2_100, drift=1.2, seed=3)


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory) -> list[Release]:
    """Three releases of the line v7_fixed that differ in their seed, one revision each."""
    recipe = RECIPES["v7_fixed"].with_parameters(epochs=1)
    prepared = {coin: prepare(simulate(coin, bars=4_000, drift=1.2, seed=1), recipe) for coin in COINS}
    root = tmp_path_factory.mktemp("releases")
    return [
        Release(
            number,
            recipe.line,
            {
                coin: write(root / f"{number}-{coin}", fit(prepared[coin], recipe, seed=number), coin)
                for coin in COINS
            },
        )
        for number in (1, 2, 3)
    ]


@pytest.fixture(scope="session")
def old(releases: list[Release]) -> Release:
    return releases[0]


@pytest.fixture(scope="session")
def new(releases: list[Release]) -> Release:
    return releases[1]


@pytest.fixture(scope="session")
def newer(releases: list[Release]) -> Release:
    return releases[2]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubService]:
    """A service without a pointer yet; `service.point_at` gives it one."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    service = StubService()
    yield service
    service.stop()


@pytest.fixture
def other_service(service: StubService) -> Iterator[StubService]:
    """A second host: another port is another origin."""
    other = StubService(service_name="another-service")
    yield other
    other.stop()


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def bot(service: StubService, cache_dir: Path) -> Iterator[MakeBot]:
    """Makes clients of `service` over one cache folder; a second call is a bot that was restarted.

    They decide on candles of any age: the simulated ones are of the past.
    """
    made = []

    def make(
        *,
        url: str | None = None,
        token: str = TOKEN,
        public_key: str | None = None,
        cache_dir: Path = cache_dir,
        max_age_s: float | None = math.inf,
        **options: Any,
    ) -> Client:
        key = service.public_key if public_key is None else public_key
        client = Client(
            service.url if url is None else url, token, key, cache_dir, max_age_s=max_age_s, **options
        )
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


@pytest.fixture(scope="session")
def release_of(releases: list[Release], candles: pl.DataFrame) -> ReleaseOf:
    """Tells which release decides for all coins of a client; fails for a mixture, or without a model."""
    expected = {
        (release.number, coin): Predictor(release.folders[coin]).predict(candles).probabilities
        for release in releases
        for coin in COINS
    }

    def tell(client: Client) -> Release:
        decisions = [client.predict(coin, candles) for coin in COINS]
        named = [release for release in releases if release.number == decisions[0].release]
        assert named, decisions[0].reason
        for decision in decisions:
            assert decision.release == named[0].number, "a mixture of releases"
            assert dict(decision.probabilities) == expected[named[0].number, decision.coin]
        return named[0]

    return tell
