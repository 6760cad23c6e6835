"""A backup while others write, restored into PostgreSQL and into SQLite: nothing acknowledged is lost, and bots follow."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audit.models import AuditEvent
from crpbot.backup import journal, schedule, store
from crpbot_runtime import Client
from deploy.releases import decide
from deploy.rules import BackupKind
from deploy.serving import keys
from mlcore.bundle import onnx_graph
from tests import factories, postgres, processes, scenarios
from tests.loopback import answers, free_port
from tests.processes import REPOSITORY, environment, wait_until
from tests.scenarios import APPROVER
from training.models import Bundle, Coin, Dataset

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.usefixtures("committed")]

WRITER = """
import django
django.setup()
from accounts import services as accounts
from audit.models import AuditHead
number = 0
while True:
    accounts.create_user(f"person{number}", password=None, roles=[], actor="a writer")
    number += 1
    print(f"person{number - 1} {AuditHead.objects.get(pk=1).seq}", flush=True)
"""
"""Each line was printed after its transaction was committed: it is acknowledged. The writer is the only one who writes."""

RESTORER = """
import json
import django
django.setup()
from django.core.management import call_command
from accounts.models import User
from audit.models import AuditEvent
from crpbot.backup.restore import restore_backup
from django.db import connection
call_command("migrate", verbosity=0)
restored = restore_backup()
by = str(restored.missing_revisions)
call_command("advance_revision", "--by", by, "--reason", "the disk failed", "--as", "anna", "--json")
call_command("verify_audit")
print(json.dumps({
    "vendor": connection.vendor,
    "seq": restored.manifest.head.seq,
    "events": dict(AuditEvent.objects.values_list("seq", "hash")),
    "people": list(User.objects.values_list("username", flat=True)),
    "done": restored.afterwards.done,
}))
"""


class _Loadable(scenarios.Build):
    """A release that a bot loads, on candles whose files are really stored."""

    def dataset(self, coin: Coin) -> Dataset:
        return Dataset.objects.filter(coin=coin).first() or factories.market(coin.symbol)

    def bundle(self, coin: Coin, data: Dataset) -> Bundle:
        weights = {"coef.weight": np.full((3, 72), 0.01), "coef.bias": np.array([0.1, 0.2, 0.3])}
        return scenarios.bundle(
            data.coin, data, self.line, seed=self.seed, graph=onnx_graph.build_model(weights, None)
        )


@pytest.fixture
def service(settings: Any, tmp_path: Path) -> str:
    """A fallback and an inherited release, and the token of a bot."""
    settings.BACKUP_DIR = tmp_path / "backups"
    backups = {**settings.STORAGES["backups"], "OPTIONS": {"location": settings.BACKUP_DIR}}
    settings.STORAGES, settings.BACKUP_HOURS = {**settings.STORAGES, "backups": backups}, 24
    factories.person("anna", "approver")
    figures = scenarios.for_every_coin(scenarios.inaccurate)
    fallback = _Loadable(line="v5", purpose=scenarios.Purpose.FALLBACK, figures=figures).settled()
    decide.register_fallback(fallback, actor=APPROVER, reason="the last line that behaved")
    collapsed = scenarios.for_every_coin(scenarios.collapsed)
    inherited = _Loadable(
        line="v6_enhanced", purpose=scenarios.Purpose.INHERITED, figures=collapsed
    ).settled()
    decide.inherit(inherited, actor=APPROVER, reason="as the bot stands today")
    return factories.token(factories.person("desk"), "bot")


@pytest.mark.long
def test_nothing_acknowledged_is_lost_and_bots_follow_again(
    service: str, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_looked_at", 0)
    port, public = free_port(), keys.export_public()
    bots = {
        name: Client(f"http://127.0.0.1:{port}", service, public, tmp_path / name)
        for name in ("sqlite", "postgresql")
    }
    with web(port, environment(), tmp_path / "web.log"):
        with writer(tmp_path / "written") as acknowledged:
            wait_until(lambda: len(acknowledged()) > 3, what="the writer")
            schedule.run_now(BackupKind.BACKUP, requested_by="the tests")
            head = store.read_manifest().head
            wait_until(lambda: acknowledged()[-1][1] > head.seq, what="more that was written")
            written = acknowledged()
        assert {bot.refresh().revision for bot in bots.values()} == {1}
        pinned = decide.pin(actor=APPROVER, reason="it lost money")
        wait_until(lambda: {bot.refresh().revision for bot in bots.values()} == {2}, what="the pin")
        journal.write()
    events = dict(AuditEvent.objects.filter(seq__lte=head.seq).values_list("seq", "hash"))
    for vendor, bot in bots.items():
        with target(vendor, tmp_path, settings) as elsewhere:
            found = restore_in(elsewhere)
            assert (found["vendor"], found["seq"]) == (vendor, head.seq)
            assert {seq: found["events"][str(seq)] for seq in events} == events
            before = {name for name, seq in written if seq <= head.seq}
            after = {name for name, seq in written if seq > head.seq}
            assert before and after, "the backup was not made while others wrote"
            assert before <= set(found["people"])
            assert any("the pointer leaves it" in sentence for sentence in found["done"])
            with web(port, elsewhere, tmp_path / f"{vendor}.log"):
                active = bot.refresh()
                assert (active.revision, active.release) == (3, pinned.release_id)
                assert active.stale_since is None
        bot.close()


@contextmanager
def writer(log: Path) -> Iterator[Any]:
    """Writes all the while; what it acknowledged so far, as name and number of the last event."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER], cwd=REPOSITORY, env=environment(), stdout=out
        )
        try:
            yield lambda: [
                (line.split()[0], int(line.split()[1])) for line in log.read_text().split("\n")[:-1]
            ]
        finally:
            process.kill()
            process.wait(10)


@contextmanager
def web(port: int, env: dict[str, str], log: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "uvicorn", "crpbot.asgi:application", "--port", str(port)]
    command += ["--loop", "uvloop", "--http", "crpbot.web.connections:BoundedConnection"]
    command += ["--timeout-graceful-shutdown", "1"]
    with log.open("wb") as out:
        popen = subprocess.Popen(command, cwd=REPOSITORY, env=env, stdout=out, stderr=out)
    process = processes.Process(popen, log)
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/healthz"), what=f"the web process: {log}")
        yield
    finally:
        process.stop()


@contextmanager
def target(vendor: str, folder: Path, settings: Any) -> Iterator[dict[str, str]]:
    """The environment of a service elsewhere, with an empty database, no file, and the folder of the keys."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CRPBOT_")}
    clean |= {
        "DJANGO_SETTINGS_MODULE": "crpbot.settings",
        "CRPBOT_STATE_DIR": str(folder / f"state-{vendor}"),
        "CRPBOT_SIGNING_KEYS_DIR": str(folder / f"keys-{vendor}"),
        "CRPBOT_SECRET_KEY": settings.SECRET_KEY,
        "CRPBOT_BACKUP_DIR": str(settings.BACKUP_DIR),
        "OMP_NUM_THREADS": "1",
    }
    subprocess.run(["cp", "-a", settings.SIGNING_KEYS_DIR, folder / f"keys-{vendor}"], check=True)
    if vendor == "sqlite":
        yield clean
        return
    with tempfile.TemporaryDirectory(prefix="crpbot-pg-", ignore_cleanup_errors=True) as data:
        yield clean | {"CRPBOT_DATABASE_URL": postgres.start(data)}


def restore_in(env: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", RESTORER], cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
