"""The rows of every table as lines of JSON, which SQLite and PostgreSQL both load.

Django's own serializer writes and reads them.
"""

import datetime
import gzip
import io
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from django.apps import apps
from django.contrib.contenttypes.models import ContentType
from django.core import serializers
from django.core.management.color import no_style
from django.core.serializers.base import DeserializationError
from django.core.serializers.json import DjangoJSONEncoder
from django.db import DatabaseError, connection, models, transaction

from common.errors import Conflict

FORMAT = "jsonl"
LEFT_OUT = ("accounts.session", "accounts.failedcode")
"""Models whose rows do not come back, with all of axes: who is signed in, and who failed to."""
CHUNK = 2_000


class _ExactEncoder(DjangoJSONEncoder):
    """Times with their microseconds, which the audit chain hashes; Django's encoder keeps milliseconds."""

    def default(self, o: Any) -> Any:
        return o.isoformat() if isinstance(o, datetime.datetime) else super().default(o)


def list_models() -> list[type[models.Model]]:
    """Every model with a table that a backup contains."""
    return [
        model
        for model in apps.get_models()
        if model._meta.app_label != "axes" and model._meta.label_lower not in LEFT_OUT
    ]


@contextmanager
def consistent_reading() -> Iterator[None]:
    """All queries inside see the database of one moment, and nothing that is written waits for them."""
    if connection.vendor == "sqlite":
        # Not `atomic`, which takes the write lock at once (transaction_mode in the settings).
        with connection.cursor() as cursor:
            cursor.execute("BEGIN DEFERRED")
            try:
                yield
            finally:
                cursor.execute("ROLLBACK")
        return
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield


def dump(file: IO[bytes]) -> dict[str, int]:
    """Write all rows, compressed; returns how many of each model. Call it inside `consistent_reading`."""
    counts = dict[str, int]()
    with gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as packed, io.TextIOWrapper(packed, "utf-8") as text:
        for model in list_models():
            rows = model._base_manager.order_by("pk")
            serializers.serialize(FORMAT, rows.iterator(chunk_size=CHUNK), stream=text, cls=_ExactEncoder)
            counts[model._meta.label_lower] = rows.count()
    return counts


def load(file: IO[bytes]) -> dict[str, int]:
    """Put the rows of a dump in place of all rows; returns how many of each model.

    The caller has removed the database guards, holds a transaction, and checks the result. Raises Conflict where the dump
    does not fit the tables.
    """
    _empty_tables()
    counts = Counter[str]()
    try:
        with gzip.GzipFile(fileobj=file, mode="rb") as packed, io.TextIOWrapper(packed, "utf-8") as text:
            for row in serializers.deserialize(FORMAT, text):
                row.save(force_insert=True)
                counts[row.object._meta.label_lower] += 1
        connection.check_constraints()
    except (DeserializationError, DatabaseError, EOFError, gzip.BadGzipFile) as error:
        raise Conflict(f"The rows of the backup cannot be loaded ({error}). Nothing was restored.") from error
    with connection.cursor() as cursor:
        for statement in connection.ops.sequence_reset_sql(no_style(), list_models()):
            cursor.execute(statement)
    ContentType.objects.clear_cache()
    return dict(counts)


def _empty_tables() -> None:
    """Remove what migrations wrote. References are checked at the end of the transaction."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET CONSTRAINTS ALL DEFERRED")
        for model in apps.get_models(include_auto_created=True):
            cursor.execute(f'DELETE FROM "{model._meta.db_table}"')
