from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def store(settings: Any, tmp_path: Path) -> Path:
    """A file store of the test's own; answers its folder."""
    folder = tmp_path / "files"
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {"BACKEND": "training.atomic_storage.AtomicFileStorage", "OPTIONS": {"location": folder}},
    }
    return folder
