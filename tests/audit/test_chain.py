"""The audit chain shows whatever was changed, cut or put in after the fact."""

import pytest
from django.db import DatabaseError, connection, transaction

from audit import services, triggers
from audit.models import AuditEvent, AuditHead
from tests import factories

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql]


def three_events() -> None:
    user = factories.person("olivia", "operator")
    services.record("note", user, actor="olivia", reason="first — with a dash")


def run(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def test_a_chain_as_written_is_sound() -> None:
    three_events()
    assert AuditEvent.objects.count() == 3
    assert services.verify() == []


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE audit_auditevent SET reason = 'other' WHERE seq = 2",
        "DELETE FROM audit_auditevent WHERE seq = 3",
        "INSERT INTO audit_auditevent SELECT 9, at, actor, kind, object_type, object_id, object_name, reason, body,"
        " previous_hash, hash FROM audit_auditevent WHERE seq = 1",
    ],
    ids=["rewriting an event", "cutting the tail", "putting one in out of order"],
)
def test_the_database_refuses(sql: str) -> None:
    three_events()
    with pytest.raises(DatabaseError), transaction.atomic():
        run(sql)
    assert services.verify() == []


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        (
            "UPDATE audit_auditevent SET reason = 'other' WHERE seq = 3",
            "columns differ from its text: reason",
        ),
        ("UPDATE audit_auditevent SET body = '{}' WHERE seq = 2", "text was changed"),
        ("DELETE FROM audit_auditevent WHERE seq = 2", "event 2 is missing"),
        ("DELETE FROM audit_auditevent WHERE seq = 3", "tail was cut"),
    ],
    ids=["a column", "a body", "a gap", "a cut tail"],
)
def test_verify_finds_what_got_past_the_database(sql: str, says: str) -> None:
    three_events()
    triggers.drop()
    try:
        run(sql)
        found = services.verify()
    finally:
        triggers.install()
    assert any(says in broken.problem for broken in found)


def test_a_head_moved_by_hand_is_found() -> None:
    three_events()
    AuditHead.objects.update(seq=2)
    assert services.verify() != []


def test_missing_or_weakened_triggers_are_named() -> None:
    assert triggers.missing() == []
    triggers.drop()
    assert "deploy_pointermove_swaps_what_passed" in triggers.missing()
    triggers.install()
    assert triggers.missing() == []
