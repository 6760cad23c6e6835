"""`python -m crpbot.demo`, which `make demo` and, with --serve, `make serve` run.

Exit status: 0 for the expected result, 1 for any other, 2 for invalid arguments, 130 when interrupted before the end.
"""

import argparse
import logging
import math
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from common.errors import DomainError
from crpbot.demo import preflight
from crpbot.demo.errors import DemoFailed, Interrupted
from crpbot.demo.processes import Processes, list_programs
from crpbot.demo.terminal import Terminal
from mlcore.data.simulate import DEFAULT_DRIFT, DEMO_BARS

if TYPE_CHECKING:
    from crpbot.demo.scenario import DemoOptions, Outcome

FOLDER = Path(__file__).resolve().parents[2]
OK, FAILED, INTERRUPTED = 0, 1, 130
RULER = "─" * 72


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    arguments = _build_parser().parse_args(argv)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _interrupt)
    try:
        return _run(arguments, Terminal())
    except (DemoFailed, DomainError) as failure:
        sys.stderr.write(f"\nThe demo cannot continue. {failure}\n")
        return FAILED
    except Interrupted:
        return INTERRUPTED


def _run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    state = Path(os.environ.get("CRPBOT_STATE_DIR") or FOLDER / "var" / "state").resolve()
    candles = preflight.find_candle_files(arguments.candles.resolve()) if arguments.candles else None
    preflight.require_free_port(arguments.port)
    preflight.require_disk_space(state)
    # The supervisor of a killed demo may still be stopping its processes. That does no harm: the folder is locked.
    if arguments.serve:
        lock, aside = preflight.open_state(state), None
    else:
        lock, aside = preflight.prepare_state(state, datetime.now().astimezone())
    with lock:
        preflight.isolate_environment(os.environ, state)
        terminal.say("crpbot's model gate: which model may the bot trust right now?")
        terminal.note(f"state: {state}" + (f"\nprevious state moved to {aside}" if aside else ""))
        if arguments.serve:
            return _serve_state(arguments.port, state, terminal)
        return _play(arguments, candles, state, terminal)


def _serve_state(port: int, state: Path, terminal: Terminal) -> int:
    """Run the service on what the state folder holds, until it is interrupted."""
    socket = _prepare(state)
    from accounts.models import User

    if not User.objects.exists():
        manage = _format_manage_command(state)
        terminal.note(
            f"nobody can sign in yet: {manage} people --add NAME --role operator, and --role approver"
        )
    with _start_processes(port, state, socket, terminal) as running:
        _serve(f"http://{preflight.HOST}:{port}", running, terminal)
    return OK


@contextmanager
def _start_processes(port: int, state: Path, socket: Path, terminal: Terminal) -> Iterator[Processes]:
    """All processes of the service, running and healthy; they are stopped at the end."""
    with Processes(
        folder=FOLDER, state=state, socket=socket.with_name("sup.sock"), say=terminal.note
    ) as running:
        terminal.step("Start Redis, the web service, workers and reconcile under supervisor")
        running.start(list_programs(port=port, redis_socket=socket, cores=_count_cores()))
        running.wait_until_running(port)
        terminal.note(f"all processes run; http://{preflight.HOST}:{port} answers")
        yield running
        terminal.say("\nStopping Redis, the web service, workers and reconcile.")


def _play(
    arguments: argparse.Namespace, candles: dict[str, Path] | None, state: Path, terminal: Terminal
) -> int:
    """Everything that needs Django's settings, which read the isolated environment."""
    socket = _prepare(state)
    from crpbot.demo.scenario import DemoOptions, Scenario

    options = DemoOptions(
        url=f"http://{preflight.HOST}:{arguments.port}",
        state=state,
        bars=arguments.bars,
        drift=arguments.drift,
        candles=candles,
        epochs=arguments.epochs,
    )
    with _start_processes(arguments.port, state, socket, terminal) as running:
        outcome = Scenario(options, terminal, running.watch).run()
        terminal.say(_summary(options, outcome, terminal.clock, is_served=not arguments.exit))
        status = FAILED if outcome.problems else OK
        if not arguments.exit:
            _serve(options.url, running, terminal)
    return status


