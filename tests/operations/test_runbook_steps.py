"""Each alarm is raised once by what it is about, the steps of its runbook are carried out, and it is over.

`docs/operations/runbooks` is what is carried out: every command of the service in it runs, in its order. What no command can
do, such as starting a bot again, is a function of the story.
"""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.conf import settings as active_settings
from django.core.cache import cache
from django.utils import timezone

from accounts import services as accounts
from accounts.models import ApiToken, User
from accounts.roles import Scope
from audit import triggers
from audit.models import AuditEvent
from crpbot.backup import schedule
from deploy.alarms import clock, detect
from deploy.alarms.reconcile_pass import record_pass
from deploy.alarms.record import record_alarms, record_silent_reconcile
from deploy.alarms.stored_files import check_stored_files
from deploy.models import Alarm, BackupTask, Bot, PointerMove, ReconcilePass, SigningKey
from deploy.pointer import pointer
from deploy.releases import decide
from deploy.rules import AlarmName, BackupKind
from deploy.serving import keys
from machines import services as machines
from machines.configuration import require_configuration
from machines.control import lives
from machines.models import Machine
from machines.rules import MachineState, Market
from tests import factories, scenarios
from tests.api.callers import Caller, with_token
from tests.backups import Stored
from tests.long_tests import long_except
from tests.operations.shell import COMMAND, Shell
from tests.processes import REPOSITORY
from tests.scenarios import APPROVER
from training.models import Coin, TrainingRun

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("committed", "folders")]
RUNBOOKS = REPOSITORY / "docs" / "operations" / "runbooks"


