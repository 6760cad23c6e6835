"""What a bot has to install: the runtime is light, and it says what types it takes."""

import subprocess
import sys
from importlib import resources

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
    code = "import runtime, runtime.__main__, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = set(done.stdout.split())
    assert {"runtime", "mlcore", "polars", "onnxruntime", "httpx"} <= loaded
    assert loaded & HEAVY == set()


def test_the_runtime_ships_its_types() -> None:
    assert resources.files("runtime").joinpath("py.typed").is_file()
