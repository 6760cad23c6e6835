"""The snapshot, releases, moves and decisions, for programs."""

from deploy.api.active import Active, ActiveStream, SignedActive
from deploy.api.alarms import Alarms
from deploy.api.bots import Acknowledgements, Bots, Heartbeat, MoveDetail
from deploy.api.coins import Coins, OneCoin
from deploy.api.datasets import WithdrawDataset
from deploy.api.decisions import DECISION_VIEWS, Moves, Pin
from deploy.api.keys import Keys
from deploy.api.live import LiveWindows
from deploy.api.releases import ReleaseDetail, Releases
from deploy.api.reports import ReleaseReport

__all__ = [
    "DECISION_VIEWS",
    "Acknowledgements",
    "Active",
    "ActiveStream",
    "Alarms",
    "Bots",
    "Coins",
    "Heartbeat",
    "Keys",
    "LiveWindows",
    "MoveDetail",
    "Moves",
    "OneCoin",
    "Pin",
    "ReleaseDetail",
    "ReleaseReport",
    "Releases",
    "SignedActive",
    "WithdrawDataset",
]
