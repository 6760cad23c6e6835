"""What a program may ask of the running service, and answers other than as the OpenAPI document says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from crpbot.api import urls

pytestmark = pytest.mark.processes

REPOSITORY = Path(__file__).resolve().parents[2]
SHORT = ("--examples", "3", "--phases", "examples,fuzzing,stateful", "--generation-deterministic")


@pytest.mark.long
def test_schemathesis_finds_nothing() -> None:
    """`make schemathesis`, a few seconds of it: every operation, asked over HTTP with what its schema allows and not."""
    command = [sys.executable, "-m", "tests.api.conformance", *SHORT]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    selected = re.search(r"Operations:\s+(\d+) selected / (\d+) total", ran.stdout)
    assert selected is not None, ran.stdout
    assert selected[1] == selected[2]
    assert int(selected[1]) >= len(urls.v1)
