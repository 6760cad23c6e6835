"""`python -m crpbot_runtime active | watch | predict`: show what a bot would run, and what it would decide."""

import argparse
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from crpbot_runtime.client import Client
from crpbot_runtime.decision import Active, Decision
from crpbot_runtime.errors import ClientError, Misconfigured
from crpbot_runtime.frames import read_candles
from mlcore.errors import MlcoreError

OK, FAILED, NO_MODEL, INTERRUPTED = 0, 1, 3, 130

EPILOG = """\
environment:
  CRPBOT_TOKEN      the bot's API token (not an option: the process list shows options)
  CRPBOT_URL        the service's address, if --url is not given
  CRPBOT_PUBLIC_KEY the service's public key, if --public-key is not given; two, with a comma, during a key rotation
  CRPBOT_CACHE_DIR  folder of the last good set, if --cache-dir is not given

exit status:
  0  a model answered
  1  refused or failed; for `active` also if the service did not confirm what is in use
  2  wrong usage
  3  the decision is neutral: there is no model, or the candles are not of now
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, also as the installed `crpbot`; returns the exit status."""
    options = _create_parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a console that cannot show a letter stops nobody
    try:
        with _create_client(options) as client:
            status: int = options.command(client, options)
            return status
    except (ClientError, MlcoreError) as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of the output is gone. Without this, Python would fail again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def active(client: Client, options: argparse.Namespace) -> int:
    """Print what is live."""
    current = client.refresh()
    _print(_format_json(current) if options.json else _format_active(current))
    if current.problem:
        return _fail(str(current.problem))
    return OK if current.has_model else NO_MODEL


def watch(client: Client, options: argparse.Namespace) -> int:
    """Print what is live, and every change of it, until interrupted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both signals end it the same way
    format_change: Callable[[Active], str] = _format_json if options.json else _format_change
    with suppress(KeyboardInterrupt):
        client.watch(lambda active: _print(format_change(active)), every_s=options.every)
    return OK


def predict(client: Client, options: argparse.Namespace) -> int:
    """Print one decision."""
    frame = read_candles(options.candles)
    client.refresh()
    decision = client.predict(options.coin, frame)
    _print(_format_json(decision) if options.json else _format_decision(decision))
    if decision.reason:
        sys.stderr.write(f"warning: {decision.reason}\n")
    return OK if decision.line else NO_MODEL


def _create_parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--url", default=os.environ.get("CRPBOT_URL"), help="the service's address")
    shared.add_argument(
        "--public-key",
        default=os.environ.get("CRPBOT_PUBLIC_KEY", ""),
        help="the service's public key: manage.py keys export",
    )
    shared.add_argument(
        "--cache-dir",
        type=Path,
        default=_get_default_cache_dir(),
        help="folder of the last good set (%(default)s)",
    )
    shared.add_argument(
        "--timeout", type=_parse_seconds, default=10.0, help="seconds to wait for the network (10)"
    )
    shared.add_argument("--json", action="store_true", help="print JSON, one object a line")
    parser = argparse.ArgumentParser(
        prog="python -m crpbot_runtime",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="active | watch | predict")

    def command(run: Callable[[Client, argparse.Namespace], int]) -> argparse.ArgumentParser:
        added = commands.add_parser(run.__name__, parents=[shared], help=run.__doc__, description=run.__doc__)
        added.set_defaults(command=run)
        return added

    command(active)
    command(watch).add_argument(
        "--every",
        type=_parse_seconds,
        default=5.0,
        help="polling interval in seconds while it cannot stream (5)",
    )
    decide = command(predict)
    decide.add_argument("--coin", required=True, help="for example BTC")
    decide.add_argument(
        "--candles",
        required=True,
        type=Path,
        help="CSV, JSON, Parquet or another file that the service imports",
    )
    decide.add_argument(
        "--max-age",
        type=float,
        metavar="SECONDS",
        help="how old the last bar may be, from its opening time on (two intervals); inf for candles of the past",
    )
    return parser


def _parse_seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError("must be above zero")
    return seconds


def _get_default_cache_dir() -> Path | None:
    if chosen := os.environ.get("CRPBOT_CACHE_DIR"):
        return Path(chosen)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crpbot"
    except RuntimeError:  # this user has no home
        return None


def _create_client(options: argparse.Namespace) -> Client:
    if not options.url:
        raise Misconfigured(
            "there is no address: give --url or set CRPBOT_URL, for example http://127.0.0.1:8000"
        )
    if options.cache_dir is None:
        raise Misconfigured(
            "there is no home folder for the models: give --cache-dir or set CRPBOT_CACHE_DIR"
        )
    token = os.environ.get("CRPBOT_TOKEN", "")
    return Client(
        options.url,
        token,
        options.public_key,
        options.cache_dir,
        timeout_s=options.timeout,
        max_age_s=getattr(options, "max_age", None),
    )


def _format_active(active: Active) -> str:
    if active.revision is None:
        return "no model"
    pointer = active.line or "offline: bots answer neutral"
    rows = {
        "line": f"{pointer}{'  (trained on a simulated market)' if active.is_simulated else ''}",
        "release": active.release or "-",
        "revision": active.revision,
        "coins": ", ".join(active.coins) or "-",
        "since": _format_time(active.moved_at),
        "because": active.reason,
        "stale since": _format_time(active.stale_since) if active.stale_since else "",
    }
    return _format_table(rows)


def _format_change(active: Active) -> str:
    if active.revision is None:
        return f"{_format_time(datetime.now(UTC))}  no model: {active.problem}"
    release = f"{active.line or 'offline'}  release {active.release or '-'}  {' '.join(active.coins)}"
    reason = active.problem or active.reason
    return f"{_format_time(datetime.now(UTC))}  revision {active.revision}  {release}  {reason}"


def _format_decision(decision: Decision) -> str:
    shares = "  ".join(f"{name} {share:.4f}" for name, share in decision.probabilities.items())
    rows = {
        "coin": decision.coin,
        "direction": decision.direction,
        "probabilities": shares or "-",
        "line": f"{decision.line or '-'}{'  (trained on a simulated market)' if decision.is_simulated else ''}",
        "release": decision.release or "-",
        "revision": decision.revision or "-",
        "last bar": _format_time(decision.at) if decision.at else "-",
        "stale since": _format_time(decision.stale_since) if decision.stale_since else "",
        "reason": decision.reason,
    }
    return _format_table(rows)


def _format_table(rows: dict[str, Any]) -> str:
    return "\n".join(f"{name:<14} {value}" for name, value in rows.items() if value != "")


def _format_json(value: Active | Decision) -> str:
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return json.dumps(fields, default=_convert)


def _convert(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return dict(value) if isinstance(value, Mapping) else str(value)


def _format_time(at: datetime | None) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z" if at else "-"


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _fail(message: str) -> int:
    sys.stderr.write(f"error: {message}\n")
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
