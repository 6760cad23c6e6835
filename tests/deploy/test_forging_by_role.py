"""Forging by SQL as each database role, and on SQLite: refused, or found by verify_audit and before the next signature."""

from collections.abc import Iterator
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from audit import heads
from audit import services as audit
from common.errors import Unavailable
from deploy.releases import decide
from deploy.serving import keys, signing
from tests import factories, roles, scenarios
from tests.roles import Roles, as_role
from tests.scenarios import APPROVER

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql]

LAST = "(SELECT MAX(seq) FROM audit_auditevent)"
CHAINED = (
    "INSERT INTO audit_auditevent (seq, at, actor, kind, object_type, object_id, object_name, reason, body, previous_hash,"
    " hash, mac) SELECT seq + 1, at, 'anna', 'pointer.swap', 'pointermove', '3', 'revision 3', 'mine', '{{}}', hash,"
    " '{zeros}', '{zeros}' FROM audit_auditevent ORDER BY seq DESC LIMIT 1"
).format(zeros="0" * 64)
MOVE = (
    "INSERT INTO deploy_pointermove (revision, previous_id, release_id, policy_id, kind, moved_by, reason, moved_at,"
    f" audit_seq, is_advance) SELECT 3, 2, (SELECT release_id FROM deploy_releasestatus WHERE state = 'rejected' LIMIT 1),"
    f" policy_id, '{{kind}}', 'anna', 'mine', moved_at, {LAST}, {{advance}} FROM deploy_pointermove WHERE revision = 2"
)
WITH_GUARDS_OFF = {
    "a pointer move is inserted": ("deploy_pointermove", [CHAINED, MOVE.format(kind="swap", advance="false")]),
    "the last pointer move is deleted": ("deploy_pointermove", ["DELETE FROM deploy_pointermove WHERE revision = 2"]),
    "an approval names somebody else": (
        "deploy_pointermove", ["UPDATE deploy_pointermove SET moved_by = 'ada' WHERE revision = 2"],
    ),
    "a pointer move names another release": (
        "deploy_pointermove",
        ["UPDATE deploy_pointermove SET release_id = (SELECT MIN(release_id) FROM deploy_releasestatus"
         " WHERE state = 'rejected') WHERE revision = 2"],
    ),
    "a verdict is changed": (
        "gates_diagnosis", ["UPDATE gates_diagnosis SET verdict = 'passed', digest = 'sha256:0'"],
    ),
    "a gate's outcome is changed": ("gates_gateresult", ["UPDATE gates_gateresult SET verdict = 'inconclusive'"]),
    "a bundle's digest is exchanged": (
        "training_bundle", ["UPDATE training_bundle SET digest = 'sha256:' || id"],
    ),
    "an event is edited and the chain hashed again": (
        "audit_auditevent", ["UPDATE audit_auditevent SET body = '{}', hash = seq, previous_hash = seq - 1"],
    ),
    "the tail and the head are cut off": (
        "audit_auditevent",
        [f"DELETE FROM audit_auditevent WHERE seq > {LAST} - 3",
         f"UPDATE audit_audithead SET seq = {LAST}, hash = (SELECT hash FROM audit_auditevent WHERE seq = {LAST})"],
    ),
}  # fmt: skip
AS_IT_IS = {
    "a role is inserted": [
        "INSERT INTO accounts_rolegrant (user_id, role) SELECT id, 'approver' FROM accounts_user WHERE username = 'victor'"
    ],
    "a token is inserted": [
        "INSERT INTO accounts_apitoken (user_id, name, scope, digest, created_at) SELECT id, 'mine', 'approver', 'd',"
        " date_joined FROM accounts_user WHERE username = 'ada'"
    ],
    "a token's hash is exchanged": ["UPDATE accounts_apitoken SET digest = 'd' WHERE scope = 'approver'"],
    "a guard is disabled": ["ALTER TABLE deploy_pointermove DISABLE TRIGGER deploy_pointermove_no_delete"],
    "a guard is left out in replication": [
        "ALTER TABLE deploy_pointermove ENABLE TRIGGER deploy_pointermove_no_delete"
    ],
    "a guard is dropped": ["DROP TRIGGER deploy_pointermove_no_delete ON deploy_pointermove"],
    "a guard is replaced": [
        "DROP TRIGGER deploy_pointermove_no_delete ON deploy_pointermove",
        "CREATE TRIGGER deploy_pointermove_no_delete BEFORE DELETE ON deploy_pointermove FOR EACH ROW WHEN (false)"
        " EXECUTE FUNCTION deploy_pointermove_no_delete()",
        "ALTER TABLE deploy_pointermove ENABLE ALWAYS TRIGGER deploy_pointermove_no_delete",
    ],
    "a guard's function is replaced": [
        "CREATE OR REPLACE FUNCTION deploy_pointermove_no_delete() RETURNS trigger LANGUAGE plpgsql"
        " AS 'BEGIN RETURN OLD; END'"
    ],
    "another trigger changes rows after the guards": [
        "CREATE FUNCTION zzz() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "CREATE TRIGGER zzz BEFORE INSERT ON deploy_pointermove FOR EACH ROW EXECUTE FUNCTION zzz()",
    ],
    "a rule turns a statement into nothing": [
        "CREATE RULE mine AS ON INSERT TO deploy_pointermove DO INSTEAD NOTHING"
    ],
    "row security hides rows": ["ALTER TABLE deploy_pointermove ENABLE ROW LEVEL SECURITY"],
    "a replication session deletes": [
        "SET LOCAL session_replication_role = replica",
        "DELETE FROM deploy_pointermove",
    ],
}
ON_SQLITE = {
    "a guard is dropped": ["DROP TRIGGER deploy_pointermove_no_delete"],
    "a guard is replaced": [
        "DROP TRIGGER deploy_pointermove_no_delete",
        "CREATE TRIGGER deploy_pointermove_no_delete BEFORE DELETE ON deploy_pointermove WHEN 0 BEGIN SELECT 1; END",
    ],
    "the schema is written to": [
        "PRAGMA writable_schema = ON",
        "DELETE FROM sqlite_master WHERE name = 'deploy_pointermove_no_delete'",
    ],
    "a move is replaced": [
        "PRAGMA recursive_triggers = OFF",
        "INSERT OR REPLACE INTO deploy_pointermove SELECT * FROM deploy_pointermove WHERE revision = 2",
    ],
    "a gate's outcome is replaced by its unique columns": [
        "REPLACE INTO gates_gateresult (diagnosis_id, position, gate, is_required, verdict, figure_word, observed,"
        " threshold, sentence) SELECT diagnosis_id, position, gate, is_required, 'passed', '', '', '', ''"
        " FROM gates_gateresult"
    ],
    "a bundle is replaced by its digest": [
        "REPLACE INTO training_bundle (digest, coin_id, line, origin, manifest, is_simulated, created_at)"
        " SELECT digest, coin_id, 'v5', origin, manifest, is_simulated, created_at FROM training_bundle"
    ],
    "a bundle takes another's key": [
        "UPDATE OR REPLACE training_bundle SET id = (SELECT MIN(id) FROM training_bundle)"
        " WHERE id = (SELECT MAX(id) FROM training_bundle)"
    ],
    "an upsert rewrites a move": [
        "INSERT INTO deploy_pointermove SELECT * FROM deploy_pointermove WHERE true"
        " ON CONFLICT (revision) DO UPDATE SET reason = 'mine'"
    ],
}
IDENTITIES = ("application", "worker", "owner", "superuser")


