"""A web process stays light: it never loads what only workers need."""

import os
import subprocess
import sys

import pytest

WHAT_A_WEB_PROCESS_LOADS = """
import sys
from crpbot.asgi import application
from django.urls import get_resolver

def walk(patterns):
    for pattern in patterns:
        if hasattr(pattern, "url_patterns"):
            walk(pattern.url_patterns)

walk(get_resolver().url_patterns)
heavy = {"torch", "sklearn", "onnx", "onnxruntime", "pandas", "ccxt", "scipy"} & set(sys.modules)
print(",".join(sorted(heavy)))
"""


@pytest.mark.slow
def test_a_web_process_imports_nothing_that_only_workers_need() -> None:
    found = subprocess.run(
        [sys.executable, "-c", WHAT_A_WEB_PROCESS_LOADS],
        capture_output=True,
        text=True,
        env=os.environ,
        check=True,
    )
    assert found.stdout.strip() == ""
