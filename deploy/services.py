"""Launching, settling, deciding: everything that is asked of a release or the pointer."""

from django.db import models


def advance_for(obj: models.Model) -> None:
    """Written next."""
