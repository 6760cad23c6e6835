"""Which bots trust which signing keys, as their heartbeats say."""

from collections.abc import Mapping
from dataclasses import dataclass

from deploy.bots import fleet
from deploy.models import Bot, SigningKey
from deploy.pointer import pointer
from deploy.rules import BotState, KeyState
from deploy.serving import keys


@dataclass(frozen=True)
class KeyTrust:
    """Of `bots` expected bots: how many trust a key, and how many could verify nothing without it."""

    bots: int
    trusted_by: int
    cut_off: int


@dataclass(frozen=True)
class FleetTrust:
    """The keys that each expected bot trusts: every bot but those that are *gone*."""

    trusted: Mapping[Bot, frozenset[str]]

    def count(self, key: SigningKey) -> KeyTrust:
        cut_off = self.list_cut_off(key) if key.state != KeyState.RETIRED else []
        trusted_by = sum(key.key_id in key_ids for key_ids in self.trusted.values())
        return KeyTrust(len(self.trusted), trusted_by, len(cut_off))

    def list_cut_off(self, key: SigningKey) -> list[Bot]:
        """The bots that would trust no signing key without this one. A bot that does not say what it trusts is one of them.

        They follow the next set of keys by themselves once they ask for it; until then they follow no move.
        """
        others = {active.key_id for active in keys.list_active() if active.pk != key.pk}
        return [
            bot
            for bot, key_ids in self.trusted.items()
            if others.isdisjoint(key_ids) and (key.key_id in key_ids or not key_ids)
        ]


def load_fleet_trust() -> FleetTrust:
    bots = fleet.list_bots_with_state(pointer.get_current()).exclude(state=BotState.GONE.value)
    return FleetTrust(
        {bot: frozenset(bot.trusted_keys) for bot in bots.only("name", "instance", "trusted_keys")}
    )
