"""Operations for migrations that run while the version before still serves (docs/operations/upgrade.md).

On PostgreSQL they hold no lock while they read a table. SQLite, which has one process that migrates and none that serves
meanwhile, gets the ordinary operation. The migrations of the first and second have `atomic = False`.
"""

from typing import ClassVar

from django.contrib.postgres import operations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations import AddConstraint, AddIndex, RemoveIndex
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState


class _Elsewhere(Operation):
    """What follows it among the base classes, on PostgreSQL; `ordinary`, or nothing, on another database."""

    ordinary: ClassVar[type[Operation] | None]

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        if schema_editor.connection.vendor == "postgresql":
            super().database_forwards(app_label, schema_editor, from_state, to_state)
        elif self.ordinary is not None:
            self.ordinary.database_forwards(self, app_label, schema_editor, from_state, to_state)

    def database_backwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        if schema_editor.connection.vendor == "postgresql":
            super().database_backwards(app_label, schema_editor, from_state, to_state)
        elif self.ordinary is not None:
            self.ordinary.database_backwards(self, app_label, schema_editor, from_state, to_state)


class AddIndexConcurrently(_Elsewhere, operations.AddIndexConcurrently):
    ordinary = AddIndex


class RemoveIndexConcurrently(_Elsewhere, operations.RemoveIndexConcurrently):
    ordinary = RemoveIndex


class AddConstraintNotValid(_Elsewhere, operations.AddConstraintNotValid):
    """Rows that are there already are not checked until `ValidateConstraint`, in a later migration."""

    ordinary = AddConstraint


class ValidateConstraint(_Elsewhere, operations.ValidateConstraint):
    ordinary = None
