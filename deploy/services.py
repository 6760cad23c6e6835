"""What is asked of a release or the pointer: launch, advance and settle, decide."""

from deploy.alarms.record import record_alarms
from deploy.bots.convergence import monitor_bots
from deploy.bots.heartbeat_checks import Heartbeat, ReceivedHeartbeat
from deploy.bots.heartbeats import HeartbeatAnswer, receive_heartbeat, receive_heartbeats
from deploy.bots.live_gates import PostedWindow, monitor_live_gates, pin_if_breached, receive_window
from deploy.pointer.fallback_monitor import watch_fallback
from deploy.reconcile import reconcile_once
from deploy.releases.coins import add_coin, list_consequences, set_required
from deploy.releases.decide import approve, cancel, decide, decline, inherit, pin, register_fallback, restore
from deploy.releases.launch import launch
from deploy.releases.settle import advance, advance_for
from deploy.releases.withdraw import withdraw_dataset
from deploy.serving.advance import advance_revision
from deploy.serving.key_decisions import activate_key, create_key, retire_key

__all__ = [
    "Heartbeat",
    "HeartbeatAnswer",
    "PostedWindow",
    "ReceivedHeartbeat",
    "activate_key",
    "add_coin",
    "advance",
    "advance_for",
    "advance_revision",
    "approve",
    "cancel",
    "create_key",
    "decide",
    "decline",
    "inherit",
    "launch",
    "list_consequences",
    "monitor_bots",
    "monitor_live_gates",
    "pin",
    "pin_if_breached",
    "receive_heartbeat",
    "receive_heartbeats",
    "receive_window",
    "reconcile_once",
    "record_alarms",
    "register_fallback",
    "restore",
    "retire_key",
    "set_required",
    "watch_fallback",
    "withdraw_dataset",
]
