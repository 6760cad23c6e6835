"""The bot of the documentation does what it says. Against a real demo, tests/e2e/test_demo.py runs it."""

import os
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path

import polars as pl
import pytest

from tests.processes import REPOSITORY
from tests.runtime.stub_service import TOKEN, Release, StubService

pytestmark = pytest.mark.slow

EXAMPLE = REPOSITORY / "docs" / "example_bot.py"


def test_the_example_bot_follows_a_move_and_tells_the_service(
    service: StubService, cache_dir: Path, old: Release, new: Release, candles: pl.DataFrame, tmp_path: Path
) -> None:
    files = [str(tmp_path / f"{coin}.csv") for coin in ("BTC", "ETH")]
    for file in files:
        candles.write_csv(file)
    service.point_at(old)
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "CRPBOT_URL": service.url,
        "CRPBOT_TOKEN": TOKEN,
        "CRPBOT_PUBLIC_KEY": service.public_key,
        "CRPBOT_CACHE_DIR": str(cache_dir),
        "BOT_EVERY_S": "0.02",
        "BOT_MAX_AGE_S": "inf",
    }
    command = [sys.executable, str(EXAMPLE), *files]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        try:
            assert child.stdout is not None
            lines = islice(iter(child.stdout.readline, ""), 2_000)
            assert any(re.match(r"BTC \w+ 0\.\d\d  release 1", line) for line in lines)
            service.point_at(new)
            assert any(line.startswith("now: v7_fixed, release 2, revision 2") for line in lines)
            assert any(re.match(r"ETH \w+ 0\.\d\d  release 2", line) for line in lines)
        finally:
            child.kill()


def test_the_example_bot_has_forty_lines() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 40
