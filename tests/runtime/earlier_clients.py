"""Clients of earlier protocols, taken from the repository's own history: the code that a bot may still run."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.processes import REPOSITORY

COMMITS = {1: "54a91752cad83897a991f5240e613a5c789d3438"}
"""The last commit of each protocol before the current one."""


def extract(protocol: int, folder: Path) -> Path:
    """The client's packages of that protocol. Skips the test in a clone without its commit."""
    command = ["git", "-C", str(REPOSITORY), "archive", COMMITS[protocol], "crpbot_runtime", "mlcore"]
    archived = subprocess.run(command, capture_output=True)
    if archived.returncode:
        pytest.skip(f"this clone lacks the commit of protocol {protocol}: git fetch --unshallow")
    with tarfile.open(fileobj=io.BytesIO(archived.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def run(client: Path, *words: str, typed: str = "", **environment: str) -> str:
    """What a Python program printed that finds this client and not the current one. Fails with its errors."""
    command = [sys.executable, "-P", *words]
    paths = {"PYTHONPATH": str(client), "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        command,
        cwd=client,
        env={**os.environ, **paths, **environment},
        input=typed,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
