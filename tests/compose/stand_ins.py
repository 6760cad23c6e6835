"""Base images, where none can be pulled: Debian by debootstrap, and each image that the two files name built on it.

The programs are Debian's own PostgreSQL, Redis, Caddy and Python; moto is the S3. Their versions are Debian's.
"""

import re
import shutil
import subprocess
from pathlib import Path

from tests.compose import machine
from tests.compose.engine import REPOSITORY, Engine, run
from tests.compose.errors import TrialFailed

DEBIAN, PYTHON = "crpbot-trial/debian", "crpbot-trial/python"
IMAGES = Path(__file__).parent / "images"
STAND_INS = {
    "postgres": "postgres",
    "redis": "redis",
    "caddy": "caddy",
    "chrislusf/seaweedfs": "storage",
}
"""Which Dockerfile stands in for which repository of docker-compose.yml."""
SUITE, MIRROR = "bookworm", "http://deb.debian.org/debian"
NOT_NEEDED = ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale")


def build_debian(engine: Engine, folder: Path) -> None:
    """A small Debian, imported as an image."""
    root = folder / "debian"
    if root.exists():
        shutil.rmtree(root)
    run(["debootstrap", "--variant=minbase", "--include=ca-certificates", SUITE, str(root), MIRROR])
    for name in NOT_NEEDED:
        for inside in (root / name).iterdir():
            shutil.rmtree(inside) if inside.is_dir() else inside.unlink()
    archive = subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE)
    done = subprocess.run(["docker", "-H", engine.socket, "import", "-", DEBIAN], stdin=archive.stdout)
    if archive.wait() or done.returncode:
        raise TrialFailed("Debian could not be imported as an image.")
    shutil.rmtree(root)


def build_all(engine: Engine, folder: Path) -> list[str]:
    """Every image that docker-compose.yml asks for, tagged as it asks; returns their names."""
    context = folder / "context"
    shutil.copytree(IMAGES, context / "images", dirs_exist_ok=True)
    machine.write_settings(context / "machine")
    machine.write_lock_of("moto", "server", context / "machine" / "moto.txt")
    asked = re.findall(
        r"^ +image: ((?!crpbot-gate)\S+)$", (REPOSITORY / "docker-compose.yml").read_text(), re.M
    )
    built = {PYTHON: "python", **{tag: STAND_INS[re.split("[:@]", tag)[0]] for tag in asked}}
    for tag, name in built.items():
        engine.build(tag, context / "images" / f"{name}.Dockerfile", context)
    return list(built)