class World:
    """A service in use, and what happens to it. A story begins in a method of its alarm's name, and may end in end_NAME."""

    def __init__(self, settings: Any, shell: Shell, folder: Path) -> None:
        self.settings, self.shell, self.folder = settings, shell, folder
        self._patches: list[Any] = []

    @property
    def move(self) -> PointerMove:
        now = pointer.get_current()
        assert now is not None
        return now

    def patch(self, *arguments: Any, **named: Any) -> None:
        self._patches.append(mock.patch(*arguments, **named))
        self._patches[-1].start()

    def undo(self) -> None:
        while self._patches:
            self._patches.pop().stop()

    @property
    def bot(self) -> Caller:
        owner = User.objects.filter(username="trader").first() or factories.person("trader")
        return with_token(owner, "bot")

    def report(self, move: PointerMove | None = None, **changes: Any) -> None:
        said = self.bot.post("bots/heartbeat/", scenarios.heartbeat_fields(move or self.move, **changes))
        assert said.status_code == 200, said.content

    def fallback(self) -> None:
        registered = pointer.get_fallback()
        assert registered is not None
        scenarios.damage(registered)
        cache.clear()
        figures = scenarios.for_every_coin(scenarios.inaccurate)
        again = Stored(line="v5", purpose=scenarios.Purpose.FALLBACK, seed=8, figures=figures).settled()
        self.shell.known["7"] = str(again.pk)

    def coins(self) -> None:
        Coin.objects.create(symbol="DOT", is_required=True)
        self.shell.known["SOL"] = "DOT"

    def unfit(self) -> None:
        self.settings.ALLOW_SIMULATED = False

    def files(self) -> None:
        assert self.move.release is not None
        scenarios.damage(self.move.release)
        check_stored_files()

    def revision_log(self) -> None:
        keys.ensure_first()
        self.patch("os.fsync", side_effect=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    def end_revision_log(self) -> None:
        self.undo()

    def clock(self) -> None:
        self.patch("deploy.alarms.clock._jumps", clock.JumpDetector())
        assert clock.find_problem() is None
        later = timezone.now
        self.patch("django.utils.timezone.now", lambda: later() + timedelta(hours=1))
        clock.find_problem()

    def end_clock(self) -> None:
        self.undo()

    def reconcile(self) -> None:
        self.settings.RECONCILE_LATE_SECONDS = 60
        record_pass()
        ReconcilePass.objects.update(completed_at=timezone.now() - timedelta(minutes=5))

    def guards(self) -> None:
        triggers.drop()

    def audit(self) -> None:
        self.report()
        Bot.objects.update(audit_seq=10_000, audit_hash="0" * 64)

    def end_audit(self) -> None:
        """The bot follows the advanced revision, and sees the end of this chain signed."""
        event = AuditEvent.objects.latest("seq")
        Bot.objects.update(audit_seq=event.seq, audit_hash=event.hash)

    def signing(self) -> None:
        keys.ensure_first()
        self._private = Path(active_settings.SIGNING_KEYS_DIR) / f"{SigningKey.objects.get().key_id}.pem"
        shutil.move(self._private, self.folder / "copy.pem")

    def end_signing(self) -> None:
        """The private half comes back from its copy."""
        shutil.move(self.folder / "copy.pem", self._private)

    def mixture(self) -> None:
        bundles = scenarios.heartbeat_fields(self.move)["bundles"]
        self.report(bundles={**bundles, "BTC": "sha256:" + "0" * 64})

    def end_mixture(self) -> None:
        self.report()

    def behind(self) -> None:
        before = self.move
        decide.pin(actor=APPROVER, reason="to be sure")
        self.report(before)
        self.settings.BOT_LATE_SECONDS = 0

    def end_behind(self) -> None:
        self.report()

    def silent(self) -> None:
        self.report()
        Bot.objects.update(last_heard_at=timezone.now() - timedelta(minutes=5))

    def end_silent(self) -> None:
        self.report()

    def tokens(self) -> None:
        owner = factories.person("bot")
        accounts.issue_token(
            owner, Scope.BOT, name="of the desk", actor="the tests", lifetime=timedelta(days=5)
        )
        self.shell.known["12"] = str(ApiToken.objects.get(user=owner).pk)

    def live(self) -> None:
        """The fallback answers nothing finite."""
        decide.pin(actor=APPROVER, reason="to be sure")
        self.report()
        nothing: dict[str, Any] = {
            "non_finite": 100,
            "class_counts": {"down": 0, "neutral": 0, "up": 0},
            "logits": {"min": None, "max": None},
            "out_of_range": 0,
        }
        window = scenarios.live_window(self.move, **nothing)
        window["confidence"]["counts"] = [0] * len(window["confidence"]["counts"])
        said = self.bot.post("bots/windows/", window)
        assert said.status_code == 201, said.content

    def end_live(self) -> None:
        """The bots are stopped, and forgotten."""
        Bot.objects.all().delete()

    def drift(self) -> None:
        """Predictions that all point one way, of a release that was judged on others."""
        candidate = Stored(line="v7_fixed", seed=4).settled()
        decide.approve(candidate, actor=APPROVER, reason="it passed", revision=self.move.revision)
        self.report()
        window = scenarios.live_window(
            self.move, predictions=3000, class_counts={"down": 0, "neutral": 0, "up": 3000}, out_of_range=0
        )
        counts = window["confidence"]["counts"]
        window["confidence"]["counts"] = [30 * count for count in counts]
        said = self.bot.post("bots/windows/", window)
        assert said.status_code == 201, said.content

    def end_drift(self) -> None:
        """Another release is approved; here the fallback takes its place."""
        decide.pin(actor=APPROVER, reason="it is trained again")

    def backup(self) -> None:
        self.settings.BACKUP_LATE_SECONDS = 2 * 86_400
        long_ago = timezone.now() - timedelta(days=3)
        BackupTask.objects.create(
            kind="backup",
            state="done",
            slot=None,
            started_at=long_ago,
            ended_at=long_ago,
            requested_by="the gate",
        )

    def drill(self) -> None:
        schedule.run_now(BackupKind.BACKUP, requested_by="the tests")
        BackupTask.objects.create(
            kind="drill",
            state="failed",
            slot=None,
            ended_at=timezone.now(),
            requested_by="the gate",
            reason="a part is lost",
        )

    def _configure_machines(self) -> None:
        """A cloud that refuses every call at once."""
        self.settings.MACHINE_REGION, self.settings.MACHINE_TEMPLATE = "us-east-1", "crpbot-worker"
        self.settings.MACHINE_ENDPOINT = "http://127.0.0.1:9"
        for market in Market:
            machines.set_price(
                instance_type="g5.xlarge",
                region="us-east-1",
                market=market,
                usd_per_hour=Decimal("1.006"),
                actor=APPROVER,
                reason="the price list",
            )

    def machine(self) -> None:
        self._configure_machines()
        now = timezone.now()
        asked = lives.request(
            require_configuration(),
            market=Market.SPOT,
            usd_per_hour=Decimal("1.006"),
            allowed_seconds=600,
            actor="the gate",
            reason="runs wait",
            at=now - timedelta(hours=1),
        )
        Machine.objects.filter(pk=asked.pk).update(
            state=MachineState.RUNNING, started_at=now - timedelta(hours=1), seen_at=now
        )
        self.shell.known["7"] = str(asked.pk)

    def end_machine(self) -> None:
        """The cloud answers again, and the controller sees that it has stopped."""
        Machine.objects.update(state=MachineState.STOPPED, slot=None, ended_at=timezone.now())

    def machine_limit(self) -> None:
        self._configure_machines()
        machines.set_monthly_limit(Decimal("0.01"), actor=APPROVER, reason="a small month")
        run = factories.run(factories.market(seed=9), is_sent=False)
        TrainingRun.objects.filter(pk=run.pk).update(created_at=timezone.now() - timedelta(minutes=5))

    def end_machine_limit(self) -> None:
        self.settings.MACHINE_REGION = ""


@pytest.fixture
def world(service: PointerMove, settings: Any, tmp_path: Path) -> Iterator[World]:
    for name, roles in {"olga": ["operator"], "arthur": ["approver"]}.items():
        factories.person(name, *roles)
    found = World(settings, Shell(tmp_path, actor="arthur"), tmp_path)
    yield found
    found.undo()


def list_open() -> set[str]:
    return set(Alarm.objects.filter(cleared_at=None).values_list("name", flat=True))


def look() -> None:
    """What reconcile and the web processes record."""
    cache.clear()
    record_alarms()
    record_silent_reconcile(detect.list_alarms())


@pytest.mark.parametrize(
    "name", long_except(AlarmName, lambda name: name not in (AlarmName.BACKUP, AlarmName.DRILL))
)
def test_an_alarm_is_raised_and_its_runbook_ends_it(name: AlarmName, world: World) -> None:
    look()
    assert name not in list_open()
    getattr(world, name)()
    look()
    assert name in list_open(), [alarm.sentence for alarm in detect.list_alarms()]
    first, _, verify = (RUNBOOKS / f"{name}.md").read_text().partition("\n## Verify")
    carried_out = [run(world, command) for command in COMMAND.findall(first)]
    getattr(world, f"end_{name}", lambda: None)()
    for command in COMMAND.findall(verify):
        carried_out.append(run(world, command))
    look()
    assert name not in list_open(), [alarm.sentence for alarm in detect.list_alarms()]
    raised = AuditEvent.objects.filter(kind="alarm.raised", body__contains=f'"name":"{name}"')
    assert raised.count() == 1, "the same condition is one alarm"
    assert any(carried_out) or name in (AlarmName.REVISION_LOG, AlarmName.CLOCK)


def run(world: World, command: str) -> bool:
    """Whether it was carried out, and not left to people or containers."""
    words = command.split()
    if words[0] == "manage.py" and words[1] in ("release", "cancel"):
        return False  # a launch needs workers; a cancelled release is the other way to end machine_limit
    actor = world.shell.actor
    if command.startswith("manage.py machines stop"):
        world.shell.actor = "olga"
    status, said = world.shell.run(command)
    world.shell.actor = actor
    assert "Traceback" not in said
    allowed = (
        (0, 1) if words[1] in ("active", "bots", "verify_audit", "keys", "advance_revision", "pin") else (0,)
    )
    assert status in allowed, f"{command}: {said}"
    return status == 0 and words[0] == "manage.py"


def test_every_alarm_has_its_story() -> None:
    stories = {name for name in vars(World) if not name.startswith(("_", "end_"))}
    assert {str(name) for name in AlarmName} <= stories
    assert all(
        re.search(r"^## Verify", (RUNBOOKS / f"{name}.md").read_text(), re.MULTILINE) for name in AlarmName
    )
