"""The database roles of production: what each may do, and that no process starts with more (PostgreSQL)."""

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from django.test import override_settings

from accounts import services as accounts
from accounts.roles import GATE, Actor, Role
from audit import database_roles
from audit.database_roles import DatabaseRole
from deploy.bots.heartbeats import receive_heartbeat
from deploy.reconcile import reconcile_once
from deploy.releases import decide
from deploy.serving import keys, signing
from gates import worker as gate_worker
from gates.services import measuring
from tests import factories, roles, scenarios
from tests.processes import REPOSITORY
from tests.roles import Roles, as_role
from tests.scenarios import APPROVER
from training import worker as training_worker
from training.rules import JobState

PRODUCTION = {
    "CRPBOT_PROFILE": "production",
    "CRPBOT_SECRET_KEY": "a value that is long enough to be a secret",
    "CRPBOT_REDIS_URL": "redis://127.0.0.1:1/0",
    "CRPBOT_ALLOWED_HOSTS": "localhost",
    "CRPBOT_S3_BUCKET": "crpbot",
    "CRPBOT_S3_ACCESS_KEY": "key",
    "CRPBOT_S3_SECRET_KEY": "secret",
    "DJANGO_SETTINGS_MODULE": "crpbot.settings",
}

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql]


@pytest.fixture(scope="module")
def made(django_db_setup: None, django_db_blocker: Any) -> Iterator[Roles]:
    """Made once: each test leaves them as it found them."""
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has no roles")
    with django_db_blocker.unblock(), transaction.atomic():
        yield roles.create_roles()
        transaction.set_rollback(True)


def run(role: str, text: str) -> None:
    with as_role(role), connection.cursor() as cursor:
        cursor.execute(text)


def read_privileges(role: str) -> set[tuple[str, str]]:
    """(table, privilege) of everything in the schema, a privilege on some columns included."""
    query = (
        "SELECT c.relname, p.privilege FROM pg_class c, (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('REFERENCES'))"
        " AS p (privilege) WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v', 'm', 'f', 'p')"
        " AND has_any_column_privilege(%(role)s, c.oid, p.privilege) UNION"
        " SELECT c.relname, p.privilege FROM pg_class c, (VALUES ('DELETE'), ('TRUNCATE'), ('TRIGGER'))"
        " AS p (privilege) WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v', 'm', 'f', 'p')"
        " AND has_table_privilege(%(role)s, c.oid, p.privilege)"
    )
    with connection.cursor() as cursor:
        cursor.execute(query, {"role": role})
        return set(cursor.fetchall())


@pytest.mark.parametrize("kind", list(DatabaseRole))
def test_each_role_has_the_grants_that_follow_from_the_models(made: Roles, kind: DatabaseRole) -> None:
    expected = {
        (table, text.as_string(connection.connection).split(" ")[0])
        for table, grants in database_roles.list_grants(kind).items()
        for text in grants.build_privileges()
    }
    assert read_privileges(getattr(made, kind)) == expected
    tables = set(connection.introspection.table_names())
    assert tables == set(database_roles.list_grants(kind)), "no table is forgotten"


def test_what_a_worker_may_write_is_its_jobs_and_their_events() -> None:
    written = {
        table: grants
        for table, grants in database_roles.list_grants(DatabaseRole.WORKER).items()
        if grants.inserts or grants.updates or grants.deletes
    }
    assert set(written) == {
        "audit_audithead", "audit_auditevent", "gates_measurement", "studies_trial", "training_artifact", "training_bundle",
        "training_epoch",
        "training_runline", "training_trainingrun", "training_worker",
    }  # fmt: skip
    assert {"line", "recipe", "package", "dataset_id", "coin_id", "budget_id"}.isdisjoint(
        written["training_trainingrun"].updates
    )
    assert written["studies_trial"] == database_roles.Grants(updates=("is_pruned", "stop_blocks"))


