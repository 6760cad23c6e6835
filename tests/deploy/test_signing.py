"""What bots are given is signed: by keys that never leave their folder, again each minute, and never a revision twice."""

import base64
import json
import os
import stat
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from pytest_django import Settings
from securesystemslib import dsse
from securesystemslib.signer import CryptoSigner

from audit import services as audit
from audit.models import AuditEvent
from common.errors import Conflict, InvalidInput, NotAllowed, Unavailable
from crpbot_runtime.errors import EnvelopeRefused
from crpbot_runtime.protocol.envelope import SignedSnapshot, verify_envelope
from crpbot_runtime.protocol.public_keys import PublicKeys
from deploy.alarms import detect
from deploy.bots import key_decisions
from deploy.models import PointerMove, SigningKey
from deploy.pointer import fallback, pointer
from deploy.releases.decide import approve, decline, pin, register_fallback
from deploy.rules import AlarmName, KeyState, MoveKind, Purpose
from deploy.serving import keys, revision_log, signing, snapshot
from deploy.serving.advance import advance_revision
from deploy.serving.snapshot import Snapshot
from gates.services.policies import policy_in_force
from tests import scenarios
from tests.scenarios import APPROVER, LAUNCHER

pytestmark = [pytest.mark.django_db, pytest.mark.slow]
NOON = datetime(2030, 1, 1, 12, 0, 30, tzinfo=UTC)
WHY = "the tests"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, settings: Settings) -> Path:
    settings.SIGNING_KEYS_DIR = tmp_path / "keys"
    return tmp_path / "keys"


@pytest.fixture
def production(settings: Settings) -> None:
    settings.IS_EMBEDDED = False


def opened(found: Snapshot, *trusted: SigningKey) -> SignedSnapshot:
    return verify_envelope(found.body, PublicKeys([key.public_hex for key in trusted or keys.list_active()]))


def payload(found: Snapshot) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(base64.b64decode(json.loads(found.body)["payload"]))
    return document


def new_key() -> SigningKey:
    return key_decisions.activate_key(
        key_decisions.create_key(actor=APPROVER, reason=WHY), actor=APPROVER, reason=WHY
    )


def go_back_to(revision: int) -> None:
    """What restoring a backup does to the moves: those after it never were."""
    with connection.cursor() as cursor:
        cursor.execute("DROP TRIGGER deploy_pointermove_no_delete")
        cursor.execute("DELETE FROM deploy_pointermove WHERE revision > %s", [revision])
    call_command("migrate", verbosity=0)


