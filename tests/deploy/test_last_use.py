"""When a token was last used is stored in the background, whichever way the request went."""

import asyncio
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import OperationalError

from accounts import tokens
from accounts.models import ApiToken
from crpbot.asgi import django_application
from deploy.edge.application import ACTIVE_PATH, Edge
from tests import factories, scenarios
from tests.deploy.asgi_client import Answer, ask

pytestmark = [pytest.mark.usefixtures("committed"), pytest.mark.slow]


@pytest.fixture
def bot() -> str:
    scenarios.service_in_use()
    tokens.store_uses()
    return factories.token(factories.person("bot"), "bot")


async def ask_and_store(edge: Edge, path: str, raw: str) -> Answer:
    """The answer, once what it noted is stored."""
    answer = await ask(edge, path=path, authorization=f"Bearer {raw}")
    if tokens.has_unstored_uses():
        while edge.last_uses._storing is None:
            await asyncio.sleep(0)  # until the timer has run
        await edge.last_uses._storing
    return answer


@pytest.mark.parametrize("path", [ACTIVE_PATH, f"/api/v1/artifacts/{'0' * 64}"], ids=["edge", "API"])
def test_a_use_is_stored_after_the_answer(bot: str, path: str) -> None:
    answer = async_to_sync(ask_and_store)(Edge(django_application), path, bot)
    assert answer.status in (200, 404)
    assert ApiToken.objects.get(user__username="bot").last_used_at is not None


def test_a_refused_token_is_not_noted(bot: str) -> None:
    assert (
        async_to_sync(ask_and_store)(Edge(django_application), ACTIVE_PATH, "crp_bot_made_up").status == 401
    )
    assert not tokens.has_unstored_uses()


def test_a_use_that_cannot_be_stored_fails_no_request(
    bot: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise OperationalError("read-only")

    monkeypatch.setattr(tokens, "store_uses", fail)
    answer = async_to_sync(ask_and_store)(Edge(django_application), ACTIVE_PATH, bot)
    assert answer.status == 200
    assert "the last use of tokens was not stored" in caplog.text