def test_a_new_model_has_grants_without_being_listed() -> None:
    """Those of the application follow from the model's guards; a worker gets none."""
    unlisted = {model._meta.db_table for model in apps.get_models(include_auto_created=True)}
    application = database_roles.list_grants(DatabaseRole.APPLICATION)
    assert unlisted <= set(application)
    assert application["deploy_pointermove"] == database_roles.Grants(inserts=True)
    assert application["deploy_release"] == database_roles.Grants(inserts=True, updates=("*",))
    assert database_roles.list_grants(DatabaseRole.WORKER)["deploy_pointermove"] == database_roles.Grants(
        selects=False
    )


@pytest.mark.parametrize("kind", ["application", "worker"])
@pytest.mark.parametrize(
    "text",
    [
        "CREATE TABLE mine (id int)",
        "CREATE TEMP TABLE audit_auditevent (seq int)",
        "CREATE SCHEMA mine",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE OR REPLACE FUNCTION deploy_pointermove_swaps_what_passed() RETURNS trigger LANGUAGE plpgsql"
        " AS 'BEGIN RETURN NEW; END'",
        "ALTER TABLE deploy_pointermove DISABLE TRIGGER ALL",
        "ALTER TABLE audit_auditevent DISABLE TRIGGER audit_auditevent_no_update",
        "DROP TRIGGER deploy_pointermove_no_delete ON deploy_pointermove",
        "CREATE RULE mine AS ON UPDATE TO deploy_pointermove DO INSTEAD NOTHING",
        "ALTER TABLE deploy_pointermove ENABLE ROW LEVEL SECURITY",
        "SET session_replication_role = replica",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "COPY audit_auditevent TO '/tmp/events'",
        "TRUNCATE audit_auditevent",
        "DELETE FROM audit_auditevent",
        "UPDATE audit_auditevent SET reason = 'other'",
        "DELETE FROM deploy_pointermove",
        "UPDATE deploy_pointermove SET reason = 'other'",
        "UPDATE gates_diagnosis SET verdict = 'passed'",
        "UPDATE gates_gateresult SET verdict = 'passed'",
        "UPDATE training_epoch SET is_best = true",
        "CREATE ROLE mine SUPERUSER",
        "GRANT postgres TO CURRENT_USER",
    ],
)
def test_neither_application_nor_worker_may(made: Roles, kind: str, text: str) -> None:
    with pytest.raises(DatabaseError, match=r"denied|must be owner|must be superuser|must have"):
        run(getattr(made, kind), text)


@pytest.mark.parametrize(
    "text",
    [
        "INSERT INTO deploy_pointermove (revision) VALUES (9)",
        "UPDATE deploy_releasestatus SET state = 'awaiting_approval'",
        "INSERT INTO deploy_fallbackregistration (release_id) VALUES (1)",
        "INSERT INTO gates_gatepolicy (number) VALUES (9)",
        "INSERT INTO gates_policyadoption (policy_id) VALUES (1)",
        "INSERT INTO gates_diagnosis (verdict) VALUES ('passed')",
        "INSERT INTO accounts_rolegrant (user_id, role) VALUES (1, 'approver')",
        "INSERT INTO accounts_apitoken (user_id) VALUES (1)",
        "SELECT password FROM accounts_user",
        "SELECT session_key FROM accounts_session",
        "UPDATE training_coin SET is_required = false",
        "UPDATE training_trainingrun SET line = 'v5'",
        "UPDATE gates_measurement SET bundle_id = 1",
        "UPDATE training_bundle SET digest = 'sha256:0'",
    ],
)
def test_a_worker_decides_nothing_and_reads_no_account(made: Roles, text: str) -> None:
    with pytest.raises(DatabaseError, match="permission denied"):
        run(made.worker, text)


def test_the_service_works_as_the_application(made: Roles) -> None:
    """From the first release to a pin, with everything that web and reconcile do between."""
    with as_role(made.application):
        keys.export_public()
        move = scenarios.service_in_use()
        signing.get_envelope()
        approver = accounts.create_user("ada", password=None, roles=[Role.APPROVER], actor=GATE)
        accounts.withdraw(approver, Role.APPROVER, actor=GATE)
        factories.token(factories.person("trader"), "bot")
        receive_heartbeat(scenarios.heartbeat(move), actor=Actor("trader", is_bot=True))
        decide.approve(scenarios.awaiting_approval(), actor=APPROVER, reason="passed", revision=1)
        reconcile_once()
        decide.pin(actor=APPROVER, reason="a fire drill")
        assert signing.get_envelope().revision == 3


