"""Schemathesis over the whole schema of a real, running service: `python -m tests.api.conformance [--examples N …]`.

A web process and a Redis with a temporary state folder hold the example data of the page tests. `schemathesis run` asks them
what the OpenAPI document allows and what it does not: every operation, check and phase. It exits as Schemathesis does.
Options that are not ours are Schemathesis' own: `--include-path /api/v1/coins/`, `--seed 7`.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from crpbot.demo.preflight import isolate_environment
from crpbot.demo.processes import WEB_OPTIONS
from tests.loopback import free_port, wait_until_it_answers

REPOSITORY = Path(__file__).resolve().parents[2]
PHASES = "examples,coverage,fuzzing,stateful"
EXAMPLES = 40
REFUSED = " WARNING django.request "
"""Stands in the log's lines about requests that were refused, as thousands are meant to be."""

# Everything else is asked by an approver, who may read all there is.
OPERATED = (
    *("add_coin", "cancel_release", "cancel_run", "import_model", "launch_release", "relaunch_run"),
    *("retire_bot", "upload_dataset", "withdraw_dataset"),
)
SAID_BY_BOTS = ("send_heartbeat", "send_window")
JUDGED = (
    *("import_model", "launch_release", "propose_policy", "release_report", "relaunch_run"),
    *("send_heartbeat", "send_window", "upload_dataset"),
)

CONFIGURATION = """\
# What a path names is mostly there.
[dictionaries]
numbers = {{ values = [1, 2, 3, 4] }}
few = {{ values = [1, 2] }}
symbols = {{ values = ["BTC", "SOL"] }}
files = {{ values = {files} }}

[parameters]
"path.id" = {{ dictionary = "numbers", probability = 0.8 }}
"path.number" = {{ dictionary = "few", probability = 0.8 }}
"path.revision" = {{ dictionary = "few", probability = 0.8 }}
"path.symbol" = {{ dictionary = "symbols", probability = 0.8 }}
"path.sha256" = {{ dictionary = "files", probability = 0.8 }}

[[operations]]
include-operation-id = {operated}
headers = {{ Authorization = "Bearer {operator}" }}

[[operations]]
include-operation-id = {said}
headers = {{ Authorization = "Bearer {bot}" }}

# Sound by the schema, and yet refused (400): no schema says what a file holds, that counts add up, which coins a release
# carries, how the parts of a policy go together, that no release is held against itself, or (in OpenAPI 3.0) what a
# property may be named.
[[operations]]
include-operation-id = {judged}
checks = {{ positive_data_acceptance = {{ expected-statuses = ["2xx", "3xx", 400, 401, 403, 404, 409] }} }}

[[operations]]
include-operation-id = "active_stream"
max-stream-events = 1  # the next one comes with the next minute
"""


def configuration() -> str:
    """Write the example data to the database; the configuration with which Schemathesis asks for it."""
    from deploy.serving import keys
    from tests import factories
    from tests.pages import example_data
    from training.models import Artifact

    people = example_data.create_people()
    example_data.create_examples()
    keys.ensure_first()  # a key that Schemathesis creates first would be the only one, and sign nothing
    return CONFIGURATION.format(
        operator=factories.token(people["olivia"], "operator"),
        bot=factories.token(people["olivia"], "bot"),
        files=json.dumps(list(Artifact.objects.values_list("sha256", flat=True)[:2])),
        operated=json.dumps(OPERATED),
        said=json.dumps(SAID_BY_BOTS),
        judged=json.dumps(JUDGED),
    )


def schemathesis(address: str, token: str, folder: Path, options: Sequence[str]) -> int:
    """Its exit status: 0 where it found nothing, 1 where it did."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{address}/api/schema/", "--no-color"]
    asking = ["--header", f"Authorization: Bearer {token}"]
    return subprocess.run([*command, *asking, *options], cwd=folder, check=False).returncode


@contextmanager
def running(*command: str, log: Path) -> Iterator[None]:
    with log.open("ab") as out:
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def redis(address: str, log: Path) -> Iterator[None]:
    from crpbot.demo.processes import REDIS_SERVER

    path = address.removeprefix("unix://")
    with running(REDIS_SERVER, "--port", "0", "--unixsocket", path, "--save", "", log=log):
        while not Path(path).exists():
            time.sleep(0.02)
        yield


@contextmanager
def served(log: Path) -> Iterator[str]:
    """The web process as the demo starts it, on a free port; its address."""
    port = free_port()
    web = [sys.executable, "-m", "uvicorn", "crpbot.asgi:application", "--port", str(port), *WEB_OPTIONS]
    with running(*web, "--no-access-log", "--log-level", "warning", log=log):
        wait_until_it_answers(f"http://127.0.0.1:{port}/healthz")
        yield f"http://127.0.0.1:{port}"


def _without_rates() -> dict[str, str]:
    """Every rate that the settings read, switched off: thousands of requests a minute are what this is about."""
    read = (REPOSITORY / "crpbot" / "settings.py").read_text()
    return dict.fromkeys(re.findall(r'"(CRPBOT_RATE_\w+)"', read), "")


def _found(folder: Path, log: Path, options: Sequence[str]) -> int:
    """What Schemathesis finds in a service on the state in `folder`."""
    import django
    from django.conf import settings
    from django.core.management import call_command

    django.setup()
    from accounts.models import User
    from tests import factories

    call_command("migrate", verbosity=0)
    with redis(settings.REDIS_URL, folder / "redis.log"):
        (folder / "schemathesis.toml").write_text(configuration())
        token = factories.token(User.objects.get(username="anna"), "approver")
        with served(log) as address:
            return schemathesis(address, token, folder, options)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=EXAMPLES, help="the most for each operation")
    parser.add_argument("--phases", default=PHASES)
    chosen, options = parser.parse_known_args()
    options += ["--max-examples", str(chosen.examples), "--phases", chosen.phases]
    with tempfile.TemporaryDirectory(prefix="crpbot-conformance-") as state:
        isolate_environment(os.environ, Path(state))
        os.environ.update({"CRPBOT_LOG_LEVEL": "ERROR", **_without_rates()})
        log = Path(state) / "service.log"
        status = _found(Path(state), log, options)
        said = [line for line in log.read_text(errors="replace").splitlines() if REFUSED not in line]
        print("\n".join(["", "The service's own log:", *(said[-60:] or ["nothing but refused requests"])]))
    return status


if __name__ == "__main__":
    raise SystemExit(main())
