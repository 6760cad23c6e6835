"""The database roles of production in the test's own PostgreSQL, made in its transaction and gone with it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.db import connection, transaction
from django.test import override_settings

from audit import database_roles

_TAKE_OVER = """DO $$ DECLARE what record; BEGIN
    FOR what IN SELECT oid::regclass AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
    LOOP EXECUTE format('ALTER TABLE %s OWNER TO {owner}', what.name); END LOOP;
    FOR what IN SELECT oid::regprocedure AS name FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    LOOP EXECUTE format('ALTER FUNCTION %s OWNER TO {owner}', what.name); END LOOP;
END $$"""


@dataclass(frozen=True)
class Roles:
    """The names of the roles, by what they are for."""

    superuser: str
    owner: str
    application: str
    worker: str


def create_roles() -> Roles:
    """As an installation has them: an owner without superuser makes the other two, with exactly their grants."""
    database, superuser = connection.settings_dict["NAME"], connection.settings_dict["USER"]
    names = {kind: f"{database}_{kind}" for kind in ("owner", "application", "worker")}
    urls = {kind: f"postgres://{names[kind]}:secret@/x" for kind in ("application", "worker")}
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {names['owner']} LOGIN CREATEROLE")
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(f"ALTER DATABASE {database} OWNER TO {names['owner']}")
        cursor.execute(_TAKE_OVER.format(owner=names["owner"]))
    with as_role(names["owner"]), override_settings(DATABASE_ROLE_URLS=urls):
        database_roles.apply()
        database_roles.apply()  # safe to repeat
    return Roles(superuser, **names)


@contextmanager
def as_role(name: str) -> Iterator[None]:
    """Work as this role, in the test's transaction."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL ROLE {name}")
        yield
        cursor.execute("SET LOCAL ROLE NONE")
