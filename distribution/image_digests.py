"""`python -m distribution.image_digests [--check]`: pin the images of Dockerfile and docker-compose.yml by digest.

A tag can be moved to another image; a digest cannot. Docker resolves each tag (`docker buildx imagetools inspect`), so this
needs a network. With --check it only lists the images without a digest, and exits with 1 if there are any.
"""

import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
FILES = ("Dockerfile", "docker-compose.yml")
IMAGE = re.compile(
    r"(?P<before>ARG PYTHON_IMAGE=|image: )(?P<tag>(?!crpbot-gate)[\w./-]+:[\w.-]+)"
    r"(?P<digest>@sha256:[0-9a-f]{64})?"
)


def pin(folder: Path) -> None:
    """Write the present digest behind each tag. Raises CalledProcessError when one cannot be resolved."""
    for name in FILES:
        text = (folder / name).read_text()
        pinned = IMAGE.sub(lambda found: f"{found['before']}{found['tag']}@{resolve(found['tag'])}", text)
        (folder / name).write_text(pinned)


def resolve(tag: str) -> str:
    """The digest of the image, of all its platforms together."""
    command = ["docker", "buildx", "imagetools", "inspect", tag, "--format", "{{.Manifest.Digest}}"]
    digest = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise ValueError(f"docker named no digest of {tag}, but {digest!r}.")
    return digest


def list_unpinned(folder: Path) -> list[str]:
    return [
        found["tag"]
        for name in FILES
        for found in IMAGE.finditer((folder / name).read_text())
        if not found["digest"]
    ]


if __name__ == "__main__":
    if "--check" not in sys.argv:
        pin(REPOSITORY)
    elif unpinned := list_unpinned(REPOSITORY):
        sys.exit(f"Without a digest: {', '.join(unpinned)}. `make image-digests` pins them.")
