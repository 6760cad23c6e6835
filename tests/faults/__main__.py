"""Plants every fault and shows who catches it, then judges healthy bundles: `make faults`.

    python -m tests.faults [--page FILE]

Ends with status 1 when a fault gets past the gate it names, when a required gate is nowhere the only one to catch a
fault, or when a healthy bundle is refused. The table goes to FILE too.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.faults import table
from tests.faults.table import REQUIRED, Caught, Healthy
from tests.faults.workshop import Workshop

REPOSITORY = Path(__file__).resolve().parents[2]
WIDTHS = (34, 22)
HEAD = """# Planted faults

Written by `make faults`. Each row is a good bundle or its data, broken for real: in the bytes of its files, in its
training, or in its candles. It is then measured and judged under the full policy as any candidate is. The gate named must
not let it pass; the others that did not either are named beside it.
"""


def main(arguments: list[str] | None = None) -> int:
    """0 when every fault was caught and nothing sound was refused."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.split("\n")[0])
    parser.add_argument("--page", type=Path, default=REPOSITORY / "docs" / "faults.md")
    options = parser.parse_args(arguments)
    caught: list[Caught] = []
    healthy: list[Healthy] = []
    with tempfile.TemporaryDirectory() as folder:
        shop = Workshop(Path(folder))
        _print_row("fault", "must be caught by", "also caught by")
        for found in table.faults(shop):
            caught.append(found)
            _print_row(*found.row)
        for sound in table.healthy(shop):
            healthy.append(sound)
            _print_row(*sound.row)
    said = _summary(caught, healthy)
    print("\n".join(["", *said]))
    options.page.write_text(_page(caught, healthy, said))
    return 1 if _shortfalls(caught, healthy) else 0


def _print_row(*cells: str) -> None:
    padded = [cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=False)]
    print(" ".join([*padded, cells[-1]]).rstrip(), flush=True)


def _shortfalls(caught: list[Caught], healthy: list[Healthy]) -> list[str]:
    """What must not be, a sentence each."""
    missed = [found.fault.name for found in caught if not found.is_caught]
    refused = [f"{sound.coin} with seed {sound.seed}" for sound in healthy if sound.refused_by]
    never_alone = sorted(set(REQUIRED) - table.alone_somewhere(caught))
    said = [f"MISSED: {name}." for name in missed]
    said += [f"A healthy bundle was refused: {name}." for name in refused]
    return said + [
        f"Without {gate}, every fault would still be caught: it does nothing." for gate in never_alone
    ]


def _summary(caught: list[Caught], healthy: list[Healthy]) -> list[str]:
    passed = sum(not sound.refused_by for sound in healthy)
    return [
        f"{sum(found.is_caught for found in caught)} of {len(caught)} faults were caught by the gate they name.",
        f"{passed} of {len(healthy)} healthy bundles passed.",
        f"{len(table.alone_somewhere(caught) & set(REQUIRED))} of {len(REQUIRED)} required gates are the only one to"
        " catch some fault.",
        *_shortfalls(caught, healthy),
    ]


def _page(caught: list[Caught], healthy: list[Healthy], said: list[str]) -> str:
    rows = [
        f"| {found.fault.name} | {found.fault.breaks} | {found.row[1]} | {found.row[2]} |" for found in caught
    ]
    sound = [f"| {one.row[0]} | {one.row[1]} |" for one in healthy]
    return "\n".join(
        [
            HEAD,
            *(f"- {sentence}" for sentence in said),
            "\n| fault | what is broken | must be caught by | also caught by |\n| --- | --- | --- | --- |",
            *rows,
            f"\nHealthy: {table.HEALTHY_BARS:,} simulated bars of drift {table.HEALTHY_DRIFT}, a market a coin and seed.",
            "\n| bundle | verdict |\n| --- | --- |",
            *sound,
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
