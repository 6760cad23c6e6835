"""A bot's loop: moves are heard at once, what is announced is at hand before, and the service hears what runs."""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import polars as pl
import pytest

from crpbot_runtime import Active, AsyncClient, Misconfigured
from crpbot_runtime.protocol.public_keys import PublicKeys
from tests.runtime.conftest import COINS, MakeBot, ReleaseOf, wait_until, watching
from tests.runtime.stub_service import (
    HALF,
    HEARTBEAT_PATH,
    SIGNED_PATH,
    STREAM_PATH,
    TOKEN,
    WINDOWS_PATH,
    Release,
    StubService,
)

pytestmark = pytest.mark.slow


def test_what_is_announced_is_at_hand_when_the_pointer_moves(
    service: StubService, bot: MakeBot, old: Release, new: Release, release_of: ReleaseOf
) -> None:
    service.point_at(old)
    client = bot(spread_s=0)
    with watching(client):
        wait_until(lambda: client.active.release == old.number, "the first release is in use")
        service.announce(new)
        wait_until(
            lambda: service.heartbeats and service.heartbeats[-1]["prefetched_next"] == new.number,
            "ready is told",
        )
        assert release_of(client) == old, "what is only announced decides nothing"
        downloads = len(service.downloads())
        service.files.clear()
        service.point_at(new)
        wait_until(lambda: client.active.release == new.number, "the flip")
        assert len(service.downloads()) == downloads
        assert release_of(client) == new


def test_a_flip_asks_neither_network_nor_disk(
    service: StubService, bot: MakeBot, old: Release, new: Release, release_of: ReleaseOf
) -> None:
    """With the folder's lock held by somebody else and the service's files gone, the move is followed all the same."""
    service.point_at(old)
    service.announce(new)
    client, other = bot(timeout_s=0.2), bot()
    client.refresh()
    service.point_at(new)
    service.files.clear()
    with other._updater._cache.lock(1):
        active = client.refresh()
        assert release_of(client) == new
        assert "not saved for a restart" in str(active.problem)
    assert client.refresh().problem is None
    service.stop()
    assert release_of(bot()) == new


def test_a_rollback_does_not_wait_for_a_slow_download(
    service: StubService, bot: MakeBot, old: Release, new: Release, newer: Release, release_of: ReleaseOf
) -> None:
    client = bot()
    for release in (old, new):
        service.point_at(release)
        client.refresh()
    service.files[newer.sha256("BTC", "model.onnx")] = HALF
    service.announce(newer)
    with watching(client):
        wait_until(lambda: newer.sha256("BTC", "model.onnx") in service.downloads(), "the download has begun")
        service.point_at(old)
        wait_until(lambda: client.active.revision == 3, "the rollback", seconds=5)
        assert release_of(client) == old
        service.released.set()


def test_a_set_deleted_from_a_shared_folder_is_restored_before_saving(
    service: StubService, bot: MakeBot, old: Release, new: Release, cache_dir: Path, release_of: ReleaseOf
) -> None:
    service.point_at(old)
    service.announce(new)
    client = bot()
    client.refresh()
    for model in service.document()["next"]["models"].values():
        bundle = cache_dir / "bundles" / model["bundle"].removeprefix("sha256:")
        for file in bundle.iterdir():
            file.unlink()
        bundle.rmdir()
    service.point_at(new)
    assert client.refresh().problem is None
    service.stop()
    assert release_of(bot()) == new


def test_a_pin_reaches_a_fresh_bot_without_a_download(
    service: StubService, bot: MakeBot, old: Release, new: Release, newer: Release, release_of: ReleaseOf
) -> None:
    """Also one that was restarted, and one from whose folder a later release has taken the last place."""
    service.point_at(new)
    service.register(old)
    client = bot(spread_s=0)
    with watching(client):
        wait_until(
            lambda: service.heartbeats and service.heartbeats[-1]["prefetched_fallback"] == old.number,
            "it is told",
        )
        assert release_of(client) == new, "what is only announced decides nothing"
        for release in (newer, new, newer):
            service.point_at(release)
            wait_until(lambda: client.active.revision == service.revision, "the move is followed")
    service.files.clear()
    restarted = bot()
    service.point_at(old)
    downloads = len(service.downloads())
    for pinned in (client, restarted):
        assert pinned.refresh().problem is None
        assert release_of(pinned) == old
        assert pinned._updater.prefetched["prefetched_fallback"] == old.number
    assert len(service.downloads()) == downloads


