"""The audit chain shows whatever was changed, cut or put in after the fact."""

from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.conf import settings
from django.core.management import call_command
from django.core.management.sql import emit_pre_migrate_signal
from django.db import DatabaseError, connection, transaction
from django.db.migrations import Migration
from django.db.models import Model

from audit import heads, services, triggers
from audit.models import AuditEvent, AuditHead
from common.errors import Conflict, NotAllowed
from tests import factories

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql]


def three_events() -> int:
    """Three events after those of the first migration; answers the number of the last."""
    user = factories.person("olivia", "operator")
    return services.record("note", user, actor="olivia", reason="first — with a dash").seq


def run(sql: str, last: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql.format(last=last, before=last - 1, later=last + 7))


def test_a_chain_as_written_is_sound() -> None:
    last = three_events()
    assert AuditEvent.objects.count() == last
    assert services.verify() == []


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE audit_auditevent SET reason = 'other' WHERE seq = {before}",
        "DELETE FROM audit_auditevent WHERE seq = {last}",
        "INSERT INTO audit_auditevent SELECT {later}, at, actor, kind, object_type, object_id, object_name, reason, body,"
        " previous_hash, hash, mac FROM audit_auditevent WHERE seq = 1",
    ],
    ids=["rewriting an event", "cutting the tail", "putting one in out of order"],
)
def test_the_database_refuses(sql: str) -> None:
    last = three_events()
    with pytest.raises(DatabaseError), transaction.atomic():
        run(sql, last)
    assert services.verify() == []


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        (
            "UPDATE audit_auditevent SET reason = 'other' WHERE seq = {last}",
            "columns differ from its body: reason",
        ),
        ("UPDATE audit_auditevent SET body = '{{}}' WHERE seq = {before}", "body was changed"),
        ("DELETE FROM audit_auditevent WHERE seq = {before}", "is missing"),
        ("DELETE FROM audit_auditevent WHERE seq = {last}", "tail was deleted"),
    ],
    ids=["a column", "a body", "a gap", "a cut tail"],
)
def test_verify_finds_what_got_past_the_database(sql: str, says: str) -> None:
    last = three_events()
    triggers.drop()
    try:
        run(sql, last)
        found = services.verify()
    finally:
        triggers.install()
    assert any(says in broken for broken in found)


def chain_event(kind: str, obj: Model, **detail: Any) -> AuditEvent:
    """An event as somebody appends it who may write to the database, knows this code, and lacks the secret key."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "SECRET_KEY", "a guess")
        return services.record(kind, obj, actor="the gate", detail=detail)


def test_an_event_chained_without_the_secret_key_is_found() -> None:
    three_events()
    forged = chain_event("note", factories.person("oscar"))
    later = services.record("note", factories.person("otto"), actor="otto")
    assert services.verify() == [f"event {forged.seq}: it was not written with this service's secret key"]
    assert services.is_authentic(later)


def test_events_of_an_earlier_secret_key_stay_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    three_events()
    former = settings.SECRET_KEY
    monkeypatch.setattr(settings, "SECRET_KEY", "its successor")
    assert services.verify() != []
    monkeypatch.setattr(settings, "SECRET_KEY_FALLBACKS", [former])
    assert services.verify() == []


def test_a_head_moved_by_hand_is_found() -> None:
    three_events()
    AuditHead.objects.update(seq=2)
    assert services.verify() != []


def test_missing_or_weakened_triggers_are_named() -> None:
    assert triggers.find_missing() == []
    triggers.drop()
    assert "deploy_pointermove_swaps_what_passed" in triggers.find_missing()
    triggers.install()
    assert triggers.find_missing() == []


@pytest.mark.skipif(
    "connection.vendor != 'sqlite'", reason="PostgreSQL alters a table and keeps its triggers"
)
@pytest.mark.slow
@pytest.mark.usefixtures("committed")
def test_a_migration_that_rebuilds_a_table_gets_its_guards_back() -> None:
    """On SQLite most changes of a column rebuild the table, without its triggers. Every guarded table is rebuilt."""
    last = three_events()
    guarded = [model for model in apps.get_models() if triggers.list_refused_events(model._meta.db_table)]
    assert len(guarded) > 10
    emit_pre_migrate_signal(
        verbosity=0, interactive=False, db="default", plan=[(Migration("0002", "audit"), False)]
    )
    with connection.schema_editor() as editor:
        for model in guarded:
            editor._remake_table(model)  # type: ignore[attr-defined]
    lost = triggers.find_missing()
    for model in guarded:
        assert any(name.startswith(model._meta.db_table) for name in lost)
    call_command("migrate", verbosity=0)
    assert triggers.find_missing() == []
    assert services.verify() == []
    with pytest.raises(DatabaseError, match="append-only"):
        run("DELETE FROM audit_auditevent WHERE seq = {last}", last)


@pytest.mark.parametrize(
    "cut", [b'{"service": "', b'{"service": "a", "seq": 7}', b"\xff\x00"], ids=["half", "a field", "bytes"]
)
def test_a_kept_head_that_a_crash_cut_off_hides_no_other(
    cut: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit_heads.jsonl"
    monkeypatch.setattr(settings, "AUDIT_HEADS_FILE", path)
    first, second = (heads.KeptHead(heads._get_service_name(), seq, str(seq) * 64) for seq in (1, 2))
    heads.keep(first)
    path.write_bytes(path.read_bytes() + cut)
    assert heads.read_last(first.service) == first
    heads.keep(second)
    assert heads.read_own(path) == [first, second]
    assert heads.read_last(first.service) == second


def test_a_person_without_the_role_cannot_fill_the_history() -> None:
    user = factories.person("victor", "viewer")
    before = AuditEvent.objects.count()
    for _ in range(services.REFUSALS_PER_HOUR + 10):
        with pytest.raises(NotAllowed), services.record_refusals("release.decline", user, actor="victor"):
            raise NotAllowed("that needs the approver role")
    assert AuditEvent.objects.count() == before + services.REFUSALS_PER_HOUR
    with pytest.raises(Conflict), services.record_refusals("release.decline", user, actor="victor"):
        raise Conflict("a refusal for another reason is always recorded")
    assert AuditEvent.objects.count() == before + services.REFUSALS_PER_HOUR + 1
