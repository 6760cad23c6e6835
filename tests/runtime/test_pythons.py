"""The wheel alone, in a new environment of each Python that it supports: `make pythons` (it installs from the index)."""

import json
import subprocess
from pathlib import Path

import polars as pl
import pytest

from distribution import wheel
from tests.runtime.bots import VERSIONS, WARNINGS, check_fork, check_other_system, find_python
from tests.runtime.stub_service import TOKEN, Release, StubService

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module", params=VERSIONS)
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of a Python with the wheel and what it requires, without this repository."""
    folder = tmp_path_factory.mktemp("python")
    if (base := find_python(request.param)) is None:
        pytest.skip(f"there is no Python {request.param} here")
    subprocess.run([base, "-m", "venv", str(folder / "venv")], check=True)
    own = str(folder / "venv" / "bin" / "python")
    install = [own, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, str(wheel.build(folder))], check=True)
    return [own, "-I", *WARNINGS]


@pytest.fixture
def candle_file(candles: pl.DataFrame, tmp_path: Path) -> Path:
    candles.write_parquet(tmp_path / "BTC.parquet")
    return tmp_path / "BTC.parquet"


def test_the_command_predicts(
    python: list[str], service: StubService, old: Release, candle_file: Path, cache_dir: Path
) -> None:
    service.point_at(old)
    environment = {
        "CRPBOT_URL": service.url,
        "CRPBOT_TOKEN": TOKEN,
        "CRPBOT_PUBLIC_KEY": service.public_key,
        "CRPBOT_CACHE_DIR": str(cache_dir),
        "ALL_PROXY": "socks5h://127.0.0.1:1080",
        "NO_PROXY": "[::1]",
    }
    asked = ["predict", "--coin", "BTC", "--candles", str(candle_file), "--max-age", "inf", "--json"]
    done = subprocess.run(
        [*python, "-m", "crpbot_runtime", *asked],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["release"] == old.number


def test_it_works_after_a_fork(
    python: list[str], service: StubService, cache_dir: Path, old: Release, new: Release, candle_file: Path
) -> None:
    check_fork(python, service, cache_dir, old, new, candle_file)


def test_it_works_without_what_only_unix_has(
    python: list[str], service: StubService, cache_dir: Path, old: Release, new: Release, candle_file: Path
) -> None:
    check_other_system(python, service, cache_dir, old, new, candle_file)
