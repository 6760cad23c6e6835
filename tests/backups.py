"""Backups of a service in use, whose files, keys and backups are those of one test."""

from pathlib import Path
from typing import Any

import pytest

from deploy.models import PointerMove
from deploy.pointer import pointer
from deploy.releases import decide
from tests import factories, scenarios
from tests.scenarios import APPROVER
from training.models import Coin, Dataset


class Stored(scenarios.Build):
    """A release on candles whose files are really stored."""

    def dataset(self, coin: Coin) -> Dataset:
        return Dataset.objects.filter(coin=coin).first() or factories.market(coin.symbol)


@pytest.fixture
def folders(settings: Any, tmp_path: Path) -> None:
    """Backups, keys and files of this test alone."""
    settings.BACKUP_DIR = tmp_path / "backups"
    settings.SIGNING_KEYS_DIR = tmp_path / "keys"
    settings.SIGNING_KEYS_DIR.mkdir()
    settings.AUDIT_HEADS_FILE = tmp_path / "keys" / "audit_heads.jsonl"
    atomic = {"BACKEND": "training.atomic_storage.AtomicFileStorage"}
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {**atomic, "OPTIONS": {"location": tmp_path / "files"}},
        "backups": {**atomic, "OPTIONS": {"location": settings.BACKUP_DIR}},
    }


@pytest.fixture
def service(committed: None, folders: None) -> PointerMove:
    """A service in use: a fallback, an inherited release, people and tokens."""
    factories.token(factories.person("anna", "approver"), "approver")
    factories.token(factories.person("desk"), "bot")
    figures = scenarios.for_every_coin(scenarios.inaccurate)
    fallback = Stored(line="v5", purpose=scenarios.Purpose.FALLBACK, figures=figures).settled()
    decide.register_fallback(fallback, actor=APPROVER, reason="the last line that behaved")
    collapsed = scenarios.for_every_coin(scenarios.collapsed)
    inherited = Stored(line="v6_enhanced", purpose=scenarios.Purpose.INHERITED, figures=collapsed).settled()
    decide.inherit(inherited, actor=APPROVER, reason="as the bot stands today")
    now = pointer.get_current()
    assert now is not None
    return now
