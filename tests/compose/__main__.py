"""`make compose-trial`: build the real image, start the real docker-compose.yml, and see the service through its worst day.

It needs root on Debian, and installs docker.io and debootstrap where they are missing. Everything else is in
build/compose-trial, and is deleted at the end. With --keep, the images stay for the next time; with --images-only, it ends
once they are built. With --from recovery or --from kills, it leaves out what is before. Only a whole run that began without
images is written to docs/production-trial.md.
"""

import argparse
import os
import platform
import secrets
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.compose import image, machine, stand_ins
from tests.compose.engine import REPOSITORY, Engine
from tests.compose.errors import TrialFailed
from tests.compose.kills import Kills
from tests.compose.recovery import SCHEDULE, Recovery
from tests.compose.report import Report, keep, write_page
from tests.compose.service import Service, wait_until
from tests.compose.story import Story
from tests.compose.upgrade import Upgrade
from tests.loopback import free_port

FOLDER = REPOSITORY / "build" / "compose-trial"
PAGE = REPOSITORY / "docs" / "production-trial.md"
RUNS = REPOSITORY / "docs" / "production-trial.json"
PARTS = ("upgrade", "recovery", "kills")
VERSION = "0.1.0"
START_SECONDS = 300
INTRODUCTION = """# Production trial

`make compose-trial` wrote this page, and its runs are the figures in `docs/production-trial.json`. Each run began without
any image. It built the image from the Dockerfile, started `docker-compose.yml` with Compose on a private container engine,
and carried out each step. No image can be pulled where it ran: the base images are stand-ins with Debian's own PostgreSQL,
Redis, Caddy and Python, and moto is the S3.
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.compose", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="keep the images for the next time")
    parser.add_argument("--images-only", action="store_true", help="stop once the images are built")
    parser.add_argument(
        "--from", dest="first", choices=PARTS, default=PARTS[0], help="leave out what is before"
    )
    options = parser.parse_args()
    steps, began_at = Report(), f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    try:
        machine.require_root_on_debian()
        engine = _prepare(steps)
        is_bare = not engine.has_image(stand_ins.DEBIAN)
    except TrialFailed as failure:
        sys.stderr.write(f"{failure}\n")
        return 1
    try:
        _build(engine, steps)
        if not options.images_only:
            _run(engine, steps, PARTS[PARTS.index(options.first) :])
            if is_bare and options.first == PARTS[0]:
                runs = keep(steps.build_run(_describe_machine(), began_at), RUNS)
                write_page(PAGE, INTRODUCTION, runs)
    except TrialFailed as failure:
        sys.stderr.write(f"{failure}\n")
        return 1
    finally:
        engine.stop()
        if not options.keep:
            shutil.rmtree(FOLDER)
    return 0


def _prepare(report: Report) -> Engine:
    with report.step("install docker.io and debootstrap, fetch Compose, start a private engine") as note:
        installed = machine.install_packages()
        engine = Engine(FOLDER / "engine", machine.fetch_compose(FOLDER / "compose"))
        engine.start()
        note(f"installed: {', '.join(installed) or 'nothing, both were there'}")
        note(
            f"Docker {engine.docker('version', '--format', '{{.Server.Version}}')}, Compose {engine.compose_version()}"
        )
    return engine


def _build(engine: Engine, report: Report) -> None:
    if not engine.has_image(stand_ins.DEBIAN):
        with report.step("make a small Debian with debootstrap"):
            stand_ins.build_debian(engine, FOLDER)
    with report.step("build the stand-in base images") as note:
        note(", ".join(stand_ins.build_all(engine, FOLDER)))
    with report.step("build the real image from the real Dockerfile"):
        tag = image.build(engine, FOLDER, VERSION)
    with report.step("look into the image") as note:
        note(image.check(engine, tag))


def _run(engine: Engine, report: Report, parts: Sequence[str]) -> None:
    port = free_port()
    engine.environment = _choose_values(port)
    service = Service(engine, FOLDER, port)
    try:
        with report.step("`docker compose up`, until everything is healthy") as note:
            engine.compose("up", "--detach", "--no-build")
            wait_until(service.is_healthy, "every service is healthy", START_SECONDS)
            service.trust_the_proxy()
            wait_until(lambda: service.get_status("/healthz") == 200, "the proxy answers", START_SECONDS)
            note(f"{len(service.list_containers())} containers")
        story = Story(service, FOLDER, report)
        bot = story.tell()
        bots = [bot]
        try:
            with report.step("a pin and a restore, over the API") as note:
                note(story.pin(bot))
            recovery = Recovery(engine, service, story, bots, FOLDER)
            with report.step("a backup and a drill of the schedule, in its volume") as note:
                note(recovery.wait_for_schedule())
            if "upgrade" in parts:
                Upgrade(engine, service, story, bots, report).run(FOLDER)
            if "recovery" in parts:
                recovery.run(report)
            Kills(service, story, bot, report).run()
        finally:
            for each in bots:
                each.stop()
    except TrialFailed:
        (FOLDER.parent / "compose-trial.log").write_text(engine.compose("logs", "--no-color"))
        sys.stderr.write(f"The containers' logs are in {FOLDER.parent / 'compose-trial.log'}.\n")
        raise
    finally:
        with report.step("`docker compose down --volumes`"):
            engine.compose("down", "--volumes", "--timeout", "20")


def _choose_values(port: int) -> dict[str, str]:
    """What a .env file would hold."""
    names = (
        "POSTGRES_PASSWORD",
        "POSTGRES_OWNER_PASSWORD",
        "POSTGRES_APPLICATION_PASSWORD",
        "POSTGRES_WORKER_PASSWORD",
        "REDIS_APPLICATION_PASSWORD",
        "REDIS_WORKER_PASSWORD",
        "S3_ACCESS_KEY",
        "S3_SECRET_KEY",
    )
    return {
        **{f"CRPBOT_{name}": secrets.token_hex(16) for name in names},
        "CRPBOT_SECRET_KEY": secrets.token_urlsafe(48),
        "CRPBOT_ALLOWED_HOSTS": "localhost",
        "CRPBOT_SITE": "localhost",
        "CRPBOT_TRUSTED_ORIGINS": f"https://localhost:{port}",
        "CRPBOT_HTTP_PORT": str(free_port()),
        "CRPBOT_HTTPS_PORT": str(port),
        "CRPBOT_ALLOW_SIMULATED": "1",
        "CRPBOT_REQUIRE_SECOND_FACTOR": "0",  # the trial decides with tokens alone
        "CRPBOT_CODE_VERSION": VERSION,
        **SCHEDULE,
    }


def _describe_machine() -> str:
    debian = Path("/etc/debian_version").read_text().strip()
    return f"{os.cpu_count()} cores, Debian {debian}, kernel {platform.release().partition('-')[0]}"


if __name__ == "__main__":
    sys.exit(main())
