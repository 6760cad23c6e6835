"""Environments of their own for the peers, under build/: what they need does not fit beside what we need."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def find_python(name: str, pins: tuple[str, ...]) -> Path | None:
    """The interpreter of the environment `name`; None where it is missing or of other versions."""
    stamp = _get_stamp(name)
    is_made = stamp.exists() and stamp.read_text().split() == list(pins)
    return stamp.parent / "bin" / "python" if is_made else None


def python_of(name: str, pins: tuple[str, ...]) -> Path:
    """The interpreter of the environment `name`, made where it is missing or of other versions."""
    stamp = _get_stamp(name)
    environment, python = stamp.parent, stamp.parent / "bin" / "python"
    if find_python(name, pins) is None:
        print(f"making {environment.relative_to(REPOSITORY)} with {pins[0]}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=True)
        subprocess.run([python, "-m", "pip", "install", "-qq", *pins], check=True, stdout=subprocess.DEVNULL)
        stamp.write_text("\n".join(pins))
    return python


def _get_stamp(name: str) -> Path:
    """The file that says which versions the environment was made with."""
    return REPOSITORY / "build" / name / "pins"