class TestTheEnvelope:
    def test_is_read_by_the_verifier_of_the_bots(self) -> None:
        move = scenarios.service_in_use()
        found = signing.get_envelope(NOON)
        read = opened(found)
        assert (read.snapshot.revision, found.revision, read.snapshot.line) == (1, 1, "v6_enhanced")
        assert sorted(read.snapshot.models) == ["BTC", "ETH", "SOL"]
        minute = NOON.replace(second=0)
        assert (read.issued_at, read.expires_at) == (minute, minute + timedelta(minutes=3))
        assert read.audit_head.seq >= move.audit_seq
        assert AuditEvent.objects.get(pk=read.audit_head.seq).hash == read.audit_head.hash

    def test_says_what_the_plain_snapshot_says_and_names_each_diagnosis(self) -> None:
        scenarios.service_in_use()
        approve(scenarios.awaiting_approval(), actor=APPROVER, reason=WHY, revision=1)
        plain, signed = json.loads(snapshot.build_current().body), payload(signing.get_envelope(NOON))
        for coin, model in signed["models"].items():
            digest = model.pop("diagnosis")
            assert digest.startswith("sha256:"), coin
            release_coin = pointer.get_current().release.coins.get(coin__symbol=coin)  # type: ignore[union-attr]
            assert release_coin.diagnosis is not None
            assert digest == release_coin.diagnosis.digest
        assert {name: signed[name] for name in plain} == plain
        assert signed["coins"] == ["BTC", "ETH", "SOL"]

    def test_is_the_same_in_every_process_for_a_minute_and_then_another(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scenarios.service_in_use()
        first = signing.get_envelope(NOON)
        monkeypatch.setattr(signing, "_last", None)  # another process has made none yet
        assert signing.get_envelope(NOON + timedelta(seconds=29)) == first
        later = signing.get_envelope(NOON + timedelta(seconds=30))
        assert (later.revision, later.etag != first.etag) == (1, True)
        assert opened(later).snapshot.content == opened(first).snapshot.content

    def test_is_made_at_once_when_the_pointer_moves(self) -> None:
        scenarios.service_in_use()
        signing.get_envelope(NOON)
        pin(actor=APPROVER, reason="V6 is broken")
        assert opened(signing.get_envelope(NOON)).snapshot.line == "v5"

    def test_announces_what_awaits_approval_until_it_is_decided(self) -> None:
        scenarios.service_in_use()
        assert payload(signing.get_envelope(NOON))["next"] is None
        waiting = scenarios.awaiting_approval()
        following = opened(signing.get_envelope(NOON)).next
        assert following is not None
        assert (following.release, sorted(following.models)) == (waiting.pk, ["BTC", "ETH", "SOL"])
        decline(waiting, actor=APPROVER, reason="not now")
        assert payload(signing.get_envelope(NOON))["next"] is None

    def test_announces_the_fallback_as_the_very_set_that_a_pin_leads_to(self) -> None:
        scenarios.service_in_use()
        fallback = opened(signing.get_envelope(NOON)).fallback
        assert fallback is not None
        pin(actor=APPROVER, reason="V6 is broken")
        pinned = opened(signing.get_envelope(NOON))
        assert (pinned.snapshot.release, pinned.snapshot.set_digest) == (
            fallback.release,
            fallback.set_digest,
        )
        assert pinned.fallback == fallback, "a bot that comes now is to hold it at the next pin too"

    def test_announces_no_fallback_that_is_given_to_no_bot(self, settings: Settings) -> None:
        scenarios.service_in_use()
        made_up = scenarios.Build(line="v5", purpose=Purpose.FALLBACK, seed=6, is_simulated=True).settled()
        register_fallback(made_up, actor=APPROVER, reason="a trial")
        fallback = opened(signing.get_envelope(NOON)).fallback
        assert fallback is not None and fallback.release == made_up.pk
        settings.ALLOW_SIMULATED = False
        assert payload(signing.get_envelope(NOON))["fallback"] is None

    def test_of_an_offline_pointer_holds_no_models(self) -> None:
        scenarios.service_in_use()
        with transaction.atomic():
            audit.lock_head()
            policy = policy_in_force()
            pointer.move(MoveKind.OFFLINE, None, policy=policy, actor=APPROVER, reason="nothing is fit")
        assert opened(signing.get_envelope(NOON)).snapshot.release is None

    def test_is_not_made_before_the_first_pointer(self) -> None:
        with pytest.raises(Unavailable, match="no pointer yet"):
            signing.get_envelope(NOON)


class TestKeys:
    def test_the_embedded_profile_makes_its_first_by_itself_and_only_that(self, folder: Path) -> None:
        scenarios.service_in_use()
        signing.get_envelope(NOON)
        signing.get_envelope(NOON)
        key = SigningKey.objects.get()
        assert key.state == KeyState.ACTIVE
        kinds = AuditEvent.objects.filter(object_type="signingkey").values_list("kind", flat=True)
        assert set(kinds) == {"signingkey.created", "signingkey.active"}
        path = folder / f"{key.key_id}.pem"
        assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(folder.stat().st_mode)) == (0o600, 0o700)

    @pytest.mark.usefixtures("production")
    def test_production_says_what_to_run(self) -> None:
        scenarios.service_in_use()
        with pytest.raises(Unavailable, match=r"manage\.py keys create"):
            signing.get_envelope(NOON)
        assert [t.name for t in detect.list_alarms(fallback.check_fallback_cached())] == [AlarmName.SIGNING]
        new_key()
        assert opened(signing.get_envelope(NOON)).snapshot.revision == 1
        assert detect.list_alarms(fallback.check_fallback_cached()) == []

    def test_a_private_half_is_nowhere_but_in_its_file(
        self, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        scenarios.service_in_use()
        with caplog.at_level("DEBUG"):
            key = new_key()
            found = signing.get_envelope(NOON)
        pem = (folder / f"{key.key_id}.pem").read_text()
        secret = pem.splitlines()[1]
        events = "".join(AuditEvent.objects.values_list("body", flat=True))
        row = json.dumps(list(SigningKey.objects.values()), default=str)
        for output in (events, row, caplog.text, found.body.decode(), repr(key)):
            assert secret not in output

    def test_are_changed_with_an_overlap(self, folder: Path) -> None:
        scenarios.service_in_use()
        signing.get_envelope(NOON)
        old = keys.list_active()[0]
        new = key_decisions.create_key(actor=APPROVER, reason=WHY)
        assert keys.export_public() == f"2:{old.public_hex},{new.public_hex}"
        with pytest.raises(EnvelopeRefused):
            opened(signing.get_envelope(NOON), new)
        key_decisions.activate_key(new, actor=APPROVER, reason=WHY)
        both = signing.get_envelope(NOON)
        assert opened(both, old).snapshot == opened(both, new).snapshot
        key_decisions.retire_key(old, actor=APPROVER, reason=WHY)
        alone = signing.get_envelope(NOON)
        assert opened(alone, new).key_ids == (new.key_id,)
        with pytest.raises(EnvelopeRefused):
            opened(alone, old)
        assert keys.export_public() == f"3:{new.public_hex}"

    @pytest.mark.django_db(transaction=True)
    def test_a_retired_one_leaves_no_private_half(self, committed: None, folder: Path) -> None:
        old, _ = new_key(), new_key()
        key_decisions.retire_key(old, actor=APPROVER, reason=WHY)
        assert len(list(folder.glob("*.pem"))) == 1
        assert not (folder / f"{old.key_id}.pem").exists()

    def test_a_retired_one_never_signs_again(self) -> None:
        old, _ = new_key(), new_key()
        old = key_decisions.retire_key(old, actor=APPROVER, reason=WHY)
        with pytest.raises(Conflict):
            key_decisions.activate_key(old, actor=APPROVER, reason=WHY)

    def test_the_only_one_that_signs_is_not_retired(self) -> None:
        only = new_key()
        with pytest.raises(Conflict, match="the only active key"):
            key_decisions.retire_key(only, actor=APPROVER, reason=WHY)
        assert AuditEvent.objects.filter(kind="signingkey.retire.refused").count() == 1

    def test_no_more_than_two_sign(self) -> None:
        new_key(), new_key()
        with pytest.raises(Conflict, match="retire one"):
            new_key()

    def test_take_the_approver_role_and_a_reason(self, folder: Path) -> None:
        with pytest.raises(NotAllowed, match="approver"):
            key_decisions.create_key(actor=LAUNCHER, reason=WHY)
        with pytest.raises(InvalidInput, match="reason"):
            key_decisions.create_key(actor=APPROVER, reason=" ")
        assert not SigningKey.objects.exists()
        assert not folder.exists()
        key = key_decisions.create_key(actor=APPROVER, reason=WHY)
        for decide in (key_decisions.activate_key, key_decisions.retire_key):
            with pytest.raises(NotAllowed):
                decide(key, actor=LAUNCHER, reason=WHY)
        assert AuditEvent.objects.filter(kind__startswith="signingkey", kind__endswith="refused").count() == 4

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda path: path.unlink(), "cannot be read"),
            (lambda path: path.write_text("not a key"), "is damaged"),
            (
                lambda path: path.write_bytes(CryptoSigner.generate_ed25519().private_bytes),
                "that of another key",
            ),
        ],
        ids=["missing", "damaged", "exchanged"],
    )
    def test_whose_private_half_is_not_right_sign_nothing_and_raise_an_alarm(
        self, folder: Path, change: Any, words: str
    ) -> None:
        scenarios.service_in_use()
        key = new_key()
        change(folder / f"{key.key_id}.pem")
        with pytest.raises(Unavailable, match=words):
            signing.get_envelope(NOON)
        alarm = next(
            t for t in detect.list_alarms(fallback.check_fallback_cached()) if t.name == AlarmName.SIGNING
        )
        assert words in alarm.remedy

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE deploy_signingkey SET public_hex = 'ab'",
            "UPDATE deploy_signingkey SET key_id = 'ab'",
            "UPDATE deploy_signingkey SET state = 'next'",
            "UPDATE deploy_signingkey SET activated_at = NULL",
            "DELETE FROM deploy_signingkey",
            "INSERT INTO deploy_signingkey (key_id, public_hex, state, created_by, created_at)"
            " VALUES ('x', 'y', 'active', 'mallory', '2026-01-01 00:00:00')",
        ],
    )
    @pytest.mark.postgresql
    def test_are_not_edited_past_the_service(self, statement: str) -> None:
        new_key()
        with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)


