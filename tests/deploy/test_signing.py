"""What bots are given is signed: by keys that never leave their folder, anew each minute, and never an epoch twice."""

import json
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from audit import services as audit
from audit.errors import Conflict, NotAllowed, Unavailable
from audit.models import AuditEvent
from deploy import keys, pointer, services, signing, snapshot, watermark
from deploy.models import PointerMove, SigningKey
from deploy.signing import Envelope
from runtime.envelope import PublicKeys, Signed, verify
from runtime.errors import EnvelopeRefused
from tests import scenarios
from tests.scenarios import APPROVER, LAUNCHER

pytestmark = pytest.mark.django_db
NOON = datetime(2030, 1, 1, 12, 0, 30, tzinfo=UTC)
WHY = "the tests"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, settings: Settings) -> Path:
    settings.SIGNING_KEYS_DIR = tmp_path / "keys"
    return tmp_path / "keys"


def opened(found: Envelope) -> Signed:
    return verify(found.body, PublicKeys([key.public_hex for key in keys.active()]))


def test_the_bots_verifier_reads_what_the_service_signed() -> None:
    move = scenarios.service_in_use()
    found = signing.envelope(NOON)
    read = opened(found)
    assert (read.snapshot.epoch, read.snapshot.line) == (found.epoch, "v6_enhanced") == (1, "v6_enhanced")
    assert sorted(read.snapshot.models) == ["BTC", "ETH", "SOL"]
    assert (read.issued_at, read.expires_at) == (NOON.replace(second=0), NOON.replace(second=0) + timedelta(minutes=3))
    assert read.audit_seq >= move.audit_seq
    assert AuditEvent.objects.get(pk=read.audit_seq).hash == read.audit_hash
