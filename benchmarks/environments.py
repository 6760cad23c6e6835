"""Environments of their own for the peers, under build/: what they need does not fit beside what we need."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def python_of(name: str, pins: tuple[str, ...]) -> Path:
    """The interpreter of the environment `name`, made where it is missing or of other versions."""
    environment = REPOSITORY / "build" / name
    python, stamp = environment / "bin" / "python", environment / "pins"
    if not stamp.exists() or stamp.read_text().split() != list(pins):
        print(f"making {environment.relative_to(REPOSITORY)} with {pins[0]}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=True)
        subprocess.run([python, "-m", "pip", "install", "-qq", *pins], check=True, stdout=subprocess.DEVNULL)
        stamp.write_text("\n".join(pins))
    return python
