"""The commands that README and the page after it show, as a reader would type them while the demo runs."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests import market_candles
from tests.processes import REPOSITORY

BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = ("README.md", "docs/getting-started.md")
"""In the order in which they are read."""


def list_commands() -> list[str]:
    """Every line of the shell blocks of these pages, in order."""
    text = "".join((REPOSITORY / page).read_text() for page in PAGES)
    return [line for block in BLOCK.findall(text) for line in block.splitlines() if line.strip()]


def extract_bot() -> str:
    """The README's own bot."""
    match = PYTHON.search((REPOSITORY / "README.md").read_text())
    assert match is not None
    return match[1]


@dataclass
class Reader:
    """Runs the commands of the README against a demo, with its address, state folder, token and key."""

    url: str
    state: Path
    token: str
    public_key: str
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Candles with the statistics of a market: those of the demo would fail the candle checks."""
        self._candles = self.state / "candles" / "own.csv"
        market_candles.generate(2500).write_csv(self._candles)

    def run_line(self, line: str) -> subprocess.CompletedProcess[str]:
        """Run one line; `export` stays for the lines after it, as in a shell."""
        return self._run(shlex.split(self._localize(line)))

    def run_program(self, program: str) -> subprocess.CompletedProcess[str]:
        """A program from the README, in the environment that its commands left."""
        return self._run([sys.executable, "-c", self._localize(program)])

    def _run(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        if words[0] == "export":
            self.environment |= dict(word.split("=", 1) for word in words[1:])
            return subprocess.CompletedProcess(words, 0, "", "")
        environment = {**os.environ, "CRPBOT_STATE_DIR": str(self.state), **self.environment}
        environment.pop("DJANGO_SETTINGS_MODULE", None)
        return subprocess.run(
            words, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=240
        )

    def _localize(self, line: str) -> str:
        """The line with the address, token, folders and Python of this demo instead of those in the README."""
        for shown, mine in {
            "http://127.0.0.1:8000": self.url,
            "crp_bot_…": self.token,
            "4f2c…": self.public_key,
            "my/BTC.csv.gz": str(self._candles),
            "var/state": str(self.state),
            "var/models": str(self.state / "models"),
            ".venv/bin/python": sys.executable,
        }.items():
            line = line.replace(shown, mine)
        return line