class TestADatabaseBroughtBack:
    @pytest.fixture
    def restored(self) -> PointerMove:
        """Three revisions were signed, the database of revision 1 came back, and something else was decided since."""
        scenarios.service_in_use()
        for _ in range(2):
            advance_revision(1, actor=APPROVER, reason=WHY)
            signing.get_envelope(NOON)
        go_back_to(1)
        now = pointer.get_current()
        assert now is not None
        return now

    def test_signs_no_revision_that_is_lower_than_one_it_signed(self, restored: PointerMove) -> None:
        with pytest.raises(Unavailable, match=r"advance_revision --by 3 --reason"):
            signing.get_envelope(NOON)
        alarm = next(
            t for t in detect.list_alarms(fallback.check_fallback_cached()) if t.name == AlarmName.SIGNING
        )
        assert "advance_revision --by 3" in alarm.remedy
        assert json.loads(snapshot.build_current().body)["revision"] == 1, "people still see where it stands"

    def test_signs_no_revision_again_with_another_content(self, restored: PointerMove) -> None:
        pin(actor=APPROVER, reason="V6 is broken")
        approve(scenarios.awaiting_approval(), actor=APPROVER, reason=WHY, revision=2)
        now, highest = pointer.get_current(), revision_log.read_highest(snapshot.get_service_name())
        assert now is not None
        assert highest is not None
        assert now.revision == highest.number == 3
        with pytest.raises(Unavailable, match=r"revision 3 was signed already with another content.*--by 1 "):
            signing.get_envelope(NOON)

    def test_is_heard_again_once_its_revision_was_advanced(self, restored: PointerMove) -> None:
        with pytest.raises(Conflict, match="by 3 or more"):
            advance_revision(2, actor=APPROVER, reason="restored from the night's backup")
        move = advance_revision(3, actor=APPROVER, reason="restored from the night's backup")
        assert (move.revision, move.release_id, move.kind) == (4, restored.release_id, restored.kind)
        assert opened(signing.get_envelope(NOON)).snapshot.revision == 4
        assert all(t.name != AlarmName.SIGNING for t in detect.list_alarms(fallback.check_fallback_cached()))
        event = AuditEvent.objects.get(pk=move.audit_seq)
        assert (event.kind, event.actor) == ("pointer.advanced", "anna")
        assert event.reason.startswith("restored from the night's backup — as revision 1: ")
        gone = "revision {} is in the audit chain, and not in its table"
        assert audit.verify() == [gone.format(2), gone.format(3)]
        assert pin(actor=APPROVER, reason="V6 is broken").revision == 5

    def test_takes_the_approver_role_a_reason_and_a_sound_number(self, restored: PointerMove) -> None:
        with pytest.raises(NotAllowed):
            advance_revision(3, actor=LAUNCHER, reason=WHY)
        with pytest.raises(InvalidInput, match="reason"):
            advance_revision(3, actor=APPROVER, reason="")
        for by in (0, -1, 1_000_001):
            with pytest.raises(InvalidInput, match="1,000,000"):
                advance_revision(by, actor=APPROVER, reason=WHY)
        assert pointer.get_current() == restored
        assert AuditEvent.objects.filter(kind="pointer.advance.refused").count() == 5

    def test_a_mark_that_cannot_be_read_signs_nothing(self, folder: Path) -> None:
        scenarios.service_in_use()
        signing.get_envelope(NOON)
        (folder / revision_log.FILE_NAME).write_text("{")
        with pytest.raises(Unavailable, match=r"signed\.json"):
            signing.get_envelope(NOON)

    def test_whatever_is_signed_stands_on_the_disk_by_then(self, monkeypatch: pytest.MonkeyPatch) -> None:
        scenarios.service_in_use()
        keys.ensure_first()
        flush, sign, found = os.fsync, dsse.Envelope.sign, list[revision_log.SignedRevision | None]()

        def slowly(descriptor: int) -> None:
            time.sleep(0.05)
            flush(descriptor)

        def noted(sealed: dsse.Envelope, signer: Any) -> Any:
            found.append(revision_log.read_highest(snapshot.get_service_name()))
            return sign(sealed, signer)

        monkeypatch.setattr(os, "fsync", slowly)
        monkeypatch.setattr(dsse.Envelope, "sign", noted)
        signed = [signing.get_envelope(NOON).revision]
        pin(actor=APPROVER, reason=WHY)
        signed.append(signing.get_envelope(NOON).revision)
        assert [mark and mark.number for mark in found] == signed == [1, 2]

    def test_another_process_that_went_further_is_never_undercut(self) -> None:
        scenarios.service_in_use()
        signing.get_envelope(NOON)
        service = snapshot.get_service_name()
        assert revision_log.raise_to(service, revision_log.SignedRevision(9, "theirs"))
        assert not revision_log.raise_to(service, revision_log.SignedRevision(8, "ours"))
        assert not revision_log.raise_to(service, revision_log.SignedRevision(9, "ours"))
        assert revision_log.read_highest(service) == revision_log.SignedRevision(9, "theirs")
