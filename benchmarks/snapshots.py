"""What bots ask all day: the snapshot of three coins, from one web process of ours and from MLflow's registry.

    python -m benchmarks.snapshots [--quick]

In turns on the same cores, with the same load generator and as many connections: our signed snapshot in full and as 304, and
MLflow's answer for an alias of three models, one request after the other, as three coins need. Authentication is on for
ours always; for MLflow both ways, since its own checks a password's hash at every request.
"""

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from urllib.request import Request, urlopen

from benchmarks.gate_service import Service, running
from benchmarks.goals import Goal, check_goals
from benchmarks.load import Timing, ask, request
from benchmarks.mlflow_registry import COINS, Registry, registry
from deploy.edge.application import SIGNED_PATH

GOAL = 200.0
CONNECTIONS = 16


def ours(service: Service, *, etag: str | None, seconds: float) -> Timing:
    headers = _headers(service) | ({"If-None-Match": etag} if etag else {})
    asked = [request(SIGNED_PATH, headers)]
    return ask(service.port, asked, status=304 if etag else 200, connections=CONNECTIONS, seconds=seconds)


def theirs(found: Registry, *, seconds: float) -> Timing:
    asked = [request(found.path(coin), found.headers) for coin in COINS]
    return ask(found.port, asked, status=200, connections=CONNECTIONS, seconds=seconds)


def etag_of(service: Service) -> str:
    address = f"http://127.0.0.1:{service.port}{SIGNED_PATH}"
    with urlopen(Request(address, headers=_headers(service))) as answer:
        return str(answer.headers["ETag"])


def _headers(service: Service) -> dict[str, str]:
    return {"Authorization": f"Bearer {service.tokens[0]}"}


def said(name: str, rounds: list[Timing]) -> str:
    rate, middle, late = (
        median(one.rate for one in rounds),
        *(median(one.quantile(share) for one in rounds) * 1e3 for share in (0.5, 0.99)),
    )
    return f"{name}: {rate:,.1f} reads/s, p50 {middle:.2f} ms, p99 {late:.2f} ms"


def main() -> int:
    """Print rates and ratios; 1 when the full snapshot misses the goal against MLflow with authentication."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one short round: does it run, not how fast")
    is_quick = parser.parse_args().quick
    seconds = 1.0 if is_quick else 4.0
    full, unchanged, guarded, unguarded = (list[Timing]() for _ in range(4))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        service = stack.enter_context(running())
        with_word = stack.enter_context(registry(folder / "guarded"))
        without = stack.enter_context(registry(folder / "unguarded", has_authentication=False))
        for _ in range(2 if is_quick else 6):
            full.append(ours(service, etag=None, seconds=seconds))
            unchanged.append(_unchanged(service, seconds))
            guarded.append(theirs(with_word, seconds=2 * seconds))
            unguarded.append(theirs(without, seconds=2 * seconds))
    sides = {
        "ours, full": full[1:],
        "ours, 304": unchanged[1:],
        "MLflow with authentication, three coins": guarded[1:],
        "MLflow without, three coins": unguarded[1:],
    }
    print("\n".join(said(name, rounds) for name, rounds in sides.items()))
    ratio = _ratio(full, guarded)
    print(f"full against MLflow with authentication: {ratio:,.0f} times the reads; goal {GOAL:g}")
    print(f"full against MLflow without, ours still with: {_ratio(full, unguarded):,.0f} times")
    return check_goals(Goal("reads, against MLflow with authentication", ratio, GOAL))


def _unchanged(service: Service, seconds: float) -> Timing:
    """304 for a whole stretch: the snapshot is signed again each minute, and a stretch across that is measured again."""
    while True:
        try:
            return ours(service, etag=etag_of(service), seconds=seconds)
        except RuntimeError as changed:
            if " 200 " not in str(changed)[:40]:
                raise


def _ratio(first: list[Timing], second: list[Timing]) -> float:
    return median(one.rate / other.rate for one, other in zip(first[1:], second[1:], strict=True))


if __name__ == "__main__":
    sys.exit(main())