def test_a_fallback_that_fails_to_download_does_not_stop_the_candidate(
    service: StubService, bot: MakeBot, old: Release, new: Release, newer: Release
) -> None:
    service.point_at(new)
    service.register(old)
    service.announce(newer)
    del service.files[old.sha256("ETH", "model.onnx")]
    client = bot()
    assert client.refresh().problem is None
    said = client._updater.build_heartbeat("desk-1")
    assert (said["prefetched_next"], said["prefetched_fallback"]) == (newer.number, None)
    assert "release 1 cannot be prefetched" in said["last_error"]


def test_disk_and_memory_hold_what_is_in_use_before_it_and_announced(
    service: StubService, bot: MakeBot, releases: list[Release], cache_dir: Path
) -> None:
    client = bot()
    for turn in range(5):
        service.point_at(releases[turn % 3])
        service.announce(releases[(turn + 1) % 3])
        client.refresh()
        assert client._updater.prefetched["prefetched_next"] == releases[(turn + 1) % 3].number
    assert len(list((cache_dir / "bundles").iterdir())) == 3 * len(COINS)
    assert len(client._updater._loaded) == 3
    service.announce(None)
    service.point_at(releases[0])
    client.refresh()
    assert client._updater.prefetched["prefetched_next"] is None
    assert len(list((cache_dir / "bundles").iterdir())) == 2 * len(COINS)
    service.register(releases[2])
    client.refresh()
    assert client._updater.prefetched["prefetched_fallback"] == releases[2].number
    assert len(list((cache_dir / "bundles").iterdir())) == 3 * len(COINS)


def test_a_failed_prefetch_is_reported_and_disturbs_nothing(
    service: StubService, bot: MakeBot, old: Release, new: Release, release_of: ReleaseOf
) -> None:
    service.point_at(old)
    service.announce(new)
    service.files[new.sha256("ETH", "model.onnx")] = b"not a model"
    client = bot(spread_s=0)
    with watching(client) as told:
        wait_until(lambda: any(beat["last_error"] for beat in service.heartbeats), "the service hears why")
        assert "release 2 cannot be prefetched: ETH: model.onnx" in service.heartbeats[-1]["last_error"]
        assert service.heartbeats[-1]["prefetched_next"] is None
        assert release_of(client) == old
    assert [active.problem for active in told] == [None]


def test_a_move_is_acknowledged_with_every_coins_bundle(
    service: StubService, bot: MakeBot, old: Release, new: Release
) -> None:
    service.point_at(old)
    with watching(bot(spread_s=0, instance="desk-1")):
        wait_until(
            lambda: service.heartbeats and service.heartbeats[-1]["revision"] == 1,
            "revision 1 is acknowledged",
        )
        service.point_at(new)
        wait_until(lambda: service.heartbeats[-1]["revision"] == 2, "revision 2 is acknowledged", seconds=5)
        beat = service.heartbeats[-1]
        assert beat["bundles"] == {
            coin: model["bundle"] for coin, model in service.document()["models"].items()
        }
        assert (beat["instance"], beat["service"], beat["release"]) == (
            "desk-1",
            service.service_name,
            new.number,
        )
        assert (beat["last_error"], beat["stale_since"]) == (None, None)
        service.point_at(None)
        wait_until(lambda: service.heartbeats[-1]["revision"] == 3, "offline is acknowledged")
        assert (service.heartbeats[-1]["bundles"], service.heartbeats[-1]["line"]) == ({}, None)


def test_heartbeats_go_on_where_nothing_moves(service: StubService, bot: MakeBot, old: Release) -> None:
    service.point_at(old)
    with watching(bot(spread_s=0)):
        wait_until(lambda: len(service.heartbeats) >= 3, "a third heartbeat")


def test_what_was_predicted_is_told_in_windows(
    service: StubService, bot: MakeBot, old: Release, candles: pl.DataFrame
) -> None:
    service.point_at(old)
    client = bot(spread_s=0)
    with watching(client):
        wait_until(lambda: service.heartbeats and client.active.has_model, "the bot is known")
        for _ in range(100):
            client.predict("BTC", candles)
        wait_until(lambda: service.windows, "a window is told")
    (window,) = service.windows
    assert (window["coin"], window["revision"], window["predictions"]) == ("BTC", 1, 100)


@pytest.mark.parametrize(
    "answer",
    [(404, {}, b""), (500, {}, b""), (200, {}, b"\xff\x00junk"), (409, {}, b""), (401, {}, b"")],
    ids=str,
)
def test_a_service_that_takes_no_reports_keeps_nobody_from_following(
    service: StubService,
    bot: MakeBot,
    old: Release,
    new: Release,
    candles: pl.DataFrame,
    answer: tuple[int, dict[str, str], bytes],
) -> None:
    service.answers |= {HEARTBEAT_PATH: answer, WINDOWS_PATH: answer}
    service.point_at(old)
    client = bot(spread_s=0)
    with watching(client) as told:
        wait_until(lambda: HEARTBEAT_PATH in {request.path for request in service.requests}, "it was tried")
        service.point_at(new)
        wait_until(lambda: told and told[-1].release == new.number, "the move")
    assert client.predict("BTC", candles).reason == ""
    assert {active.problem for active in told} == {None}


