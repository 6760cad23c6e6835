"""Terminal output: numbered steps, and progress lines that are redrawn on a terminal and printed elsewhere."""

import shutil
import sys
import time
from typing import TextIO

PLAIN_LINES_EVERY_SECONDS = 5.0


class Terminal:
    """Writes to `out`. On a terminal progress lines are redrawn; elsewhere they are printed every few seconds."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._is_terminal = out.isatty()
        self._started_at = time.monotonic()
        self._progress: tuple[str, ...] = ()
        self._plain_at = 0.0
        self._step = 0

    def step(self, title: str) -> None:
        """Start the next numbered step."""
        self._step += 1
        self.say(f"\n[{self.clock}] {self._step}. {title}")

    @property
    def clock(self) -> str:
        """Minutes and seconds since the start."""
        elapsed = int(time.monotonic() - self._started_at)
        return f"{elapsed // 60}:{elapsed % 60:02}"

    def say(self, text: str) -> None:
        """Print lines."""
        self._clear()
        self._out.write(text + "\n")
        self._out.flush()

    @property
    def width(self) -> int:
        """Characters per line of a step."""
        return (shutil.get_terminal_size().columns if self._is_terminal else 100) - 4

    def note(self, text: str) -> None:
        """Print lines indented below the step."""
        self.say("\n".join(f"   {line}".rstrip() for line in text.splitlines()))

    def show_progress(self, *lines: str) -> None:
        """Show progress lines in place of the previous ones."""
        if lines == self._progress:
            return
        width = None
        if self._is_terminal:
            self._clear()
            width = shutil.get_terminal_size().columns - 1
        elif time.monotonic() - self._plain_at < PLAIN_LINES_EVERY_SECONDS:
            return
        self._progress, self._plain_at = lines, time.monotonic()
        self._out.write("".join(f"{f'   {line}'[:width]}\n" for line in lines))
        self._out.flush()

    def _clear(self) -> None:
        if self._is_terminal and self._progress:
            self._out.write(f"\x1b[{len(self._progress)}F\x1b[J")
        self._progress = ()
