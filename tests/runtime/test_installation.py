"""What a bot has to install: the runtime is light, and it says what types it takes."""

import json
import re
import subprocess
import sys
import zipfile
from importlib import resources
from pathlib import Path

import polars as pl
import pytest

import crpbot_runtime
from distribution import wheel
from tests.runtime.bots import VERSIONS, find_python
from tests.runtime.stub_service import TOKEN, Release, StubService

pytestmark = pytest.mark.slow

HEAVY = {
    "torch",
    "sklearn",
    "django",
    "pandas",
    "onnx",
    "celery",
    "rest_framework",
    "scipy",
    "ccxt",
    "plotly",
}


def test_importing_the_runtime_loads_nothing_heavy() -> None:
    code = "import crpbot_runtime, crpbot_runtime.__main__, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = set(done.stdout.split())
    assert {"crpbot_runtime", "mlcore", "polars", "onnxruntime", "httpx"} <= loaded
    assert loaded & HEAVY == set()


def test_the_runtime_ships_its_types() -> None:
    assert resources.files("crpbot_runtime").joinpath("py.typed").is_file()


BLOCKED = """
import sys
from importlib.abc import MetaPathFinder

class Blocked(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {heavy}:
            raise ModuleNotFoundError(f"{{name}} is not among what the wheel requires")

sys.meta_path.insert(0, Blocked())
sys.path.insert(0, {installed!r})
import crpbot_runtime
assert crpbot_runtime.__file__.startswith({installed!r})
"""

RUN_COMMAND = """
import sys
from crpbot_runtime.__main__ import main
sys.exit(main())
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as it comes to lie where it is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    zipfile.ZipFile(wheel.build(folder)).extractall(folder / "installed")
    return folder / "installed"


def test_the_kit_for_notebooks_is_in_the_wheel_and_needs_no_more(
    installed: Path, candles: pl.DataFrame, tmp_path: Path
) -> None:
    candles.write_parquet(tmp_path / "BTC.parquet")
    prepares = """
import polars
from crpbot_runtime.train import Gate, prepare
rows = prepare(polars.read_parquet("BTC.parquet"), {"digest": "none"}, input="window16")
print(rows.fit.features.shape[1:], Gate("http://localhost", "token"))
"""
    program = BLOCKED.format(heavy=HEAVY, installed=str(installed)) + prepares
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "(16, 5) Gate('http://localhost')\n", done.stderr


def test_the_wheel_decides_without_the_repository_or_heavy_packages(
    installed: Path, service: StubService, old: Release, candles: pl.DataFrame, tmp_path: Path
) -> None:
    service.point_at(old)
    candles.write_csv(tmp_path / "BTC.csv")
    environment = {
        "CRPBOT_URL": service.url,
        "CRPBOT_TOKEN": TOKEN,
        "CRPBOT_PUBLIC_KEY": service.public_key,
        "CRPBOT_CACHE_DIR": str(tmp_path / "cache"),
    }
    program = BLOCKED.format(heavy=HEAVY, installed=str(installed)) + RUN_COMMAND
    asks = ["predict", "--coin", "BTC", "--candles", str(tmp_path / "BTC.csv"), "--max-age", "inf", "--json"]
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, *asks],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["release"] == old.number


def test_the_wheel_requires_few_packages_and_is_typed(installed: Path) -> None:
    (metadata,) = installed.glob("*.dist-info/METADATA")
    required = set(re.findall(r"^Requires-Dist: ([a-z-]+)", metadata.read_text(), re.MULTILINE))
    assert required == {
        "cryptography", "filelock", "httpx", "numpy", "onnxruntime", "polars", "securesystemslib",
    }  # fmt: skip
    assert f"Version: {crpbot_runtime.__version__}" in metadata.read_text()
    assert (installed / "crpbot_runtime" / "py.typed").is_file()


def test_the_wheel_installs_one_top_level_package(installed: Path) -> None:
    assert {path.name for path in installed.iterdir() if path.suffix != ".dist-info"} == {"crpbot_runtime"}
    packages = {path.parent.name for path in (installed / "crpbot_runtime" / "mlcore").rglob("__init__.py")}
    assert packages == {"mlcore", "bundle", "data", "features"}
    assert not (installed / "crpbot_runtime" / "mlcore" / "bundle" / "writer.py").exists()  # needs onnx


@pytest.mark.parametrize(
    ("written", "renamed"),
    [
        ("from mlcore import parallel", "from crpbot_runtime.mlcore import parallel"),
        ("from  mlcore.data import (\n    mlcore)", "from  crpbot_runtime.mlcore.data import (\n    mlcore)"),
        ("x = 'ü'; import mlcore.a as b, os", "x = 'ü'; import crpbot_runtime.mlcore.a as b, os"),
        ("def f():\n    from mlcore.x import y", "def f():\n    from crpbot_runtime.mlcore.x import y"),
        ("text = 'from mlcore import x'", "text = 'from mlcore import x'"),
        ("from mlcore_of_others import x", "from mlcore_of_others import x"),
        ("from . import mlcore", "from . import mlcore"),
    ],
)
def test_only_imports_of_mlcore_are_renamed_for_the_wheel(written: str, renamed: str) -> None:
    assert wheel.rename_imports(written) == renamed


def test_an_import_that_cannot_be_renamed_for_the_wheel_is_refused() -> None:
    with pytest.raises(ValueError, match="from mlcore import"):
        wheel.rename_imports("import mlcore.errors")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_module_of_the_wheel_is_valid_in_each_python(installed: Path, version: str) -> None:
    """`make pythons` runs a bot on each."""
    if (python := find_python(version)) is None:
        pytest.skip(f"there is no Python {version} here")
    subprocess.run([python, "-m", "compileall", "-q", "-f", str(installed)], timeout=60, check=True)


def test_every_module_of_the_runtime_imports_from_the_wheel_alone(installed: Path, tmp_path: Path) -> None:
    modules = sorted(
        ".".join(path.relative_to(installed).with_suffix("").parts)
        for path in (installed / "crpbot_runtime").rglob("*.py")
    )
    assert "crpbot_runtime.storage.cache" in modules
    imports = "import importlib\n" + "".join(f"importlib.import_module({name!r})\n" for name in modules)
    program = BLOCKED.format(heavy=HEAVY, installed=str(installed)) + imports
    subprocess.run([sys.executable, "-I", "-c", program], cwd=tmp_path, timeout=120, check=True)
