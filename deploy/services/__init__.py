"""What is asked of a release or the pointer: launch, advance and settle, decide."""

from deploy.services.advancing import advance_epoch
from deploy.services.coin_set import add_coin, consequences, set_required
from deploy.services.convergence import watch_bots
from deploy.services.deciding import approve, decline, inherit, pin, register_fallback, restore
from deploy.services.hearing import Heard, heartbeat, heartbeats
from deploy.services.launching import cancel, launch
from deploy.services.live import Posted, hold_back, receive_window, watch_live
from deploy.services.reporting import Heartbeat, Report
from deploy.services.settling import advance, advance_for, reconcile_once
from deploy.services.signing_keys import activate_key, create_key, retire_key
from deploy.services.watching import record_alarms, watch_fallback
from deploy.services.withdrawing import withdraw_dataset

__all__ = [
    "Heard",
    "Heartbeat",
    "Posted",
    "Report",
    "activate_key",
    "add_coin",
    "advance",
    "advance_epoch",
    "advance_for",
    "approve",
    "cancel",
    "consequences",
    "create_key",
    "decline",
    "heartbeat",
    "heartbeats",
    "hold_back",
    "inherit",
    "launch",
    "pin",
    "receive_window",
    "reconcile_once",
    "record_alarms",
    "register_fallback",
    "restore",
    "retire_key",
    "set_required",
    "watch_bots",
    "watch_fallback",
    "watch_live",
    "withdraw_dataset",
]
