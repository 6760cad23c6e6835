"""Notifying the web processes over Redis that the pointer moved. They also poll, so nothing depends on it.

A message only says *read again*: the truth is in the database. Without Redis, web processes learn of a move by polling.
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

from common.metrics import time_redis

CHANNEL = "crpbot.moves"
LISTEN_SECONDS = 10.0
RECONNECT_SECONDS = (0.2, 1.0)
"""At random between these, so that the web processes do not all return to a restarted Redis at once."""

logger = logging.getLogger(__name__)


def announce(revision: int) -> None:
    """Notify every web process of this revision once the transaction has committed. A move never waits for it."""
    # Not a daemon: a command that moves the pointer ends at once, and its message must still be sent.
    thread = threading.Thread(target=_publish, args=(revision,), name=f"push of revision {revision}")
    transaction.on_commit(thread.start, robust=True)


async def watch_moves() -> AsyncIterator[None]:
    """One item each time the pointer may have moved. Never ends; the first comes when the subscription is in place.

    One comes after every reconnection too, because messages sent meanwhile are lost.
    """
    is_logged = False
    while True:
        try:
            async with _connect() as client, client.pubsub(ignore_subscribe_messages=True) as channel:
                await channel.subscribe(CHANNEL)
                _raise_if_cancelled()
                is_logged = False
                yield
                async for _ in _read_messages(channel):
                    yield
        except (RedisError, OSError) as error:
            _raise_if_cancelled()
            if not is_logged:  # once, not at every attempt
                logger.warning(
                    "Redis is not available, so moves are found by polling the database: %s", error
                )
            is_logged = True
        await asyncio.sleep(random.uniform(*RECONNECT_SECONDS))


async def _read_messages(channel: PubSub) -> AsyncIterator[None]:
    """Every message. Raises ConnectionError when a ping is not answered: half a connection brings no messages."""
    is_pinged = False
    while True:
        message = await channel.get_message(timeout=LISTEN_SECONDS)
        _raise_if_cancelled()
        if message:
            is_pinged = False
            yield
        elif is_pinged:
            raise redis.ConnectionError("Redis no longer answers")
        else:
            is_pinged = True
            await channel.ping()


def _raise_if_cancelled() -> None:
    """Cancel again: the client, or a connection that cannot be closed, may have hidden the task's cancellation."""
    if (task := asyncio.current_task()) and task.cancelling():
        raise asyncio.CancelledError


def connect_briefly() -> redis.Redis:
    """A client for one short call, which fails at once where Redis does not answer."""
    return redis.Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=settings.REDIS_TIMEOUT_SECONDS,
        socket_connect_timeout=settings.REDIS_TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )


def _publish(revision: int) -> None:
    try:
        with time_redis("publish"), connect_briefly() as client:
            client.publish(CHANNEL, str(revision))
    except (RedisError, OSError) as error:
        logger.warning(
            "revision %d could not be pushed; web processes find it by polling: %s", revision, error
        )


def _connect() -> redis.asyncio.Redis:
    return redis.asyncio.Redis.from_url(
        settings.REDIS_URL,
        socket_connect_timeout=settings.REDIS_TIMEOUT_SECONDS,
        retry=AsyncRetry(NoBackoff(), 0),
    )
