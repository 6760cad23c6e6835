"""Plants every fault and shows which gates catch it, then judges healthy bundles: `make faults`.

    python -m tests.faults [--page FILE]

The exit status is 1 if a fault passes the gate it names, if a required gate is never the only one to catch a fault, or if
a healthy bundle is refused. The table is written to FILE too.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.faults import results
from tests.faults.bundle_factory import BundleFactory
from tests.faults.results import REQUIRED, FaultResult, HealthyResult

REPOSITORY = Path(__file__).resolve().parents[2]
WIDTHS = (34, 22)
HEAD = """# Planted faults

Written by `make faults`. Each row is a healthy bundle with a fault in its files, in its training, or in its candles.
It is measured and judged under the full policy like any candidate. The named gate must not let it pass. The last column
lists the other gates that did not pass.
"""


def main(arguments: list[str] | None = None) -> int:
    """0 if every fault was caught and no healthy bundle was refused."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.split("\n")[0])
    parser.add_argument("--page", type=Path, default=REPOSITORY / "docs" / "faults.md")
    options = parser.parse_args(arguments)
    faults: list[FaultResult] = []
    healthy: list[HealthyResult] = []
    with tempfile.TemporaryDirectory() as folder:
        factory = BundleFactory(Path(folder))
        _print_row("fault", "must be caught by", "also caught by")
        for result in results.judge_faults(factory):
            faults.append(result)
            _print_row(*result.row)
        for market in results.judge_healthy(factory):
            healthy.append(market)
            _print_row(*market.row)
    sentences = _summarise(faults, healthy)
    print("\n".join(["", *sentences]))
    options.page.write_text(_render_page(faults, healthy, sentences))
    return 1 if _list_shortfalls(faults, healthy) else 0


def _print_row(*cells: str) -> None:
    padded = [cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=False)]
    print(" ".join([*padded, cells[-1]]).rstrip(), flush=True)


def _list_shortfalls(faults: list[FaultResult], healthy: list[HealthyResult]) -> list[str]:
    """A sentence for each missed fault, refused healthy bundle, and gate without a use."""
    missed = [result.fault.name for result in faults if not result.is_caught]
    refused = [f"{result.coin} with seed {result.seed}" for result in healthy if result.refused_by]
    never_alone = sorted(set(REQUIRED) - results.find_sole_catchers(faults))
    sentences = [f"MISSED: {name}." for name in missed]
    sentences += [f"A healthy bundle was refused: {name}." for name in refused]
    return sentences + [
        f"Without {gate}, every fault would still be caught: it is not needed." for gate in never_alone
    ]


def _summarise(faults: list[FaultResult], healthy: list[HealthyResult]) -> list[str]:
    passed = sum(not result.refused_by for result in healthy)
    return [
        f"{sum(result.is_caught for result in faults)} of {len(faults)} faults were caught by the gate they name.",
        f"{passed} of {len(healthy)} healthy bundles passed.",
        f"{len(results.find_sole_catchers(faults) & set(REQUIRED))} of {len(REQUIRED)} required gates are the only one to"
        " catch some fault.",
        *_list_shortfalls(faults, healthy),
    ]


def _render_page(faults: list[FaultResult], healthy: list[HealthyResult], sentences: list[str]) -> str:
    rows = [
        f"| {result.fault.name} | {result.fault.breaks} | {result.row[1]} | {result.row[2]} |"
        for result in faults
    ]
    healthy_rows = [f"| {result.row[0]} | {result.row[1]} |" for result in healthy]
    return "\n".join(
        [
            HEAD,
            *(f"- {sentence}" for sentence in sentences),
            "\n| fault | what is broken | must be caught by | also caught by |\n| --- | --- | --- | --- |",
            *rows,
            f"\nHealthy: {results.HEALTHY_BARS:,} bars simulated with drift {results.HEALTHY_DRIFT}, one market per bundle.",
            "\n| bundle | verdict |\n| --- | --- |",
            *healthy_rows,
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
