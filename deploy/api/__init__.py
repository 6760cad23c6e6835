"""The snapshot, releases, moves and decisions, for programs."""

from deploy.api.active import Active
from deploy.api.decisions import Approve, Cancel, Decline, Moves, Pin, Register, Restore
from deploy.api.releases import ReleaseDetail, Releases

__all__ = [
    "Active",
    "Approve",
    "Cancel",
    "Decline",
    "Moves",
    "Pin",
    "Register",
    "ReleaseDetail",
    "Releases",
    "Restore",
]
