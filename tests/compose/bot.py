"""A bot on this machine: docs/example_bot.py with the wheel of `make wheel`, in an environment of its own."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.compose.engine import REPOSITORY, run
from tests.compose.errors import TrialFailed
from tests.compose.machine import PIP
from tests.compose.service import Service, wait_until

LINE = re.compile(r"^(?P<coin>[A-Z]+) (?P<direction>\w+) [\d.]+  release (?P<release>\w+)  ?(?P<reason>.*)$")

CHANGE = re.compile(r"^now: .*revision \d+\s*$")
"""A change without a problem."""
STREAM_ENDED = re.compile(r"^not streaming, polling every \d+ s: \S+ ended$")
"""As its process stopped; the bot asks another one within a second, and streams from it."""


class Decided(NamedTuple):
    """One decision that the bot printed, at a time of this machine."""

    at: float
    release: int | None
    reason: str


class Bot:
    """The running bot, and what it decided so far."""

    def __init__(
        self, python: Path, service: Service, candles: Sequence[Path], folder: Path, **environment: str
    ) -> None:
        self._command = [str(python), str(REPOSITORY / "docs" / "example_bot.py"), *map(str, candles)]
        self._environment = {
            **os.environ,
            "CRPBOT_URL": service.url,
            "CRPBOT_TOKEN": service.tokens["bot"],
            "CRPBOT_PUBLIC_KEY": service.public_key,
            "CRPBOT_CACHE_DIR": str(folder),
            "SSL_CERT_FILE": str(service.certificate),
            "BOT_EVERY_S": "0.5",
            "BOT_MAX_AGE_S": "inf",
            **environment,
        }
        self.first_model_at = 0.0
        """By time.monotonic()."""
        self.decided: list[Decided] = []
        self.other_lines: list[str] = []

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        threading.Thread(target=self._read, daemon=True).start()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)

    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait_for(self, release: int, seconds: float) -> float:
        """How long it takes until the bot decides with this release."""

        def decides() -> bool:
            return bool(self.decided) and self.decided[-1].release == release

        try:
            return wait_until(decides, f"the bot decides with release {release}", seconds)
        except TrialFailed as failure:
            raise TrialFailed(
                f"{failure} It printed {self.decided[-2:]} and {self.other_lines[-5:]}."
            ) from None

    def list_neutral_since(self, start: float) -> list[Decided]:
        """The decisions without a model since then, by time.monotonic()."""
        return [each for each in self.decided if each.at >= start and each.release is None]

    def list_doubtful_since(self, start: float) -> list[Decided]:
        """The decisions since then without a model, or with a reason to doubt it."""
        return [each for each in self.decided if each.at >= start and (each.release is None or each.reason)]

    def list_problems(self, after: int = 0) -> list[str]:
        """What it printed after this many other lines, without what changed and streams that ended."""
        return [
            line for line in self.other_lines[after:] if not (CHANGE.match(line) or STREAM_ENDED.match(line))
        ]

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if found := LINE.match(line):
                release = int(found["release"]) if found["release"].isdecimal() else None
                self.decided.append(Decided(time.monotonic(), release, found["reason"]))
                if release is not None and not self.first_model_at:
                    self.first_model_at = self.decided[-1].at
            else:
                self.other_lines.append(line.rstrip())


def prepare_environment(folder: Path) -> Path:
    """A new environment with the wheel alone, at the locked versions; returns its Python."""
    wheel = build_wheel(REPOSITORY, folder / "dist")
    run([sys.executable, "-m", "venv", "--clear", str(folder / "venv")])
    locked = re.findall(r"^[a-z].*==[^\\\n]*", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
    (folder / "versions.txt").write_text("\n".join(locked) + "\n")
    python = folder / "venv" / "bin" / "python"
    run(
        [str(python), "-m", "pip", "install", "-qq", "--constraint", str(folder / "versions.txt"), str(wheel)]
    )
    return python


def build_wheel(tree: Path, target: Path) -> Path:
    """The wheel of this tree's client."""
    run([sys.executable, "-m", "distribution.wheel", str(target)], folder=tree)
    (wheel,) = target.glob("*.whl")
    return wheel


def unpack_wheel(wheel: Path, target: Path) -> Path:
    """For PYTHONPATH: a client beside the installed one, with the same packages."""
    run([*PIP, "install", "--no-deps", "--target", str(target), str(wheel)])
    return target
