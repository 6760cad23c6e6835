"""After a restore: what was closed since the backup stays closed, and bots return to no release that was rolled back."""

import json
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pyrage
import pytest
from django.core.files.base import ContentFile
from django.core.management import call_command
from django.utils import timezone

from accounts import services as accounts
from accounts.models import ApiToken, RoleGrant, User
from accounts.roles import Role
from audit import services as audit
from audit import triggers
from common.errors import Conflict, InvalidInput, NotFound
from crpbot.backup import journal, restore, retention, schedule, store
from crpbot.backup.seal import Access
from deploy.bots import key_decisions
from deploy.models import BackupJournal, PointerMove, ReleaseStatus, ServiceIdentity, SigningKey
from deploy.pointer import pointer
from deploy.releases import decide
from deploy.rules import BackupKind, MoveKind, ReleaseState
from deploy.serving import keys, signing
from deploy.serving.advance import advance_revision
from tests import factories, scenarios
from tests.long_tests import long_except
from tests.scenarios import APPROVER

pytestmark = [pytest.mark.postgresql, pytest.mark.slow, pytest.mark.usefixtures("service")]


@pytest.fixture(autouse=True)
def every_day(service: PointerMove, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.BACKUP_HOURS = 24
    monkeypatch.setattr(journal, "_looked_at", 0)
    monkeypatch.setattr(journal, "_paused_until", 0.0)


def back_up() -> None:
    schedule.run_now(BackupKind.BACKUP, requested_by="the tests")


def lose_the_database() -> None:
    """The files stay."""
    triggers.drop()
    call_command("flush", interactive=False, verbosity=0)


def read_journal() -> list[Path]:
    folder = Path(store.get_storage().path(journal.FOLDER))
    return sorted(folder.glob("*.jsonl")) if folder.exists() else []


def test_what_was_closed_since_the_backup_stays_closed() -> None:
    closed, kept = factories.person("carl", "operator"), factories.person("olivia", "operator", "approver")
    factories.token(kept, "operator")
    back_up()
    accounts.close_account(closed, actor="the tests")
    accounts.revoke_token(ApiToken.objects.get(user__username="olivia"), actor="the tests")
    accounts.withdraw(kept, Role.APPROVER, actor="the tests")
    accounts.set_password(User.objects.get(username="anna"), "another correct horse", actor="the tests")
    journal.write()
    lose_the_database()
    restored = restore.restore_backup()
    assert not User.objects.get(username="carl").is_active
    assert ApiToken.objects.get(user__username="olivia").revoked_at is not None
    assert [grant.role for grant in RoleGrant.objects.filter(user__username="olivia")] == ["operator"]
    assert [sentence.split(":")[0] for sentence in restored.afterwards.done] == [
        "account carl closed",
        "role approver of olivia withdrawn",
        f"token {ApiToken.objects.get(user__username='olivia').pk} revoked",
        f"token {ApiToken.objects.get(user__username='anna').pk} revoked",  # with her password
    ]
    assert restored.afterwards.to_decide == [
        "anna had since a new password: the one from before is valid again. Set another."
    ]
    assert [account["name"] for account in restored.accounts] == ["anna", "olivia"]
    assert audit.verify() == []


@pytest.mark.long
def test_what_was_granted_again_is_kept_and_the_last_administrator_too() -> None:
    ada = factories.person("ada", "administrator", "viewer")
    back_up()
    accounts.withdraw(ada, Role.VIEWER, actor="the tests")
    accounts.grant(ada, Role.VIEWER, actor="the tests")
    bert = factories.person("bert", "administrator")
    accounts.close_account(ada, actor="the tests")
    journal.write()
    assert bert.pk
    lose_the_database()
    restored = restore.restore_backup()
    assert User.objects.get(username="ada").is_active
    assert RoleGrant.objects.filter(user__username="ada").count() == 2
    (sentence,) = restored.afterwards.to_decide
    assert sentence.startswith(
        "account ada closed, since the backup, and not here: ada is the last administrator"
    )


def test_bots_never_return_to_a_release_that_was_rolled_back(service: PointerMove) -> None:
    """Restored, the pointer is where it was; the service leaves it before anybody can advance the revision."""
    signing.get_envelope()
    back_up()
    pinned = decide.pin(actor=APPROVER, reason="it lost money")
    signing.get_envelope()
    journal.write()
    lose_the_database()
    restored = restore.restore_backup()
    move = pointer.get_current()
    assert move is not None
    assert (move.kind, move.release_id) == (MoveKind.PIN, pinned.release_id)
    assert "was rolled back since the backup that was restored: it lost money" in move.reason
    assert ReleaseStatus.objects.get(pk=service.release_id).state == ReleaseState.ROLLED_BACK
    assert restored.missing_revisions == 0 or advance_revision(
        restored.missing_revisions, actor=APPROVER, reason="the database of last night"
    )
    assert json.loads(signing.extract_document(signing.get_envelope()).body)["release"] == pinned.release_id


def test_a_release_that_awaited_approval_and_was_rolled_back_is_declined() -> None:
    candidate = scenarios.awaiting_approval()
    back_up()
    seen = pointer.get_current()
    assert seen is not None
    decide.approve(candidate, actor=APPROVER, reason="it passed", revision=seen.revision)
    decide.pin(actor=APPROVER, reason="it lost money")
    journal.write()
    lose_the_database()
    restore.restore_backup()
    status = ReleaseStatus.objects.get(pk=candidate.pk)
    assert status.state == ReleaseState.DECLINED
    assert "it lost money" in status.reason


@pytest.mark.long
def test_a_release_that_an_approver_restored_afterwards_is_kept() -> None:
    candidate = scenarios.awaiting_approval()
    seen = pointer.get_current()
    assert seen is not None
    move = decide.approve(candidate, actor=APPROVER, reason="it passed", revision=seen.revision)
    back_up()
    move = decide.pin(actor=APPROVER, reason="a doubt")
    decide.restore(candidate, actor=APPROVER, reason="it was the feed", revision=move.revision)
    journal.write()
    lose_the_database()
    restored = restore.restore_backup()
    assert restored.afterwards.done == []
    now = pointer.get_current()
    assert now is not None
    assert now.release_id == candidate.pk


def test_a_rotated_key_is_named_and_imported_from_its_folder() -> None:
    keys.ensure_first()
    back_up()
    made = key_decisions.create_key(actor=APPROVER, reason="the rotation")
    key_decisions.activate_key(made, actor=APPROVER, reason="the rotation")
    key_decisions.retire_key(SigningKey.objects.order_by("pk")[0], actor=APPROVER, reason="the rotation")
    journal.write()
    lose_the_database()
    restored = restore.restore_backup()
    old = SigningKey.objects.get()
    assert [sentence.split(":")[0] for sentence in restored.afterwards.to_decide] == [
        f"The {made} was made since. Bots may trust no other",
        f"The {old} was retired since",
    ]
    assert signing.find_problem() is not None, "the private half of the retired key is gone"
    with pytest.raises(NotFound, match="no private halves"):
        key_decisions.import_key("ab" * 6, actor=APPROVER, reason="after the restore")
    with pytest.raises(InvalidInput, match="first 12 characters"):
        key_decisions.import_key("*", actor=APPROVER, reason="after the restore")
    imported = key_decisions.import_key(made.key_id[:12], actor=APPROVER, reason="after the restore")
    assert (imported.key_id, imported.public_hex) == (made.key_id, made.public_hex)
    key_decisions.activate_key(imported, actor=APPROVER, reason="after the restore")
    key_decisions.retire_key(old, actor=APPROVER, reason="it was retired before")
    assert signing.find_problem() is None
    with pytest.raises(Conflict, match="is here already"):
        key_decisions.import_key(made.key_id, actor=APPROVER, reason="again")
    assert audit.verify() == []


def test_nothing_is_written_before_the_first_backup_and_each_event_once() -> None:
    journal.write()
    assert read_journal() == []
    back_up()
    journal.write()
    assert read_journal() == [], "nothing happened since"
    decide.pin(actor=APPROVER, reason="first")
    journal.write()
    journal.write()
    (file,) = read_journal()
    kinds = [json.loads(line)["kind"] for line in file.read_text().splitlines()[:-1]]
    assert kinds == ["releasestatus.rolled_back", "pointer.pin"]
    audit.record("note", ServiceIdentity.objects.get(), actor="the tests")
    journal.write()
    assert len(read_journal()) == 1


def test_an_event_that_the_service_did_not_write_stops_the_restore() -> None:
    back_up()
    accounts.close_account(factories.person("carl"), actor="the tests")
    journal.write()
    (file,) = read_journal()
    file.write_text(file.read_text().replace("carl", "anna"))
    lose_the_database()
    with pytest.raises(Conflict, match=r"was not written by this service.*--without-journal"):
        restore.restore_backup()
    assert not User.objects.exists()
    out = StringIO()
    call_command("backup", "restore", "--without-journal", stdout=out)
    assert "The journal was not read. Check every account, token and release." in out.getvalue()
    assert User.objects.get(username="anna").is_active


@pytest.mark.long
def test_a_file_that_was_removed_from_the_journal_is_noticed() -> None:
    anna, bert = factories.person("berta"), factories.person("bert")
    back_up()
    for user in (anna, bert):
        accounts.close_account(user, actor="the tests")
        journal.write()
    first, _ = read_journal()
    first.unlink()
    lose_the_database()
    restored = restore.restore_backup()
    assert restored.afterwards.to_decide[0].startswith("Events ")
    assert "are missing from the journal" in restored.afterwards.to_decide[0]
    assert restored.afterwards.done == ["account bert closed"]


@pytest.mark.parametrize(
    "how",
    long_except(["emptied", "a line less", "another range", "signed by another key"], "a line less".__eq__),
)
def test_a_file_of_the_journal_that_lacks_events_is_noticed(how: str) -> None:
    """Who can write to the store, and not delete, would have the restore open an account again."""
    anna, bert = factories.person("berta"), factories.person("bert")
    back_up()
    for user in (anna, bert):
        accounts.close_account(user, actor="the tests")
    journal.write()
    (file,) = read_journal()
    lines = file.read_bytes().splitlines(keepends=True)
    if how == "another range":
        at, after, through = file.stem.split("-")
        file.rename(file.with_stem(f"{at}-{after}-{int(through) + 50}"))
    elif how == "signed by another key":
        envelope = json.loads(lines[-1])
        envelope["signatures"][0]["sig"] = "00" * 64
        file.write_bytes(b"".join(lines[:-1]) + json.dumps(envelope).encode())
    else:
        file.write_bytes(b"" if how == "emptied" else b"".join(lines[1:]))
    lose_the_database()
    restored = restore.restore_backup()
    assert "was changed, or signed with another key" in restored.afterwards.to_decide[0]
    assert "Check every account, token and release." in restored.afterwards.to_decide[0]
    lost = {"emptied": 2, "a line less": 1}.get(how, 0)
    assert len(restored.afterwards.done) == 2 - lost


@pytest.mark.long
def test_what_another_restore_cut_off_counts_for_its_own_backup_only() -> None:
    """Events of the time before it may have the numbers of events after it."""
    carl = factories.person("carl")
    back_up()
    accounts.close_account(carl, actor="the tests")
    journal.write()
    lose_the_database()
    restore.restore_backup()
    assert BackupJournal.objects.get().seq < audit.get_last_seq()
    journal.write()
    assert len(read_journal()) == 2, "what the restore carried over is in the journal again"
    lose_the_database()
    restore.restore_backup()
    assert not User.objects.get(username="carl").is_active


def test_while_the_store_is_away_it_waits_and_says_since_when(settings: Any, tmp_path: Path) -> None:
    back_up()
    decide.pin(actor=APPROVER, reason="first")
    working = settings.STORAGES
    (tmp_path / "file").write_text("no folder")
    options = {"OPTIONS": {"location": tmp_path / "file"}}
    settings.STORAGES = {**working, "backups": {**working["backups"], **options}}
    journal.write()
    row = BackupJournal.objects.get()
    assert row.failing_since is not None
    assert "does not answer" in row.problem
    settings.STORAGES = working
    journal.write()
    assert read_journal() == [], "it waits half a minute: reconcile has other things to do"
    journal._paused_until = 0.0
    journal.write()
    assert len(read_journal()) == 1
    row.refresh_from_db()
    assert row.problem == ""
    assert BackupJournal.objects.filter(failing_since=None).exists()


@pytest.mark.long
def test_the_journal_of_encrypted_backups_is_encrypted(settings: Any, tmp_path: Path) -> None:
    identity = pyrage.x25519.Identity.generate()
    (tmp_path / "identity").write_text(str(identity))
    settings.BACKUP_RECIPIENTS = [str(identity.to_public())]
    carl = factories.person("carl")
    back_up()
    accounts.close_account(carl, actor="the tests")
    journal.write()
    (file,) = read_journal()
    assert b"carl" not in file.read_bytes()
    lose_the_database()
    restored = restore.restore_backup(access=Access.build(identity_file=str(tmp_path / "identity")))
    assert restored.afterwards.done == ["account carl closed"]


@pytest.mark.long
def test_files_that_no_backup_needs_are_removed(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    back_up()
    old = f"{timezone.now() - timedelta(hours=1):%Y%m%dT%H%M%SZ}-1-2.jsonl"
    store.save(f"{journal.FOLDER}/{old}", ContentFile(b""))
    decide.pin(actor=APPROVER, reason="first")
    journal.write()
    settings.BACKUP_KEEP = [1, 0, 0]
    monkeypatch.setattr(retention, "UNUSED_FOR", timedelta(0))
    assert len(read_journal()) == 2
    retention.prune()
    (file,) = read_journal()
    assert file.name != old