@pytest.fixture(scope="module", autouse=True)
def made(django_db_setup: None, django_db_blocker: Any) -> Iterator[Roles | None]:
    """A service in use with an approved and a rejected release, whose audit head was signed and kept."""
    with django_db_blocker.unblock(), transaction.atomic():
        created = roles.create_roles() if connection.vendor == "postgresql" else None
        factories.person("victor", "viewer")
        factories.token(factories.person("ada", "approver"), "approver")
        keys.export_public()
        scenarios.service_in_use()
        move = decide.approve(scenarios.awaiting_approval(), actor=APPROVER, reason="passed", revision=1)
        scenarios.Build(figures=scenarios.for_every_coin(scenarios.inaccurate), seed=3).settled()
        assert move.revision == 2
        now = timezone.now()
        for minutes in (1, 2):
            signing.get_envelope(now + timedelta(minutes=minutes))
        assert audit.verify(heads.read_own(settings.AUDIT_HEADS_FILE)) == []
        yield created
        transaction.set_rollback(True)


def attempt(role: str | None, statements: list[str]) -> str | None:
    """Forge as this role; returns the refusal, or None after checking that it was found."""
    identity = as_role(role) if role else nullcontext()
    with transaction.atomic():
        try:
            with transaction.atomic(), identity, connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
        except DatabaseError as refusal:
            return str(refusal)
        assert audit.verify(heads.read_own(settings.AUDIT_HEADS_FILE)) != [], "verify_audit finds it"
        with pytest.raises(Unavailable):
            signing.get_envelope(timezone.now() + timedelta(minutes=3))
        transaction.set_rollback(True)
    return None


