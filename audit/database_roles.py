"""The roles of PostgreSQL in production: the owner migrates, the application serves, workers execute jobs.

The grants follow from the list of models, so that a new table has grants from its first migration on: the application may
not update or delete what a guard keeps, and a worker may touch only what its jobs need.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import unquote, urlsplit

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError, connection, models, transaction
from psycopg import sql

from audit import triggers

MIGRATIONS_TABLE = "django_migrations"


class DatabaseRole(StrEnum):
    APPLICATION = "application"
    WORKER = "worker"


@dataclass(frozen=True)
class Grants:
    """What a role may do with one table; `updates` names columns, and ("*",) stands for all of them."""

    selects: bool = True
    inserts: bool = False
    updates: tuple[str, ...] = ()
    deletes: bool = False

    def build_privileges(self) -> Iterator[sql.Composable]:
        if self.selects:
            yield sql.SQL("SELECT")
        if self.inserts:
            yield sql.SQL("INSERT")
        if self.updates == ("*",):
            yield sql.SQL("UPDATE")
        elif self.updates:
            yield sql.SQL("UPDATE ({})").format(sql.SQL(", ").join(map(sql.Identifier, self.updates)))
        if self.deletes:
            yield sql.SQL("DELETE")


_READ_ONLY_APPS = {"admin", "auth", "contenttypes"}
"""Migrations fill them; the service only reads."""

_DELETED = {
    "deploy.StoredFile",
    "accounts.Session", "accounts.FailedCode", "accounts.RoleGrant", "mfa.Authenticator",
    "deploy.Bot", "deploy.Acknowledgement", "deploy.LiveWindow",
    "deploy.LiveTotal", "training.Worker", "training.RunLine", "training.RunTag",
}  # fmt: skip
"""The only rows that the service ever deletes."""

_JOB_COLUMNS = (
    "state", "attempt", "lease_until", "enqueued_at", "worker_name", "started_at", "finished_at", "failure", "code_version",
)  # fmt: skip

_WORKER: Mapping[str, Grants] = {
    "audit.AuditHead": Grants(inserts=True, updates=("seq", "hash")),
    "audit.AuditEvent": Grants(inserts=True),
    "training.Coin": Grants(),
    "training.Dataset": Grants(),
    "training.Budget": Grants(),
    "training.TrainingRun": Grants(
        updates=(
            *_JOB_COLUMNS,
            *("checkpoint", "bundle_id", "device", "rate_usd_per_hour", "reserved_usd", "allowed_seconds"),
            *("billed_seconds", "spent_usd", "best_validation_loss", "best_validation_accuracy"),
        )
    ),
    "training.Epoch": Grants(inserts=True),
    "training.RunLine": Grants(inserts=True),
    "training.Bundle": Grants(inserts=True),
    "training.Artifact": Grants(inserts=True),
    "training.Worker": Grants(inserts=True, updates=("*",), deletes=True),
    "studies.Study": Grants(),
    "studies.Trial": Grants(updates=("is_pruned", "stop_blocks")),
    "gates.Measurement": Grants(updates=(*_JOB_COLUMNS, "body")),
}
"""All that executing a job reads and writes. Every other table is closed to workers."""


@dataclass(frozen=True)
class RoleLogin:
    """The name and password of a role, from its database URL."""

    name: str
    password: str = field(repr=False)


def list_grants(role: DatabaseRole) -> dict[str, Grants]:
    """What this role may do with each table of the service, by the table's name."""
    chosen = {
        model._meta.db_table: _choose_grants(role, model)
        for model in apps.get_models(include_auto_created=True)
    }
    migrations = Grants(selects=role == DatabaseRole.APPLICATION)
    return {**chosen, MIGRATIONS_TABLE: migrations}


def _choose_grants(role: DatabaseRole, model: type[models.Model]) -> Grants:
    if role == DatabaseRole.WORKER:
        return _WORKER.get(model._meta.label, Grants(selects=False))
    if model._meta.app_label in _READ_ONLY_APPS or model._meta.auto_created:
        return Grants()
    refused = triggers.list_refused_events(model._meta.db_table)
    return Grants(
        inserts=True,
        updates=() if "UPDATE" in refused else ("*",),
        deletes=model._meta.label in _DELETED and "DELETE" not in refused,
    )


def apply() -> list[str]:
    """Create or update the roles of the two URLs, and give them exactly their grants; returns their names.

    Runs as the owner, after the migrations; safe to repeat. Raises ImproperlyConfigured where a URL names the owner itself,
    or a role that may do more than its grants.
    """
    logins = {role: _read_login(role) for role in DatabaseRole}
    with transaction.atomic():
        for role, login in logins.items():
            _create_role(login)
            _grant(role, login)
            if excess := find_excess(login.name):
                raise ImproperlyConfigured(f"The role {login.name} {'; '.join(excess)}. Take that from it.")
    return [login.name for login in logins.values()]


def is_configured() -> bool:
    return all(settings.DATABASE_ROLE_URLS.values())


