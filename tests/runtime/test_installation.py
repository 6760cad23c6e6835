"""What a bot has to install: the runtime is light, and it says what types it takes."""

import json
import re
import subprocess
import sys
import zipfile
from importlib import resources
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import crpbot_runtime
from distribution import wheel
from mlcore.bundle.onnx_graph import build_model
from tests.runtime.bots import VERSIONS, find_python
from tests.runtime.stub_service import TOKEN, Release, StubService

pytestmark = pytest.mark.slow

EXTRA = {"onnx", "safetensors", "sklearn", "scipy", "threadpoolctl"}
"""What the extra `train` brings, with the packages that these need."""
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
    "mlflow",
}


def test_importing_the_runtime_loads_nothing_heavy() -> None:
    code = "import crpbot_runtime.__main__, crpbot_runtime.train, sys; print(*{n.partition('.')[0] for n in sys.modules})"
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


PREPARE = """
import polars
from crpbot_runtime.errors import Misconfigured
from crpbot_runtime.mlcore.data.candles import compute_digest
from crpbot_runtime.train import Gate, prepare
gate = Gate("http://localhost", "token")
candles = polars.read_parquet("BTC.parquet")
dataset = {"digest": compute_digest(candles), "coin": "BTC", "is_simulated": True}
rows = prepare(candles, dataset, input="window16")
"""
REFUSED = """
try:
    gate.check(rows, b"", has_scaler=False, policy={"document": {}})
except Misconfigured as error:
    print(rows.fit.features.shape[1:], gate, error)
"""
CHECK = """
from crpbot_runtime.gates.policy import FULL_POLICY
graph = open("graph.onnx", "rb").read()
checked = gate.check(rows, graph, has_scaler=False, policy={"document": FULL_POLICY})
print(checked.verdict, {found.gate: str(found.verdict) for found in checked.outcomes}["skill"])
"""


@pytest.mark.parametrize(
    ("blocked", "asked", "said"),
    [
        (HEAVY | EXTRA, REFUSED, r"\(16, 5\) Gate\('http://localhost'\) .*crpbot-runtime\[train\]"),
        (HEAVY - EXTRA, CHECK, "failed failed"),
    ],
    ids=["as a bot installs it", "with the extra"],
)
def test_the_wheel_prepares_rows_and_runs_the_gates_with_its_extra(
    installed: Path, candles: pl.DataFrame, tmp_path: Path, blocked: set[str], asked: str, said: str
) -> None:
    candles.write_parquet(tmp_path / "BTC.parquet")
    weights = {"coef.weight": np.zeros((3, 80), np.float32), "coef.bias": np.ones(3, np.float32)}
    (tmp_path / "graph.onnx").write_bytes(build_model(weights, None, shape=(16, 5)))
    program = BLOCKED.format(heavy=blocked, installed=str(installed)) + PREPARE + asked
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert re.fullmatch(said + ".*\n", done.stdout), done.stderr + done.stdout


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
    every = re.findall(
        r"^Requires-Dist: ([a-z-]+)(?:.*extra == .([a-z]+).)?", metadata.read_text(), re.MULTILINE
    )
    required = {extra: {name for name, of in every if of == extra} for extra in ("", "train")}
    assert required == {
        "": {"cryptography", "filelock", "httpx", "numpy", "onnxruntime", "polars", "securesystemslib"},
        "train": {"onnx", "safetensors", "scikit-learn", "threadpoolctl"},
    }
    assert f"Version: {crpbot_runtime.__version__}" in metadata.read_text()
    assert (installed / "crpbot_runtime" / "py.typed").is_file()


def test_the_wheel_installs_one_top_level_package(installed: Path) -> None:
    assert {path.name for path in installed.iterdir() if path.suffix != ".dist-info"} == {"crpbot_runtime"}
    packages = {path.parent.name for path in (installed / "crpbot_runtime" / "mlcore").rglob("__init__.py")}
    assert packages == {
        "mlcore",
        "bundle",
        "data",
        "tables",
        "features",
        "evaluation",
        "fitting",
        "importers",
    }
    judging = {path.name for path in (installed / "crpbot_runtime" / "gates").glob("*.py")}
    assert judging == {"__init__.py", "evaluation.py", "policy.py"}  # nothing that needs Django


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
        ("from gates.policy import common", "from crpbot_runtime.gates.policy import common"),
        ("from common import errors", "from crpbot_runtime.common import errors"),
    ],
)
def test_only_imports_of_shared_packages_are_renamed_for_the_wheel(written: str, renamed: str) -> None:
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


NEEDS_TORCH = "crpbot_runtime.mlcore.importers.torch_file"
"""Loaded for a checkpoint, which no notebook gives to the kit."""


def test_every_module_of_the_runtime_imports_from_the_wheel_alone(installed: Path, tmp_path: Path) -> None:
    """Without the extra, those that nothing but its gates loads say which package they lack."""
    modules = sorted(
        ".".join(path.relative_to(installed).with_suffix("").parts)
        for path in (installed / "crpbot_runtime").rglob("*.py")
    )
    assert "crpbot_runtime.storage.cache" in modules
    imports = f"""
import importlib
for name in {modules}:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        print(name)
"""
    programs = (
        BLOCKED.format(heavy=blocked, installed=str(installed)) + imports
        for blocked in (HEAVY - EXTRA, HEAVY | EXTRA)
    )
    lacking, light = (
        subprocess.run(
            [sys.executable, "-I", "-c", program],
            cwd=tmp_path,
            timeout=120,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
        for program in programs
    )
    assert lacking == [NEEDS_TORCH]
    of_the_gates = ("mlcore.bundle", "mlcore.evaluation", "mlcore.fitting", "mlcore.importers", "gates")
    assert {
        name for name in light if not name.startswith(tuple(f"crpbot_runtime.{p}" for p in of_the_gates))
    } == {"crpbot_runtime.train.local_gates", "crpbot_runtime.train.mlflow_runs"}
    assert "crpbot_runtime.mlcore.bundle.predictor" not in light
