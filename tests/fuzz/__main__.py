"""Fuzzes every reader for a time, and writes the figures: `make fuzz MINUTES=60`.

    python -m tests.fuzz --minutes 60 [--seed WORD] [--page FILE] [--kept FOLDER]

Readers take turns. The exit status is 1 if a reader raised an error that it does not document, took too long, or ended its
process outside the sandbox. Such inputs are written to the folder of `--kept`.
"""

import argparse
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from tests.fuzz.harness import MEMORY_BYTES, REPOSITORY, SECONDS_PER_INPUT, Tally, fuzz
from tests.fuzz.readers import READERS

TURN_SECONDS = 60.0
HEAD = """# Fuzzing of the readers

Written by `make fuzz`. Each reader got inputs made from valid ones by random changes: of bytes, of JSON values, of what is
inside a gzip or an archive, and of signed content below a valid signature. `tests/fuzz/readers.py` lists the readers.

A reader may read an input, or refuse it with the error that it documents. A reader that runs in the
[sandbox](glossary.md#sandbox) may also end its process: the service then refuses the file. Anything else is a violation.
"""


def main(arguments: list[str] | None = None) -> int:
    options = _build_parser().parse_args(arguments)
    tallies = {name: Tally(name) for name in READERS}
    begun, turn, seconds = time.monotonic(), 0, options.minutes * 60
    while (left := seconds - (time.monotonic() - begun)) > 0:
        share = min(TURN_SECONDS, left / len(READERS))
        for name, reader in READERS.items():
            tally = fuzz(
                reader, seed=f"{options.seed} {turn}", count=sys.maxsize, seconds=share, kept=options.kept
            )
            tallies[name].add(tally)
            _print_turn(turn, tally)
        turn += 1
        page = _render_page(list(tallies.values()), (time.monotonic() - begun) / 60, options.seed)
        options.page.write_text(page)
    return 1 if any(tally.violations for tally in tallies.values()) else 0


def _print_turn(turn: int, tally: Tally) -> None:
    line = f"{turn:>3} {tally.reader:<22} {tally.inputs:>8,} inputs {tally.contained:>4} contained"
    print(line, *tally.violations[:3], sep="\n      ", flush=True)


def _render_page(tallies: list[Tally], minutes: float, seed: str) -> str:
    violations = [violation for tally in tallies for violation in tally.violations]
    sentences = [
        f"{minutes:,.0f} minutes with the seed `{seed}`, on {datetime.now(UTC):%Y-%m-%d}:"
        f" {sum(tally.inputs for tally in tallies):,} inputs.",
        f"Limits: {SECONDS_PER_INPUT:g} s of processor time for an input, {MEMORY_BYTES / 2**30:g} GiB of memory for the"
        " process.",
        f"Violations: {len(violations) or 'none'}.",
        *(f"VIOLATION: {violation}." for violation in violations[:20]),
        *_list_ends(tallies),
    ]
    rows = [
        f"| {tally.reader} | {'yes' if READERS[tally.reader].is_sandboxed else 'no'} | {tally.inputs:,} | {tally.read:,} |"
        f" {tally.refused:,} | {tally.contained:,} | {len(tally.violations):,} | {tally.slowest_seconds:.2f} s |"
        f" {tally.peak_mib:,} MiB |"
        for tally in tallies
    ]
    return "\n".join(
        [
            HEAD,
            *(f"- {sentence}" for sentence in sentences),
            "\n| reader | in the sandbox | inputs | read | refused | contained | violations | slowest | peak memory |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


def _list_ends(tallies: list[Tally]) -> list[str]:
    """How the contained inputs ended their process."""
    ends = Counter((tally.reader, end) for tally in tallies for end in tally.ends)
    return [
        f"Contained: the {reader} reader {end}, {count:,} times."
        for (reader, end), count in sorted(ends.items())
    ]


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz every reader.")
    parser.add_argument("--minutes", type=float, default=60.0, help="how long, all readers together")
    parser.add_argument("--seed", default="1", help="names the inputs; the same seed makes the same ones")
    parser.add_argument("--page", type=Path, default=REPOSITORY / "docs" / "fuzzing.md")
    parser.add_argument(
        "--kept", type=Path, default=REPOSITORY / "build" / "fuzz", help="where inputs are kept"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
