"""Our service for the benchmarks: a database of its own, a real Redis, one web process, and releases of real bundles.

Import this before anything of Django. The process that runs the benchmark moves the pointer with the service's own
functions, as a worker or a command does; what the web process knows of it, it has to hear or to ask.
"""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STATE = Path(tempfile.mkdtemp(prefix="crpbot-bench-"))
atexit.register(shutil.rmtree, STATE, ignore_errors=True)
os.environ |= {
    "CRPBOT_PROFILE": "embedded",
    "CRPBOT_STATE_DIR": str(STATE),
    "CRPBOT_LOG_LEVEL": "ERROR",
    "DJANGO_SETTINGS_MODULE": "crpbot.settings",
    "OMP_NUM_THREADS": "1",
    "POLARS_MAX_THREADS": "1",
}

import django  # noqa: E402

django.setup()

import polars as pl  # noqa: E402
from django.conf import settings  # noqa: E402
from django.core.management import call_command  # noqa: E402

from benchmarks.environments import REPOSITORY  # noqa: E402
from crpbot.demo.processes import REDIS_SERVER, WEB_OPTIONS  # noqa: E402
from deploy.models import Release  # noqa: E402
from deploy.pointer import pointer  # noqa: E402
from deploy.releases import decide  # noqa: E402
from deploy.serving import keys  # noqa: E402
from mlcore.bundle.format import Bundle as Written  # noqa: E402
from mlcore.bundle.writer import write_bundle  # noqa: E402
from mlcore.data.simulate import simulate  # noqa: E402
from mlcore.fitting.fit import fit, prepare  # noqa: E402
from mlcore.fitting.recipes import RECIPES  # noqa: E402
from tests import factories, scenarios  # noqa: E402
from tests.loopback import free_port, wait_until_it_answers  # noqa: E402
from tests.scenarios import APPROVER, SECOND_APPROVER  # noqa: E402
from training import artifact_store  # noqa: E402
from training.models import Artifact, Bundle, Coin, Dataset  # noqa: E402

BARS = 2_400
BUNDLES = STATE / "bundles"


@dataclass(frozen=True)
class Service:
    """A running service. `fallback` and `candidate` are the two releases that its pointer goes between."""

    port: int
    public_key: str
    tokens: list[str]
    fallback: Release
    candidate: Release

    def move(self, number: int) -> int:
        """Pin V5 or bring V7 back, in turns; the new revision."""
        if number % 2:
            return decide.pin(actor=APPROVER, reason="a benchmark").revision
        now = pointer.get_current()
        assert now is not None
        why: dict[str, Any] = {"actor": SECOND_APPROVER, "reason": "a benchmark", "revision": now.revision}
        return decide.restore(Release.objects.get(pk=self.candidate.pk), **why).revision


@contextmanager
def running(*, bots: int = 1) -> Iterator[Service]:
    """The service with so many bots' tokens, V7 in use, V5 registered."""
    with ExitStack() as stack:
        redis = [REDIS_SERVER, "--port", "0", "--unixsocket", settings.REDIS_URL.removeprefix("unix://")]
        stack.enter_context(_process([*redis, "--save", ""]))
        call_command("migrate", verbosity=0)
        fallback, candidate = _releases()
        tokens = [factories.token(factories.person(f"bot{number}"), "bot") for number in range(bots)]
        port = free_port()
        web = [sys.executable, "-m", "uvicorn", "crpbot.asgi:application", "--port", str(port), *WEB_OPTIONS]
        stack.enter_context(_process([*web, "--no-access-log", "--log-level", "warning"]))
        wait_until_it_answers(f"http://127.0.0.1:{port}/healthz")
        yield Service(port, keys.export_public(), tokens, fallback, candidate)


class _Real(scenarios.Build):
    """A release of bundles that were really trained, whose files a bot can load."""

    def bundle(self, coin: Coin, data: Dataset) -> Bundle:
        written = _trained(coin.symbol, self.line, data.digest)
        made = Bundle.objects.create(
            digest=written.digest,
            coin=coin,
            line=self.line,
            dataset=data,
            interval_seconds=data.interval_seconds,
            manifest=(written.folder / "manifest.json").read_text(),
            is_simulated=True,
        )
        for path in sorted(written.folder.iterdir()):
            content = path.read_bytes()
            Artifact.objects.create(
                bundle=made, name=path.name, sha256=artifact_store.store(content), size=len(content)
            )
        return made


def _releases() -> tuple[Release, Release]:
    figures = scenarios.for_every_coin(scenarios.inaccurate)
    made_up: dict[str, Any] = {"is_simulated": True}
    fallback = _Real(line="v5", purpose=scenarios.Purpose.FALLBACK, figures=figures, **made_up).settled()
    decide.register_fallback(fallback, actor=APPROVER, reason="a benchmark")
    scenarios.inherited()
    candidate = _Real(**made_up).settled()
    now = pointer.get_current()
    assert now is not None
    decide.approve(candidate, actor=SECOND_APPROVER, reason="a benchmark", revision=now.revision)
    return fallback, candidate


def _trained(coin: str, line: str, dataset_digest: str) -> Written:
    recipe = RECIPES[line]
    if line != "v5":
        recipe = recipe.with_parameters(epochs=1, batch_size=1024)
    made = fit(prepare(simulate(coin, bars=BARS, drift=1.2, seed=1), recipe), recipe, seed=1, device="cpu")
    described: dict[str, Any] = {
        "coin": coin,
        "dataset_digest": dataset_digest,
        "simulated": False,
        "code_version": "benchmark",
    }
    return write_bundle(BUNDLES / f"{line}-{coin}", made, **described)


def window() -> pl.DataFrame:
    """Candles to decide from."""
    return simulate("BTC", bars=2_048, drift=1.2, seed=2)


@contextmanager
def _process(command: list[str]) -> Iterator[None]:
    found = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        found.terminate()
        found.wait()
