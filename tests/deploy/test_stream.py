"""A bot that holds a stream open hears of everything that is signed, at once, and of nothing else."""

import asyncio
from collections.abc import Callable, Collection, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.utils import timezone
from pytest_django import Settings

from accounts import services as accounts
from accounts.models import ApiToken
from crpbot.asgi import django_application
from deploy.edge import freshness, streams
from deploy.edge.application import STREAM_PATH, Edge
from deploy.releases import decide
from deploy.serving import events, keys
from deploy.serving.advance import advance_revision
from tests import factories, scenarios
from tests.deploy.streaming import PATIENCE_SECONDS, Stream
from tests.scenarios import APPROVER

pytestmark = [pytest.mark.usefixtures("committed"), pytest.mark.slow]
WHY = "the tests"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, settings: Settings) -> Path:
    settings.SIGNING_KEYS_DIR = tmp_path / "keys"
    return tmp_path / "keys"


@pytest.fixture
def edge() -> Edge:
    return Edge(django_application)


@pytest.fixture
def token() -> str:
    return factories.token(factories.person("bot"), "bot")


def told(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async_to_sync(story)()


async def pin() -> None:
    await sync_to_async(decide.pin)(actor=APPROVER, reason="V6 is broken")


async def advance() -> None:
    await sync_to_async(advance_revision)(1, actor=APPROVER, reason="one more")


def test_the_signed_snapshot_of_this_moment_comes_at_once(edge: Edge, token: str) -> None:
    scenarios.service_in_use()

    async def story() -> None:
        async with Stream(edge, token) as bot:
            await bot.hears(1)
            signed = await sync_to_async(bot.signed)()
            assert (signed.snapshot.revision, signed.snapshot.line) == (1, "v6_enhanced")
            assert bot.status == 200
            assert bot.headers["content-type"] == "text/event-stream"
            assert "no-store" in bot.headers["cache-control"]
            assert bot.headers["x-accel-buffering"] == "no"
            assert bot.bodies[0] == b"retry: 2000\n\n"

    told(story)


def test_a_move_is_heard_without_redis(edge: Edge, token: str) -> None:
    scenarios.service_in_use()

    async def story() -> None:
        async with Stream(edge, token) as bot:
            await bot.hears(1)
            await pin()
            await bot.hears(2)
            assert (await sync_to_async(bot.signed)()).snapshot.line == "v5"

    told(story)


def test_every_subscriber_is_sent_the_same_bytes(edge: Edge, token: str) -> None:
    scenarios.service_in_use()

    async def story() -> None:
        async with Stream(edge, token) as first, Stream(edge, token) as second:
            await pin()
            for bot in (first, second):
                await bot.hears(2)
            assert first.events[-1] is second.events[-1]

    told(story)


def test_what_is_signed_again_is_sent_again(edge: Edge, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scenarios.service_in_use()
    real = timezone.now

    async def story() -> None:
        async with Stream(edge, token) as bot:
            await bot.hears(1)
            before = await sync_to_async(bot.signed)()
            monkeypatch.setattr(timezone, "now", lambda: real() + timedelta(seconds=60))
            await bot.until(lambda: len(bot.events) > 1, "another envelope")
            after = await sync_to_async(bot.signed)()
            assert bot.revisions == [1, 1]
            assert after.issued_at > before.issued_at
            assert after.snapshot.content == before.snapshot.content

    told(story)


def test_a_release_that_awaits_approval_is_announced_on_open_streams(edge: Edge, token: str) -> None:
    scenarios.service_in_use()

    async def story() -> None:
        async with Stream(edge, token) as bot:
            await bot.hears(1)
            assert (await sync_to_async(bot.signed)()).next is None
            release = await sync_to_async(scenarios.awaiting_approval)()
            await bot.until(lambda: len(bot.events) > 1, "the announcement")
            announced = (await sync_to_async(bot.signed)()).next
            assert announced is not None
            assert (announced.release, bot.revisions[-1]) == (release.pk, 1)

    told(story)


def test_a_revoked_tokens_stream_ends_and_the_others_go_on(edge: Edge, token: str) -> None:
    scenarios.service_in_use()
    other = factories.token(factories.person("second"), "bot")
    row = ApiToken.objects.get(digest=accounts.hash_token(token))

    async def story() -> None:
        async with Stream(edge, token) as bot, Stream(edge, other) as second:
            await second.hears(1)
            await sync_to_async(accounts.revoke_token)(row, actor="the tests")
            await bot.until(lambda: bot.is_complete, "the end of the stream")
            await pin()
            await second.hears(2)
            assert bot.moves == [1]
            assert not second.is_complete

    told(story)


def test_the_stream_of_a_person_whose_role_was_withdrawn_ends(edge: Edge) -> None:
    scenarios.service_in_use()
    person = factories.person("oscar", "operator")
    token = factories.token(person, "operator")

    async def story() -> None:
        async with Stream(edge, token) as watcher:
            await watcher.hears(1)
            await sync_to_async(accounts.withdraw)(person, factories.Role.OPERATOR, actor="the tests")
            await watcher.until(lambda: watcher.is_complete, "the end of the stream")

    told(story)


def test_a_bot_that_comes_while_the_tokens_are_looked_up_stays(edge: Edge, token: str) -> None:
    scenarios.service_in_use()
    other = factories.token(factories.person("second"), "bot")

    async def story() -> None:
        asking, may_go_on = asyncio.Event(), asyncio.Event()
        may_serve = edge._find_allowed

        async def slowly(digests: Collection[str], since: float) -> set[str]:
            answer = await may_serve(digests, since)
            asking.set()
            await may_go_on.wait()
            return answer

        edge.streams = streams.Streams(edge._documents[STREAM_PATH].get, slowly)
        async with Stream(edge, token) as first:
            await asyncio.wait_for(asking.wait(), PATIENCE_SECONDS)
            async with Stream(edge, other) as second:
                await second.hears(1)
                may_go_on.set()
                await pin()
                for bot in (first, second):
                    await bot.hears(2)
                    assert not bot.is_complete

    told(story)


def test_an_unknown_token_gets_no_stream(edge: Edge) -> None:
    scenarios.service_in_use()

    async def story() -> None:
        async with Stream(edge, "crp_bot_made_up") as stranger:
            await stranger.until(lambda: stranger.is_complete, "the whole answer")
            assert stranger.status == 401
            assert stranger.headers["content-type"] == "application/problem+json"

    told(story)


def test_before_the_first_pointer_it_says_what_is_missing(edge: Edge, token: str) -> None:
    async def story() -> None:
        async with Stream(edge, token) as bot:
            await bot.until(lambda: bot.is_complete, "the whole answer")
            assert bot.status == 503
            assert "must inherit" in bot.problem["detail"]

    told(story)


def test_a_slow_bot_delays_no_other_and_then_gets_only_the_newest(edge: Edge, token: str) -> None:
    scenarios.service_in_use()

    async def story() -> None:
        async with Stream(edge, token) as slow, Stream(edge, token) as quick:
            await slow.hears(1)
            slow.has_room.clear()
            for revision in (2, 3, 4, 5):
                await advance()
                await quick.hears(revision)
            assert slow.moves == [1]
            slow.has_room.set()
            await slow.hears(5)
            # The second was on its way when the room ended; of those behind it only the newest was kept.
            assert slow.moves == [1, 2, 5]
            assert quick.moves == [1, 2, 3, 4, 5]

    told(story)


def test_a_stuck_bot_is_dropped(edge: Edge, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "SEND_SECONDS", 0.1)
    scenarios.service_in_use()

    async def story() -> None:
        async with Stream(edge, token) as stuck, Stream(edge, token) as quick:
            await stuck.hears(1)
            stuck.has_room.clear()
            await pin()
            await quick.hears(2)
            await stuck.until(stuck.task.done, "the end of the stuck one")
            assert len(edge.streams) == 1

    told(story)


def test_a_quiet_stream_says_that_it_lives(edge: Edge, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "COMMENT_SECONDS", 0.1)
    scenarios.service_in_use()

    async def story() -> None:
        async with Stream(edge, token) as bot:
            await bot.until(lambda: bot.bodies.count(events.COMMENT) >= 2, "two comments")
            assert bot.moves == [1]

    told(story)


def test_a_full_process_asks_the_next_bot_to_poll(
    edge: Edge, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "MAX_STREAMS", 1)
    scenarios.service_in_use()

    async def story() -> None:
        async with Stream(edge, token), Stream(edge, token) as second:
            await second.until(lambda: second.is_complete, "the whole answer")
            assert second.status == 503
            assert "Poll" in second.problem["detail"]

    told(story)


def test_one_token_cannot_take_every_stream(edge: Edge, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_STREAMS_OF_TOKEN", 1)
    scenarios.service_in_use()
    other = factories.token(factories.person("rival"), "bot")

    async def story() -> None:
        async with Stream(edge, token), Stream(edge, token) as second, Stream(edge, other) as rival:
            await second.until(lambda: second.is_complete, "the whole answer")
            assert second.status == 503
            assert "more than one token" in second.problem["detail"]
            await rival.hears(1)
        async with Stream(edge, token) as later:
            await later.hears(1)

    told(story)


def test_streams_survive_an_unreadable_key_and_then_catch_up(edge: Edge, token: str, folder: Path) -> None:
    scenarios.service_in_use()

    async def story() -> None:
        async with Stream(edge, token) as bot:
            await bot.hears(1)
            (key,) = await sync_to_async(keys.list_active)()
            private = folder / f"{key.key_id}.pem"
            private.rename(folder / "elsewhere")
            await pin()
            await asyncio.sleep(freshness.FRESH_SECONDS + 0.05)
            async with Stream(edge, token) as refused:  # nothing can be signed: no stream begins
                assert refused.status == 503
            assert bot.moves == [1]
            (folder / "elsewhere").rename(private)
            await bot.hears(2)

    told(story)


def test_an_edge_that_nobody_listens_to_looks_at_nothing(edge: Edge, token: str) -> None:
    scenarios.service_in_use()

    async def story() -> None:
        before = asyncio.all_tasks()
        async with Stream(edge, token) as bot:
            await bot.hears(1)
        assert len(edge.streams) == 0
        if left := asyncio.all_tasks() - before:
            _, left = await asyncio.wait(left, timeout=PATIENCE_SECONDS)
        assert not left, [task.get_stack() for task in left]

    told(story)
