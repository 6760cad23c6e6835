"""`python -m crpbot.demo`, which `make demo` runs. Exit status: 0 the story ended as it should and was served until
Ctrl-C, 1 it did not, 2 unusable arguments, 130 interrupted before its end.
"""

import argparse
import logging
import math
import os
import signal
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from common.errors import DomainError
from crpbot.demo import ground
from crpbot.demo.errors import DemoFailed, Interrupted
from crpbot.demo.processes import Processes, programs
from crpbot.demo.screen import Screen
from mlcore.data.simulate import DEFAULT_DRIFT, DEMO_BARS

if TYPE_CHECKING:
    from crpbot.demo.story import Account, Plan

FOLDER = Path(__file__).resolve().parents[2]
OK, FAILED, INTERRUPTED = 0, 1, 130
RULER = "─" * 72


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    options = _parser().parse_args(argv)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _interrupt)
    try:
        return _run(options, Screen())
    except (DemoFailed, DomainError) as failure:
        sys.stderr.write(f"\nThe demo cannot go on. {failure}\n")
        return FAILED
    except Interrupted:
        return INTERRUPTED


def _run(options: argparse.Namespace, screen: Screen) -> int:
    state = Path(os.environ.get("CRPBOT_STATE_DIR") or FOLDER / "var" / "state").resolve()
    candles = ground.candle_files(options.candles.resolve()) if options.candles else None
    ground.require_free_port(options.port)
    ground.require_room(state)
    # What a supervisor of a demo that was killed may still be ending is not in the way: the lock is on the folder.
    lock, aside = ground.fresh_state(state, datetime.now().astimezone())
    with lock:
        ground.own_environment(os.environ, state)
        screen.say("crpbot's model gate: which model may the bot trust right now?")
        screen.note(f"state: {state}" + (f"\nearlier state moved aside to {aside}" if aside else ""))
        return _live(options, candles, state, screen)


def _live(options: argparse.Namespace, candles: dict[str, Path] | None, state: Path, screen: Screen) -> int:
    """Everything that needs the settings, which exist only once the environment is the demo's own."""
    socket = _prepare(state)
    from crpbot.demo.story import Plan, Story

    plan = Plan(
        url=f"http://{ground.HOST}:{options.port}",
        state=state,
        bars=options.bars,
        drift=options.drift,
        candles=candles,
        epochs=options.epochs,
    )
    with Processes(
        folder=FOLDER, state=state, socket=socket.with_name("sup.sock"), say=screen.note
    ) as running:
        screen.step("Redis, web, workers and reconcile, under supervisor")
        running.start(programs(port=options.port, redis_socket=socket, cores=_cores()))
        running.wait_until_running(options.port)
        screen.note(f"all of them run; {plan.url} answers")
        account = Story(plan, screen, running.watch).tell()
        screen.say(_summary(plan, account, screen.clock, is_served=not options.exit))
        status = FAILED if account.surprises else OK
        if not options.exit:
            _serve(plan.url, running, screen)
        screen.say("\nStopping Redis, web, workers and reconcile.")
        return status


def _prepare(state: Path) -> Path:
    """Django ready, its tables and triggers made; answers the path of the Redis socket."""
    import django
    from django.conf import settings
    from django.core.management import call_command

    django.setup()
    log = logging.FileHandler(state / "demo.log")
    log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.getLogger().handlers[:] = [log]
    call_command("migrate", verbosity=0)
    return Path(settings.REDIS_URL.removeprefix("unix://"))


def _serve(url: str, running: Processes, screen: Screen) -> None:
    screen.say(f"\nServing {url} until Ctrl-C.")
    try:
        while True:
            running.watch()
            signal.sigtimedwait([], 2)
    except Interrupted:
        return


def _summary(plan: "Plan", account: "Account", clock: str, *, is_served: bool) -> str:
    """How the story ended and when, and what can be asked of it from here on: less once nobody serves it."""
    from deploy.pointer import pointer

    move = pointer.get_current()
    line = move.release.line if move and move.release else "nothing"
    because = "\n    ".join((move.reason if move else "-").split("; "))
    state = _shown(plan.state)
    is_usual = plan.state == FOLDER / "var" / "state"
    manage = f"{'' if is_usual else f'CRPBOT_STATE_DIR={state} '}.venv/bin/python manage.py"
    told = "".join(f"\nIt should not have ended so: {surprise}." for surprise in account.surprises)
    ended = f"""
{RULER}
The bots are on {line}, revision {move.revision if move else "-"}, after {clock} minutes. Because:
    {because}{told}
"""
    on_the_terminal = f"""Ask on the terminal
    {manage} active
    {manage} bots
    {manage} verify_audit"""
    if not is_served:
        return f"{ended}\n{on_the_terminal}\nLogs\n    {state}/logs/\n{RULER}"
    people = "\n".join(f"    {name:<10} {password}" for name, password in account.passwords.items())
    coin, path = next(iter(account.history.items()))
    return f"""{ended}
Look around at {plan.url}
    {plan.url}/           what is live now, and why
    {plan.url}/api/docs/  the API, to read and to try
    {plan.url}/admin/     the audit history, as admin
Sign in as
{people}
Ask as the bot does
    export CRPBOT_URL={plan.url}
    export CRPBOT_TOKEN={account.bot_token}
    export CRPBOT_PUBLIC_KEY={account.public_key}
    .venv/bin/python -m runtime predict --coin {coin} --candles {_shown(path)}
{on_the_terminal}
Processes and logs
    .venv/bin/supervisorctl -c {state}/supervisor.conf status
    {state}/logs/
{RULER}"""


def _shown(path: Path) -> Path:
    """As a person in the repository would type it."""
    return path.relative_to(FOLDER) if path.is_relative_to(FOLDER) else path


def _interrupt(signum: int, frame: FrameType | None) -> None:
    for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)  # ending in order takes a few seconds; asked once is enough
    raise Interrupted(signum)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m crpbot.demo", description="The whole story, on this machine."
    )
    parser.add_argument("--port", type=_port, default=8000, help="on 127.0.0.1 (%(default)s)")
    parser.add_argument(
        "--candles", type=Path, metavar="DIR", help="real candles: BTC.csv.gz, ETH.csv.gz, SOL.csv.gz"
    )
    parser.add_argument(
        "--drift",
        type=_drift,
        default=DEFAULT_DRIFT,
        help="how much there is to learn in the simulated market; 0 for nothing (%(default)s)",
    )
    parser.add_argument("--bars", type=int, default=DEMO_BARS, help="of each simulated coin (%(default)s)")
    parser.add_argument("--epochs", type=int, help="of each network, at most (the recipe's own)")
    parser.add_argument(
        "--exit",
        action="store_true",
        default=os.environ.get("CRPBOT_DEMO_EXIT") == "1",
        help="end after the story instead of serving (or CRPBOT_DEMO_EXIT=1)",
    )
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 1 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is no port; choose one from 1 to 65535")
    return port


def _drift(text: str) -> float:
    drift = float(text)
    if not (math.isfinite(drift) and drift >= 0):
        raise argparse.ArgumentTypeError(f"{text} is no drift; choose 0 or more")
    return drift


if __name__ == "__main__":
    sys.exit(main())