def without_guards(table: str, statements: list[str]) -> list[str]:
    """Take the table's guards away and put them back, so that only the forgery itself is left to find."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute(
                "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = %s", [table]
            )
            found = cursor.fetchall()
            return [*(f"DROP TRIGGER {name}" for name, _ in found), *statements, *(text for _, text in found)]
        cursor.execute(
            "SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal", [table]
        )
        names = [name for (name,) in cursor.fetchall()]
    at_once, change = "SET CONSTRAINTS ALL IMMEDIATE", f"ALTER TABLE {table}"
    restored = [f"{change} ENABLE ALWAYS TRIGGER {name}" for name in names]
    return [at_once, f"{change} DISABLE TRIGGER USER", *statements, at_once, *restored]


@pytest.mark.parametrize("identity", IDENTITIES)
@pytest.mark.parametrize("name", WITH_GUARDS_OFF)
def test_with_the_guards_taken_away(made: Roles | None, name: str, identity: str) -> None:
    table, statements = WITH_GUARDS_OFF[name]
    if made is None and identity != "owner":
        pytest.skip("SQLite has no roles")
    refusal = attempt(getattr(made, identity) if made else None, without_guards(table, statements))
    if identity in ("application", "worker"):
        assert refusal is not None


@pytest.mark.parametrize("identity", IDENTITIES)
@pytest.mark.parametrize("name", AS_IT_IS)
def test_past_or_against_the_guards(made: Roles | None, name: str, identity: str) -> None:
    statements = AS_IT_IS[name]
    if made is None and (identity != "owner" or not statements[0].startswith(("INSERT", "UPDATE"))):
        pytest.skip("PostgreSQL's own")
    refusal = attempt(
        getattr(made, identity) if made else None,
        ["SET CONSTRAINTS ALL IMMEDIATE", *statements] if made else statements,
    )
    if identity == "worker":
        assert refusal is not None


@pytest.mark.parametrize("name", ON_SQLITE)
def test_by_means_of_sqlite(made: Roles | None, name: str) -> None:
    if made is not None:
        pytest.skip("SQLite's own")
    attempt(None, ON_SQLITE[name])
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA writable_schema = OFF")


@pytest.mark.parametrize("identity", ["application", "worker", "owner"])
def test_a_program_is_started_by_nobody_but_the_superuser(made: Roles | None, identity: str) -> None:
    if made is None:
        pytest.skip("PostgreSQL's own")
    assert "denied" in str(attempt(getattr(made, identity), ["COPY (SELECT 1) TO PROGRAM 'true'"]))
