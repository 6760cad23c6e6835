"""A bot that follows the pointer: what it decides from, and when it says so."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from crpbot_runtime import Active, UnknownCoin
from mlcore.bundle.predictor import Predictor
from mlcore.data.simulate import simulate
from mlcore.errors import CandlesRefused, NotEnoughBars
from mlcore.fitting.fit import fit, prepare
from mlcore.fitting.recipes import RECIPES
from tests.runtime.conftest import COINS, MakeBot, ReleaseOf, write
from tests.runtime.stub_service import SIGNED_PATH, TOKEN, Release, StubService


def test_a_decision_is_what_the_release_of_the_pointer_says(
    service: StubService, bot: MakeBot, old: Release, candles: pl.DataFrame
) -> None:
    service.point_at(old, revision=7)
    client = bot()
    assert client.refresh().problem is None
    for coin in COINS:
        said = Predictor(old.folders[coin]).predict(candles)
        decision = client.predict(coin, candles)
        assert dict(decision.probabilities) == said.probabilities
        assert decision.direction == said.direction
        assert (decision.line, decision.release, decision.revision) == (old.line, old.number, 7)
        assert decision.bundle == Predictor(old.folders[coin]).digest
        assert decision.at == candles["timestamp"][-1]
        assert decision.is_simulated
        assert (decision.stale_since, decision.reason) == (None, "")


def test_every_file_is_asked_for_once_with_the_token(
    service: StubService, bot: MakeBot, old: Release
) -> None:
    service.point_at(old)
    bot().refresh()
    assert len(service.downloads()) == len(set(service.downloads())) == 4 * len(COINS)
    assert {request.headers["Authorization"] for request in service.requests} == {f"Bearer {TOKEN}"}


def test_an_unchanged_pointer_costs_one_short_answer(
    service: StubService, bot: MakeBot, old: Release
) -> None:
    service.point_at(old)
    client = bot()
    client.refresh()
    before = len(service.requests)
    assert client.refresh().problem is None
    assert [request.path for request in service.requests[before:]] == [SIGNED_PATH]
    assert "If-None-Match" in service.requests[-1].headers


def test_a_moved_pointer_changes_all_coins_at_once(
    service: StubService, bot: MakeBot, old: Release, new: Release, release_of: ReleaseOf
) -> None:
    service.point_at(old)
    client = bot()
    client.refresh()
    service.point_at(new)
    assert release_of(client) == old
    client.refresh()
    assert release_of(client) == new


def test_a_rollback_needs_no_download(
    service: StubService, bot: MakeBot, old: Release, new: Release, release_of: ReleaseOf
) -> None:
    client = bot()
    for release in (old, new):
        service.point_at(release)
        client.refresh()
    before = len(service.downloads())
    service.point_at(old)
    assert client.refresh().revision == 3
    assert len(service.downloads()) == before
    assert release_of(client) == old


def test_decisions_made_while_the_pointer_moves_come_from_one_release_each(
    service: StubService, bot: MakeBot, old: Release, new: Release, candles: pl.DataFrame
) -> None:
    service.point_at(old)
    client = bot()
    client.refresh()
    expected = {
        (release.number, coin): Predictor(release.folders[coin]).predict(candles).probabilities
        for release in (old, new)
        for coin in COINS
    }
    done = threading.Event()

    def move() -> None:
        for release in (new, old) * 5:
            service.point_at(release)
            client.refresh()
        done.set()

    mover = threading.Thread(target=move)
    mover.start()
    seen = set()
    while not done.is_set():
        for coin in COINS:
            decision = client.predict(coin, candles)
            assert decision.release is not None
            assert dict(decision.probabilities) == expected[decision.release, coin]
            seen.add(decision.release)
    mover.join()
    assert seen == {old.number, new.number}


def test_an_offline_pointer_means_neutral_at_once(
    service: StubService, bot: MakeBot, old: Release, candles: pl.DataFrame
) -> None:
    service.point_at(old)
    client = bot()
    client.refresh()
    service.point_at(None)
    active = client.refresh()
    assert (active.problem, active.has_model, active.revision) == (None, False, 2)
    decision = client.predict("BTC", candles)
    assert decision.direction == "neutral"
    assert dict(decision.probabilities) == {}
    assert (decision.line, decision.release, decision.revision) == (None, None, 2)
    assert decision.reason == "no model: the pointer is offline (a test moved it)"


def test_a_service_without_a_pointer_means_neutral(
    service: StubService, bot: MakeBot, candles: pl.DataFrame
) -> None:
    client = bot()
    client.refresh()
    decision = client.predict("BTC", candles)
    assert decision.direction == "neutral"
    assert decision.reason.startswith("no model: ")
    assert "503: no pointer yet" in decision.reason


def test_a_bot_that_never_asked_is_neutral_and_says_so(bot: MakeBot, candles: pl.DataFrame) -> None:
    assert "not asked yet" in bot().predict("BTC", candles).reason


def test_a_coin_of_no_release_is_the_bots_mistake(
    service: StubService, bot: MakeBot, old: Release, candles: pl.DataFrame
) -> None:
    service.point_at(old)
    client = bot()
    client.refresh()
    with pytest.raises(UnknownCoin, match="'btc' is not one of BTC, ETH"):
        client.predict("btc", candles)


def test_a_coin_the_bot_did_not_name_is_its_mistake_even_without_a_model(
    bot: MakeBot, candles: pl.DataFrame
) -> None:
    with pytest.raises(UnknownCoin):
        bot(coins=["BTC"]).predict("ETH", candles)


def test_candles_that_cannot_be_trusted_are_refused(
    service: StubService, bot: MakeBot, old: Release, candles: pl.DataFrame
) -> None:
    service.point_at(old)
    client = bot()
    client.refresh()
    with pytest.raises(NotEnoughBars):
        client.predict("BTC", candles.tail(2047))
    with pytest.raises(CandlesRefused, match="candles of BTC"):
        client.predict("BTC", candles.reverse())


def test_a_decision_says_since_when_nobody_confirmed_its_model(
    service: StubService, bot: MakeBot, old: Release, candles: pl.DataFrame
) -> None:
    now = [datetime(2026, 11, 22, 8, tzinfo=UTC)]
    client = bot(clock=lambda: now[0])
    service.issued_at = now[0]
    service.point_at(old)
    client.refresh()
    confirmed_at = now[0]
    now[0] += timedelta(seconds=89)
    assert client.predict("BTC", candles).stale_since is None
    now[0] += timedelta(seconds=2)
    decision = client.predict("BTC", candles)
    assert decision.stale_since == confirmed_at
    assert decision.reason == "stale since 2026-11-22 08:00:00Z: the service was not asked since"
    client.refresh()
    assert client.predict("BTC", candles).stale_since is None


def test_an_absent_service_stops_nobody(
    service: StubService, bot: MakeBot, old: Release, candles: pl.DataFrame
) -> None:
    service.point_at(old)
    client = bot()
    client.refresh()
    service.is_away = True
    assert "cannot be reached" in str(client.refresh().problem)
    decision = client.predict("BTC", candles)
    assert decision.release == old.number
    assert decision.stale_since is not None
    assert "cannot be reached" in decision.reason
    service.is_away = False
    assert client.refresh().stale_since is None


@pytest.mark.parametrize("streams", [True, False], ids=["streamed", "asked for"])
def test_watching_tells_the_first_state_and_then_each_change_once(
    service: StubService, bot: MakeBot, old: Release, new: Release, streams: bool
) -> None:
    service.streams = streams
    service.point_at(old)
    told: list[Active] = []
    stop = threading.Event()

    def hear(active: Active) -> None:
        told.append(active)
        if active.release == old.number:
            service.point_at(new)
        else:
            threading.Timer(0.1, stop.set).start()

    bot().watch(hear, every_s=0.01, stop=stop)
    assert [(active.release, active.problem) for active in told] == [(old.number, None), (new.number, None)]
    assert (SIGNED_PATH in {request.path for request in service.requests}) is not streams


def test_a_release_without_scalers_is_followed_if_the_pointer_names_it(
    service: StubService, bot: MakeBot, tmp_path: Path, candles: pl.DataFrame
) -> None:
    """The pointer begins on the broken V6: what a bot runs is the service's word, not the client's taste."""
    recipe = RECIPES["v6_enhanced"].with_parameters(epochs=1)
    trained = fit(prepare(simulate("BTC", bars=4_000, drift=1.2, seed=1), recipe), recipe, seed=1)
    folder = write(tmp_path / "v6", trained, "BTC")
    assert not (folder / "scaler.json").exists()
    service.point_at(Release(1, "v6_enhanced", {"BTC": folder}))
    client = bot()
    assert client.refresh().problem is None
    assert client.predict("BTC", candles).line == "v6_enhanced"


def test_a_model_whose_answer_is_no_number_means_neutral(
    service: StubService, bot: MakeBot, tmp_path: Path, candles: pl.DataFrame
) -> None:
    recipe = RECIPES["v7_fixed"].with_parameters(epochs=1)
    trained = fit(prepare(simulate("BTC", bars=4_000, drift=1.2, seed=1), recipe), recipe, seed=1)
    trained.weights["fc4.bias"][1] = np.nan
    service.point_at(Release(1, "v7_fixed", {"BTC": write(tmp_path / "broken", trained, "BTC")}))
    client = bot()
    client.refresh()
    decision = client.predict("BTC", candles)
    assert (decision.direction, dict(decision.probabilities), decision.release) == ("neutral", {}, None)
    assert "not finite" in decision.reason