@pytest.mark.slow
def test_a_run_is_trained_and_measured_as_a_worker(made: Roles) -> None:
    dataset = factories.market()
    run_ = factories.run(dataset)
    with as_role(made.worker):
        trained = training_worker.train(run_.pk, worker_name="w1")
        assert trained is not None
        assert not database_roles.can_decide(), "it leaves the release to reconcile"
    assert trained.state == JobState.SUCCEEDED
    assert trained.bundle is not None
    measurement = measuring.measure(trained.bundle, dataset, actor=factories.OPERATOR)
    with as_role(made.worker):
        gate_worker.run(measurement.pk, worker_name="w1")
    measurement.refresh_from_db()
    assert measurement.state == JobState.SUCCEEDED


class TestAtStart:
    """In production no web process, worker or reconcile starts as a role that may do more than its part."""

    @pytest.mark.parametrize(
        ("name", "kind", "says"),
        [
            ("superuser", DatabaseRole.APPLICATION, "is a superuser"),
            ("owner", DatabaseRole.APPLICATION, "owns tables"),
            ("owner", DatabaseRole.WORKER, "may create tables"),
            ("application", DatabaseRole.WORKER, "may move the pointer, and a worker may not"),
            ("application", DatabaseRole.APPLICATION, None),
            ("worker", DatabaseRole.WORKER, None),
        ],
    )
    def test_excess_is_named(self, made: Roles, name: str, kind: DatabaseRole, says: str | None) -> None:
        excess = database_roles.find_excess(getattr(made, name), kind)
        assert (says in excess) if says else excess == []

    @pytest.mark.parametrize(
        ("grant", "says"),
        [
            ("GRANT SET ON PARAMETER session_replication_role TO {}", "may set session_replication_role"),
            ("GRANT pg_execute_server_program TO {}", "may start programs on the server"),
            ("GRANT pg_write_server_files TO {}", "may read or write files of the server"),
            ("GRANT CREATE ON SCHEMA public TO {}", "may create tables"),
            ("ALTER ROLE {} REPLICATION", "may replicate"),
            ("ALTER ROLE {} BYPASSRLS", "may bypass row security"),
        ],
    )
    def test_what_was_granted_in_addition_is_named_too(self, made: Roles, grant: str, says: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(grant.format(made.application))
        assert says in database_roles.find_excess(made.application)

    @pytest.mark.parametrize(
        "command",
        [
            ["-c", "import crpbot.asgi"],
            ["-m", "celery", "-A", "crpbot", "worker", "-Q", "training", "--pool", "solo"],
            ["manage.py", "reconcile", "--once"],
        ],
        ids=["web", "worker", "reconcile"],
    )
    @pytest.mark.slow
    def test_a_superuser_is_refused_with_one_sentence(self, db: None, command: list[str]) -> None:
        if connection.vendor != "postgresql":
            pytest.skip("SQLite has no roles")
        started = subprocess.run(
            [sys.executable, *command],
            cwd=REPOSITORY,
            env={**os.environ, **PRODUCTION},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert started.returncode != 0
        assert "This process does not start: its database role is a superuser" in started.stderr


def test_without_urls_nothing_is_granted(made: Roles) -> None:
    assert not database_roles.is_configured()
    with pytest.raises(SystemExit):
        call_command("database_roles")


def test_a_url_of_the_owner_itself_is_refused(made: Roles) -> None:
    user = connection.settings_dict["USER"]
    urls = dict.fromkeys(DatabaseRole, f"postgres://{user}@/x")
    with override_settings(DATABASE_ROLE_URLS=urls), pytest.raises(ImproperlyConfigured, match="its own"):
        database_roles.apply()