def find_excess(role: str | None = None, kind: DatabaseRole | None = None) -> list[str]:
    """What a role (by default the connected one) may do beyond its part, as predicates; empty on SQLite."""
    if connection.vendor != "postgresql":
        return []
    with connection.cursor() as cursor:
        if role is None:
            cursor.execute("SELECT current_user")
            (role,) = cursor.fetchone()
        cursor.execute(_EXCESS, {"role": role, "is_worker": kind == DatabaseRole.WORKER})
        return [sentence for sentence, holds in cursor.fetchall() if holds]


_EXCESS = """SELECT sentence, holds FROM pg_roles r, LATERAL (VALUES
    ('is a superuser', r.rolsuper),
    ('may create roles', r.rolcreaterole),
    ('may create databases', r.rolcreatedb),
    ('may bypass row security', r.rolbypassrls),
    ('may replicate', r.rolreplication),
    ('owns tables', EXISTS (SELECT 1 FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace
        AND c.relkind IN ('r', 'p', 'v') AND pg_has_role(r.oid, c.relowner, 'MEMBER'))),
    ('may create tables', has_schema_privilege(r.oid, 'public', 'CREATE')
        OR has_database_privilege(r.oid, current_database(), 'CREATE')),
    ('may create temporary tables', has_database_privilege(r.oid, current_database(), 'TEMPORARY')),
    ('may set session_replication_role', has_parameter_privilege(r.oid, 'session_replication_role', 'SET')),
    ('may start programs on the server', pg_has_role(r.oid, 'pg_execute_server_program', 'MEMBER')),
    ('may read or write files of the server', pg_has_role(r.oid, 'pg_read_server_files', 'MEMBER')
        OR pg_has_role(r.oid, 'pg_write_server_files', 'MEMBER')),
    ('may move the pointer, and a worker may not', %(is_worker)s AND to_regclass('public.deploy_pointermove') IS NOT NULL
        AND has_table_privilege(r.oid, to_regclass('public.deploy_pointermove'), 'INSERT'))
) AS checks (sentence, holds) WHERE r.rolname = %(role)s"""


def require_least_privilege(kind: DatabaseRole) -> None:
    """Refuse to start in production as a role that may do more than `kind`. Raises ImproperlyConfigured.

    A database that does not answer yet refuses nothing here: the process waits for it, as it does later.
    """
    if settings.IS_EMBEDDED:
        return
    try:
        excess = find_excess(kind=kind)
    except OperationalError:
        return
    finally:
        connection.close()
    if excess:
        raise ImproperlyConfigured(
            f"This process does not start: its database role {'; '.join(excess)}. Give CRPBOT_DATABASE_URL the {kind}'s"
            " role, which `manage.py database_roles` creates; only migrations run as the owner (docs/operations/install.md)."
        )


def can_decide() -> bool:
    """Whether this process may write the pointer: a worker in production may not, and leaves that to reconcile."""
    if connection.vendor != "postgresql":
        return True
    with connection.cursor() as cursor:
        cursor.execute("SELECT has_table_privilege('public.deploy_pointermove', 'INSERT')")
        return bool(cursor.fetchone()[0])


def _read_login(role: DatabaseRole) -> RoleLogin:
    url, name = settings.DATABASE_ROLE_URLS[role], f"CRPBOT_DATABASE_{role.upper()}_URL"
    parts = urlsplit(url)
    if not parts.username:
        raise ImproperlyConfigured(f"{name} is not set, or names no user: it is the {role}'s database URL.")
    if parts.username == connection.settings_dict["USER"]:
        raise ImproperlyConfigured(
            f"{name} names the role that runs the migrations; give the {role} its own."
        )
    return RoleLogin(unquote(parts.username), unquote(parts.password or ""))


def _create_role(login: RoleLogin) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [login.name])
        verb = "ALTER" if cursor.fetchone() else "CREATE"
        statement = sql.SQL("{} ROLE {} LOGIN PASSWORD {}")
        cursor.execute(
            statement.format(sql.SQL(verb), sql.Identifier(login.name), sql.Literal(login.password or None))
        )


def _grant(role: DatabaseRole, login: RoleLogin) -> None:
    """Take everything away and grant what is listed: within a transaction, nobody sees the moment between."""
    name = sql.Identifier(login.name)
    database = sql.Identifier(connection.settings_dict["NAME"])
    with connection.cursor() as cursor:

        def run(text: str, **parts: sql.Composable) -> None:
            cursor.execute(sql.SQL(text).format(role=name, database=database, **parts))

        run("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        run("REVOKE ALL ON DATABASE {database} FROM PUBLIC")
        run("GRANT CONNECT ON DATABASE {database} TO {role}")
        run("GRANT USAGE ON SCHEMA public TO {role}")
        run("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {role}, PUBLIC")
        run("REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM {role}, PUBLIC")
        for table, grants in list_grants(role).items():
            if privileges := list(grants.build_privileges()):
                run(
                    "GRANT {privileges} ON TABLE public.{table} TO {role}",
                    privileges=sql.SQL(", ").join(privileges),
                    table=sql.Identifier(table),
                )
            for sequence in _list_sequences(table) if grants.inserts else ():
                run("GRANT USAGE ON SEQUENCE public.{sequence} TO {role}", sequence=sql.Identifier(sequence))


def _list_sequences(table: str) -> list[str]:
    with connection.cursor() as cursor:
        return [row["name"] for row in connection.introspection.get_sequences(cursor, table)]