def _prepare(state: Path) -> Path:
    """Set up Django, its tables and triggers; returns the path of the Redis socket."""
    import django
    from django.conf import settings
    from django.core.management import call_command

    django.setup()
    log = logging.FileHandler(state / "demo.log")
    log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.getLogger().handlers[:] = [log]
    call_command("migrate", verbosity=0)
    return Path(settings.REDIS_URL.removeprefix("unix://"))


def _serve(url: str, running: Processes, terminal: Terminal) -> None:
    terminal.say(f"\nServing {url} until Ctrl-C.")
    try:
        while True:
            running.watch()
            signal.sigtimedwait([], 2)
    except Interrupted:
        return


def _summary(options: "DemoOptions", outcome: "Outcome", clock: str, *, is_served: bool) -> str:
    """The result, and what to look at next: less when the service is not left running."""
    from deploy.pointer import pointer

    move = pointer.get_current()
    line = move.release.line if move and move.release else "nothing"
    because = "\n    ".join((move.reason if move else "-").split("; "))
    state = _shorten_path(options.state)
    manage = _format_manage_command(options.state)
    problems = "".join(f"\nUnexpected: {problem}." for problem in outcome.problems)
    result = f"""
{RULER}
The bots are on {line}, revision {move.revision if move else "-"}, after {clock} minutes. Because:
    {because}{problems}
"""
    commands = f"""Commands
    {manage} active
    {manage} bots
    {manage} verify_audit"""
    if not is_served:
        return f"{result}\n{commands}\nLogs\n    {state}/logs/\n{RULER}"
    people = "\n".join(f"    {name:<10} {password}" for name, password in outcome.passwords.items())
    coin, path = next(iter(outcome.history.items()))
    return f"""{result}
Look around at {options.url}
    {options.url}/           the board: what is live, and why
    {options.url}/api/docs/  the API documentation
    {options.url}/admin/     the audit history, for admin
Sign in as
{people}
Predict as a bot does
    export CRPBOT_URL={options.url}
    export CRPBOT_TOKEN={outcome.bot_token}
    export CRPBOT_PUBLIC_KEY={outcome.public_key}
    .venv/bin/python -m crpbot_runtime predict --coin {coin} --candles {_shorten_path(path)} --max-age inf
{commands}
Processes and logs
    .venv/bin/supervisorctl -c {state}/supervisor.conf status
    {state}/logs/
{RULER}"""


def _format_manage_command(state: Path) -> str:
    is_default = state == FOLDER / "var" / "state"
    return f"{'' if is_default else f'CRPBOT_STATE_DIR={_shorten_path(state)} '}.venv/bin/python manage.py"


def _shorten_path(path: Path) -> Path:
    """Relative to the repository where possible."""
    return path.relative_to(FOLDER) if path.is_relative_to(FOLDER) else path


def _interrupt(signum: int, frame: FrameType | None) -> None:
    for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)  # an orderly stop takes a few seconds
    raise Interrupted(signum)


def _count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m crpbot.demo",
        description="Run the whole service on this machine, from candles to predictions.",
    )
    parser.add_argument("--port", type=_parse_port, default=8000, help="on 127.0.0.1 (%(default)s)")
    parser.add_argument(
        "--candles",
        type=Path,
        metavar="DIR",
        help="real candles, a file of any format for each of BTC, ETH and SOL",
    )
    parser.add_argument(
        "--drift",
        type=_parse_drift,
        default=DEFAULT_DRIFT,
        help="drift of the simulated market; 0 leaves nothing to learn (%(default)s)",
    )
    parser.add_argument("--bars", type=int, default=DEMO_BARS, help="bars per simulated coin (%(default)s)")
    parser.add_argument("--epochs", type=int, help="maximum epochs per network (default: the recipe's)")
    parser.add_argument(
        "--serve",
        action="store_true",
        help="no story: run the service on the state folder as it is, such as that of an earlier demo",
    )
    parser.add_argument(
        "--exit",
        action="store_true",
        default=os.environ.get("CRPBOT_DEMO_EXIT") == "1",
        help="stop at the end instead of serving (or CRPBOT_DEMO_EXIT=1)",
    )
    return parser


def _parse_port(text: str) -> int:
    port = int(text)
    if not 1 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is not a port; choose one from 1 to 65535")
    return port


def _parse_drift(text: str) -> float:
    drift = float(text)
    if not (math.isfinite(drift) and drift >= 0):
        raise argparse.ArgumentTypeError(f"{text} is not a drift; choose 0 or more")
    return drift


if __name__ == "__main__":
    sys.exit(main())
