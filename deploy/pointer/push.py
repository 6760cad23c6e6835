"""Telling the web processes that the pointer moved, over Redis: in addition to their asking, never instead of it.

A message says no more than *look*: what is true they read from the database. Without Redis they find out by asking.
"""

import asyncio
import logging
import random
import threading
from collections.abc import AsyncIterator

import redis
import redis.asyncio
from django.conf import settings
from django.db import transaction
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

CHANNEL = "crpbot.moves"
TIMEOUT_SECONDS = 1.0
"""Of connecting and of each answer."""
LISTEN_SECONDS = 10.0
RECONNECT_SECONDS = (0.2, 1.0)
"""Spread, so that not every web process returns to a Redis that just came back at the same moment."""

logger = logging.getLogger(__name__)


def announce(revision: int) -> None:
    """Have every web process told of this revision once the transaction has committed; a move never waits for it."""
    # Not a daemon: a command that moves the pointer ends at once, and its message is to be sent all the same.
    tell = threading.Thread(target=_publish, args=(revision,), name=f"push of revision {revision}")
    transaction.on_commit(tell.start, robust=True)


async def moves() -> AsyncIterator[None]:
    """One item for each time that something may have moved. Never ends; the first comes once Redis listens to us.

    One comes after every reconnection too: what was said meanwhile, nobody heard.
    """
    is_told = False
    while True:
        try:
            async with _listening() as client, client.pubsub(ignore_subscribe_messages=True) as channel:
                await channel.subscribe(CHANNEL)
                is_told = False
                yield
                async for _ in _messages(channel):
                    yield
        except (RedisError, OSError) as error:
            if (task := asyncio.current_task()) and task.cancelling():
                # A connection that cannot even be closed must not take the place of being told to end.
                raise asyncio.CancelledError from error
            if not is_told:  # once, not at every attempt
                logger.warning("Redis does not tell of moves, the database is asked instead: %s", error)
            is_told = True
        await asyncio.sleep(random.uniform(*RECONNECT_SECONDS))


async def _messages(channel: PubSub) -> AsyncIterator[None]:
    """Whatever comes. Raises ConnectionError where not even a ping is answered: half of a connection tells nothing."""
    is_asked = False
    while True:
        if await channel.get_message(timeout=LISTEN_SECONDS):
            is_asked = False
            yield
        elif is_asked:
            raise redis.ConnectionError("it no longer answers")
        else:
            is_asked = True
            await channel.ping()


def _publish(revision: int) -> None:
    try:
        with redis.Redis.from_url(
            settings.REDIS_URL,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        ) as client:
            client.publish(CHANNEL, str(revision))
    except (RedisError, OSError) as error:
        logger.warning(
            "revision %d could not be pushed, bots hear of it when the web asks: %s", revision, error
        )


def _listening() -> redis.asyncio.Redis:
    return redis.asyncio.Redis.from_url(
        settings.REDIS_URL,
        socket_connect_timeout=TIMEOUT_SECONDS,
        retry=AsyncRetry(NoBackoff(), 0),
    )
