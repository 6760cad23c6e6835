"""Prometheus' own checker, which its Debian package brings: `apt-get install prometheus`."""

import shutil
import subprocess
from pathlib import Path

import pytest

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="NOT CHECKED: there is no promtool here, so alert rules and metrics are unchecked (apt-get install prometheus)",
)


def promtool(*arguments: str | Path, text: str | None = None) -> str:
    """What it prints; fails the test with that where it finds fault."""
    done = subprocess.run(["promtool", *map(str, arguments)], input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