def test_while_it_cannot_stream_it_asks_and_then_streams_again(
    service: StubService, bot: MakeBot, old: Release, new: Release, newer: Release
) -> None:
    service.streams = False
    service.point_at(old)
    client = bot()
    with watching(client):
        wait_until(lambda: client.active.release == old.number, "heard by asking")
        service.point_at(new)
        wait_until(lambda: client.active.release == new.number, "heard by asking again")
        service.streams = True
        before = len(service.requests)
        wait_until(
            lambda: STREAM_PATH in {request.path for request in service.requests[before:]}, "it streams again"
        )
        wait_until(lambda: service.heartbeats, "and is quiet")
        service.point_at(newer)
        wait_until(lambda: client.active.release == newer.number, "heard on the stream")


def test_a_stream_that_breaks_is_taken_up_again(
    service: StubService, bot: MakeBot, old: Release, new: Release
) -> None:
    service.point_at(old)
    client = bot()
    with watching(client) as told:
        wait_until(lambda: client.active.release == old.number, "heard")
        service.is_away = True
        wait_until(lambda: client.active.problem, "the absence is told")
        service.point_at(new)
        service.is_away = False
        wait_until(lambda: client.active.release == new.number, "heard again")
        assert client.active.stale_since is None
    assert "cannot be reached" in str(told[1].problem)


def test_what_the_bots_own_function_raises_ends_the_watch(
    service: StubService, bot: MakeBot, old: Release
) -> None:
    service.point_at(old)

    def fail(active: Active) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        bot().watch(fail)


def test_closing_ends_the_watch_and_decisions_go_on(
    service: StubService, bot: MakeBot, old: Release, release_of: ReleaseOf
) -> None:
    service.point_at(old)
    client = bot()
    thread = threading.Thread(target=client.watch, args=(lambda active: None,))
    thread.start()
    wait_until(lambda: client.active.has_model, "the first release is in use")
    client.close()
    thread.join(5)
    assert not thread.is_alive()
    assert release_of(client) == old
    assert "is closed" in str(client.refresh().problem)


def test_a_name_that_the_service_would_not_take_is_told_at_once(bot: MakeBot) -> None:
    with pytest.raises(Misconfigured, match="'desk 1'"):
        bot(instance="desk 1")


def test_a_bots_own_name_stays_over_a_restart(bot: MakeBot, tmp_path: Path) -> None:
    assert bot().instance == bot().instance
    assert bot(cache_dir=tmp_path / "another").instance != bot().instance


async def test_asyncio_hears_decides_and_flips_as_threads_do(
    service: StubService, cache_dir: Path, old: Release, new: Release, candles: pl.DataFrame
) -> None:
    service.point_at(old)
    told: asyncio.Queue[Active] = asyncio.Queue()
    async with AsyncClient(
        service.url, TOKEN, service.public_key, cache_dir, spread_s=0, max_age_s=math.inf
    ) as client:
        following = asyncio.create_task(client.watch(told.put_nowait))
        assert (await asyncio.wait_for(told.get(), 20)).release == old.number
        service.point_at(new)
        assert (await asyncio.wait_for(told.get(), 20)).release == new.number
        assert (await client.predict("BTC", candles)).release == new.number
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        service.point_at(old)
        assert (await client.refresh()).release == old.number
    assert SIGNED_PATH in {request.path for request in service.requests}


def test_a_decision_waits_for_no_download(
    service: StubService, bot: MakeBot, old: Release, new: Release, candles: pl.DataFrame
) -> None:
    """The service hangs in the middle of a file; meanwhile the bot decides again and again, from what it has."""
    service.point_at(old)
    client = bot(timeout_s=60)
    service.files[new.sha256("BTC", "model.onnx")] = HALF
    with watching(client):
        wait_until(lambda: client.active.has_model, "the first release is in use")
        service.point_at(new)
        wait_until(lambda: new.sha256("BTC", "model.onnx") in service.downloads(), "the download has begun")
        began = time.monotonic()
        assert {client.predict("BTC", candles).release for _ in range(20)} == {old.number}
        assert client._updater.is_waiting and time.monotonic() - began < 30
        service.released.set()


