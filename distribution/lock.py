"""`python -m distribution.lock UV [--keep]`: write constraints.txt, the lock, from pyproject.toml, with every file's hash.

pip installs a file only if its hash is there. The sections are torch, service, sbom, development and cuda; the Makefile and
the Dockerfile install those that they need. UV is the path of the uv program, which resolves for every supported platform.
"""

import hashlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
LOCK = REPOSITORY / "constraints.txt"
HEADER = """\
# The lock: every package at one version, with the hash of each file that the package index has. `make lock` writes it.
# torch also has the hash of its CPU build, which other indexes have: one of the two is installed, and the CUDA libraries
# only with the other.
"""
SECTIONS = ("torch", "service", "sbom", "development", "cuda")
CUDA = re.compile(r"(nvidia|cuda|triton)\b")
ENTRY = re.compile(r"^[A-Za-z0-9].*(?:\n    .*)*", re.MULTILINE)
"""A package at one version, with the indented lines below it."""
ENTRY_HEAD = re.compile(r"^[A-Za-z0-9][^\\\n]*[^\\\s]", re.MULTILINE)
"""The name, version and marker of an entry."""
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def write(uv: str, *, keep_versions: bool) -> None:
    """Resolve and write. Versions that are locked already stay if `keep_versions`."""
    locked = LOCK.read_text()
    service, with_sbom, everything = (
        resolve(uv, locked if keep_versions else "", *groups)
        for groups in ((), ("--group", "sbom"), ("--group", "sbom", "--group", "dev"))
    )
    in_service, in_sbom = ({get_name(entry) for entry in entries} for entries in (service, with_sbom))
    sections: dict[str, list[str]] = {section: [] for section in SECTIONS}
    for entry in everything:
        name = get_name(entry)
        if name == "torch":
            sections["torch"].append(
                add_hashes(entry, [*find_known_hashes(entry, locked), *hash_local_build(entry)])
            )
        elif CUDA.match(name):
            sections["cuda"].append(entry)
        else:
            section = "service" if name in in_service else "sbom" if name in in_sbom else "development"
            sections[section].append(entry)
    LOCK.write_text(
        HEADER + "".join(f"# == {name}\n" + "\n".join(sections[name]) + "\n" for name in SECTIONS)
    )


def resolve(uv: str, pins: str, *options: str) -> list[str]:
    """The entries of the lock for these options, with their hashes."""
    with tempfile.TemporaryDirectory() as folder:
        pinned = Path(folder) / "pins.txt"
        pinned.write_text("\n".join(ENTRY_HEAD.findall(pins)))
        command = [uv, "pip", "compile", "pyproject.toml", *options, "--constraints", str(pinned)]
        command += [
            "--universal",
            "--python-version",
            "3.11",
            "--fork-strategy",
            "fewest",
            "--generate-hashes",
        ]
        command += ["--only-binary", ":all:", "--no-annotate", "--no-header", "--quiet"]
        done = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    return [entry for entry in ENTRY.findall(done.stdout) if "sys_platform == 'win32'" not in entry]


def get_name(entry: str) -> str:
    return re.split(r"[=\s;]", entry, maxsplit=1)[0].lower()


def get_version(entry: str) -> str:
    return entry.partition("==")[2].split()[0]


def find_known_hashes(entry: str, locked: str) -> list[str]:
    """The hashes of the same version in the present lock: another machine may have seen another build."""
    same = [old for old in ENTRY.findall(locked) if get_name(old) == get_name(entry)]
    return [hash for old in same if get_version(old) == get_version(entry) for hash in HASH.findall(old)]


def hash_local_build(entry: str) -> list[str]:
    """The hash of the file that pip takes here, which may be another index's build."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = f"{get_name(entry)}=={get_version(entry)}"
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, wanted]
        subprocess.run(pip, check=True)
        return [
            f"--hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
            for file in Path(folder).iterdir()
        ]


def add_hashes(entry: str, hashes: Iterable[str]) -> str:
    head = ENTRY_HEAD.match(entry)
    every = sorted({*HASH.findall(entry), *hashes})
    return " \\\n    ".join([head[0] if head else entry, *every])


if __name__ == "__main__":
    write(sys.argv[1], keep_versions="--keep" in sys.argv)
