"""Retiring a silent bot that will not come back, so that nobody waits for it."""

from typing import Any

from accounts.decisions import decision
from accounts.roles import Actor, Role
from audit import services as audit
from common.errors import Conflict, NotFound
from deploy.bots import fleet
from deploy.models import Bot
from deploy.pointer import pointer
from deploy.rules import BotState

RETIRERS = (Role.OPERATOR, Role.APPROVER)


def find_bot(name: str, instance: str) -> Any:
    """A bot with its state, as of `fleet.list_bots_with_state`. Raises NotFound."""
    rows = fleet.list_bots_with_state(pointer.get_current())
    bot = rows.filter(name=name, instance=instance).first()
    if bot is None:
        raise NotFound(
            f"There is no bot {name} ({instance}). `manage.py bots` lists those that have reported."
        )
    return bot


def retire_bot(name: str, instance: str, *, actor: Actor, reason: str) -> Any:
    """Count a silent bot as *gone*: it raises no alarm, and no key waits for it. Its next heartbeat brings it back.

    Returns the bot with its state. Raises NotAllowed unless an operator or an approver asks, NotFound, and Conflict for a
    bot that reports or is gone already.
    """
    bot = find_bot(name, instance)
    authorised = decision("bot.retire", bot, actor=actor, role=RETIRERS, to="retire a bot", reason=reason)
    with authorised as reason, audit.locked():
        bot = find_bot(name, instance)
        if bot.state == BotState.GONE:
            raise Conflict(f"{bot} is gone already: nobody waits for it, and it raises no alarm.")
        # Heartbeats take no lock of the audit: one that arrives meanwhile wins.
        as_seen = Bot.objects.filter(pk=bot.pk, last_heard_at=bot.last_heard_at)
        if not bot.is_awaited or not as_seen.update(is_stopped=True):
            raise Conflict(
                f"{bot} reports. Stop its program; one that is closed, and not killed, says so and needs no retirement."
            )
        detail = {"revision": bot.revision, "last_heard_at": bot.last_heard_at.isoformat()}
        audit.record("bot.retired", bot, actor=actor, reason=reason, detail=detail)
        return find_bot(name, instance)