async def test_asyncio_a_hanging_service_holds_up_neither_loop_nor_decision(
    service: StubService, cache_dir: Path, old: Release, new: Release, candles: pl.DataFrame
) -> None:
    service.point_at(old)
    now = asyncio.get_running_loop().time
    async with AsyncClient(
        service.url, TOKEN, service.public_key, cache_dir, timeout_s=60, max_age_s=math.inf
    ) as client:
        assert (await client.refresh()).release == old.number
        service.files[new.sha256("BTC", "model.onnx")] = HALF
        service.point_at(new)
        asking = asyncio.create_task(client.refresh())
        while new.sha256("BTC", "model.onnx") not in service.downloads():
            await asyncio.sleep(0.005)
        began = now()
        assert {(await client.predict("BTC", candles)).release for _ in range(20)} == {old.number}
        assert not asking.done() and now() - began < 30
        service.released.set()
        assert "cannot be reached" in str((await asking).problem)


async def test_asyncio_starts_offline_and_without_anything_is_neutral(
    service: StubService, bot: MakeBot, cache_dir: Path, tmp_path: Path, old: Release, candles: pl.DataFrame
) -> None:
    service.point_at(old)
    bot().refresh()
    service.stop()
    for folder, release, says in (
        (cache_dir, old.number, "stale since "),
        (tmp_path / "empty", None, "no model: "),
    ):
        async with AsyncClient(service.url, TOKEN, service.public_key, folder, max_age_s=math.inf) as client:
            assert (await client.predict("BTC", candles)).release == release
            assert "cannot be reached" in str((await client.refresh()).problem)
            decision = await client.predict("BTC", candles)
            assert (decision.release, decision.reason.startswith(says)) == (release, True)


def test_closing_while_it_asks_is_told_and_not_raised(
    service: StubService, bot: MakeBot, old: Release
) -> None:
    service.point_at(old)
    client = bot()
    is_asked, may_answer = threading.Event(), threading.Event()

    def hold() -> None:
        is_asked.set()
        may_answer.wait(20)

    service.before_snapshot = hold
    found: list[Active] = []
    asking = threading.Thread(target=lambda: found.append(client.refresh()))
    asking.start()
    assert is_asked.wait(20)
    client.close()
    may_answer.set()
    asking.join(20)
    assert [active.problem is not None for active in found] == [True]


async def test_bots_of_one_process_share_what_they_loaded_and_verified(
    service: StubService, cache_dir: Path, old: Release
) -> None:
    service.point_at(old)
    keys = PublicKeys(service.public_key)
    bots = [AsyncClient(service.url, TOKEN, keys, cache_dir) for _ in range(10)]
    assert {(await one.refresh()).release for one in bots} == {old.number}
    assert len({id(one._updater._state.predictors["BTC"]) for one in bots}) == 1
    assert len(service.downloads()) == 4 * len(COINS)
    for one in bots:
        await one.close()


def silence(service: StubService) -> Callable[[], Iterator[bytes]]:
    """An answer that never comes."""

    def wait() -> Iterator[bytes]:
        service.released.wait(600)
        yield b""

    return wait


class TestStop:
    """A bot that is stopped on purpose says so, and needs nobody's answer for it."""

    def test_the_last_heartbeat_says_that_the_bot_stops(
        self, service: StubService, bot: MakeBot, old: Release
    ) -> None:
        service.point_at(old)
        with bot(spread_s=0) as client, watching(client):
            wait_until(lambda: service.heartbeats, "a heartbeat")
        client.close()
        assert [said.get("is_stopping") for said in service.heartbeats[:-1]].count(True) == 0
        assert service.heartbeats[-1]["is_stopping"] is True
        assert service.heartbeats[-1]["instance"] == client.instance

    async def test_asyncio_says_so_too(self, service: StubService, cache_dir: Path, old: Release) -> None:
        service.point_at(old)
        async with AsyncClient(service.url, TOKEN, service.public_key, cache_dir, spread_s=0) as client:
            following = asyncio.create_task(client.watch(lambda active: None))
            while not service.heartbeats:
                await asyncio.sleep(0.005)
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following
        assert service.heartbeats[-1]["is_stopping"] is True

    def test_a_bot_that_the_service_never_heard_of_says_nothing(
        self, service: StubService, bot: MakeBot, old: Release
    ) -> None:
        service.point_at(old)
        with bot() as client:
            client.refresh()
        assert service.heartbeats == []

    def test_a_service_that_does_not_answer_holds_no_bot_up(
        self, service: StubService, bot: MakeBot, old: Release
    ) -> None:
        service.point_at(old)
        client = bot(spread_s=0, timeout_s=600)
        with watching(client):
            wait_until(lambda: service.heartbeats, "a heartbeat")
            service.raw_answers[HEARTBEAT_PATH] = silence(service)
        closing = threading.Thread(target=client.close)
        closing.start()
        closing.join(30)
        assert not closing.is_alive()
