"""Recipes of packages, installed in a folder as pip leaves them there."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.processes import REPOSITORY

EXAMPLES = REPOSITORY / "docs" / "examples" / "recipes"

CONSTANT = '''
INPUTS = ("relative72", "window16")
PARAMETERS = {
    "epochs": {"default": 3},
    "tilt": {"default": 0.5, "least": 0.0, "greatest": 2.0, "meaning": "what is added to one class"},
}


def fit(rows):
    """Logits of fixed size, behind the scaler: quick, and no better than chance."""
    import numpy as np
    from mlcore.bundle.onnx_graph import build_model
    from mlcore.features.scaler import Scaler

    shares = np.bincount(rows.labels, minlength=3) / len(rows.labels)
    bias = np.log(shares) + [0.0, rows.parameters["tilt"], 0.0]
    numbers = int(np.prod(rows.features.shape[1:]))
    weights = {"coef.weight": np.zeros((3, numbers), np.float32), "coef.bias": bias.astype(np.float32)}
    scaler = Scaler(rows.mean.astype(float), rows.scale.astype(float))
    return build_model(weights, scaler, shape=rows.features.shape[1:])
'''
"""A recipe that is fitted at once."""


def install(folder: Path, source: str = CONSTANT, *, name: str = "constant", version: str = "1.2.0") -> str:
    """Write a package with one recipe into the folder; answers what a run asks for."""
    package, module = f"crpbot-recipe-{name}", f"crpbot_recipe_{name}"
    folder.mkdir(exist_ok=True)
    for old in folder.glob(f"{module}-*.dist-info"):
        shutil.rmtree(old)
    facts = folder / f"{module}-{version}.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    (facts / "entry_points.txt").write_text(f"[crpbot.recipes]\n{name} = {module}\n")
    (folder / f"{module}.py").write_text(source)
    return f"{package}=={version}"


def install_example(name: str, folder: Path, work: Path) -> None:
    """Install one of the examples with pip, without the network, from a copy that it may build in."""
    source = shutil.copytree(EXAMPLES / name, work / name)
    options = [
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "--no-compile",
        "--quiet",
        "--target",
        str(folder),
    ]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True)
