"""The rows of releases, the pointer and bots."""

from deploy.models.alarm import Alarm
from deploy.models.backup import BackupJournal, BackupTask
from deploy.models.bot import Acknowledgement, Bot, Convergence, LiveTotal, LiveWindow
from deploy.models.identity import ServiceIdentity
from deploy.models.key import KeySet, SigningKey
from deploy.models.pointer import FallbackRegistration, PointerMove
from deploy.models.release import Release, ReleaseCoin, ReleaseStatus
from deploy.models.self_check import ReconcilePass, StoredFile
from deploy.models.statement import Statement

__all__ = [
    "Acknowledgement",
    "Alarm",
    "BackupJournal",
    "BackupTask",
    "Bot",
    "Convergence",
    "FallbackRegistration",
    "KeySet",
    "LiveTotal",
    "LiveWindow",
    "PointerMove",
    "ReconcilePass",
    "Release",
    "ReleaseCoin",
    "ReleaseStatus",
    "ServiceIdentity",
    "SigningKey",
    "Statement",
    "StoredFile",
]
