"""The service's image, built from the real Dockerfile, and what must be true of it."""

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.compose import machine, stand_ins
from tests.compose.engine import REPOSITORY, Engine
from tests.compose.errors import TrialFailed

MAX_BYTES = 1_200_000_000
INDEX_PORT = 18_334
"""Always the same: the address is part of a build that the engine can use again."""
SBOM = "/opt/venv/sbom.cdx.json"
BUILD_TOOLS = ("pip", "pip3", "gcc", "cc", "g++", "make", "ld", "strip", "git")
PROBE = """
import importlib.util, json, os, shutil, sys, torch
from importlib import metadata
print(json.dumps({
    "uid": os.getuid(), "cuda": torch.version.cuda, "tools": [t for t in sys.argv[1:] if shutil.which(t)],
    "pip": [name for name in ("pip", "setuptools") if importlib.util.find_spec(name)],
    "packages": sorted(f"{d.name}=={d.version}" for d in metadata.distributions()),
}))
"""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """The folder as a package index on this machine."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", INDEX_PORT), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def build(engine: Engine, folder: Path, version: str, tree: Path = REPOSITORY) -> str:
    """Build this version of the code from the files in `tree`; returns the image's tag."""
    machine.fetch_torch(folder / "index")
    tag = f"crpbot-gate:{version}"
    with serve(folder / "index") as index:
        arguments = {
            "PYTHON_IMAGE": stand_ins.PYTHON,
            "TORCH_INDEX_URL": index,
            "CODE_VERSION": version,
        }
        options = [word for pair in arguments.items() for word in ("--build-arg", "=".join(pair))]
        engine.build(tag, tree / "Dockerfile", tree, *options)
    return tag


def check(engine: Engine, tag: str) -> str:
    """Size, user, and what it does not hold. Raises TrialFailed."""
    size = int(engine.docker("image", "inspect", "--format", "{{.Size}}", tag))
    said = engine.docker(
        "run",
        "--rm",
        "--network",
        "none",
        "--read-only",
        "--tmpfs",
        "/tmp",
        "--entrypoint",
        "python",
        tag,
        "-c",
        PROBE,
        *BUILD_TOOLS,
    )
    found = json.loads(said)
    nvidia = [name for name in found["packages"] if name.startswith(("nvidia", "cuda", "triton"))]
    problems = {
        f"it has {size / 1e9:.2f} GB": size > MAX_BYTES,
        f"it runs as user {found['uid']}": found["uid"] == 0,
        f"it has CUDA: {found['cuda']} {nvidia}": bool(found["cuda"] or nvidia),
        f"it has build tools: {found['tools']} {found['pip']}": bool(found["tools"] or found["pip"]),
    }
    if wrong := [text for text, is_wrong in problems.items() if is_wrong]:
        raise TrialFailed(f"The image: {'; '.join(wrong)}.")
    listed = _read_sbom(engine, tag)
    if missing := set(found["packages"]) - listed:
        raise TrialFailed(f"Its list of contents lacks {sorted(missing)}.")
    return f"{size / 1e9:.2f} GB, user {found['uid']}, no CUDA, no build tools; its SBOM lists {len(listed)} packages"


def _read_sbom(engine: Engine, tag: str) -> set[str]:
    text = engine.docker("run", "--rm", "--network", "none", "--entrypoint", "cat", tag, SBOM)
    document = json.loads(text)
    if document["bomFormat"] != "CycloneDX":
        raise TrialFailed(f"{SBOM} is no CycloneDX document.")
    return {f"{each['name']}=={each['version']}" for each in document["components"]}
