"""While the audit head is locked, every other decision waits: so nothing then waits for network or disk but the database."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from accounts.roles import Actor
from audit import services as audit
from audit.models import AuditHead
from common import deadlines
from deploy.bots.heartbeats import receive_heartbeat
from deploy.bots.retirement import retire_bot
from deploy.models import Bot, PointerMove, Release
from deploy.pointer import pointer
from deploy.releases import decide
from deploy.releases.withdraw_dataset import withdraw_dataset
from deploy.serving.advance import advance_revision
from tests import factories, scenarios
from tests.scenarios import APPROVER, SECOND_APPROVER

pytestmark = [pytest.mark.usefixtures("committed"), pytest.mark.slow]

WHY = "for a reason"
WATCHED = ("open", "os.", "shutil.", "subprocess.", "socket.", "tempfile.", "glob.")
SENT = ("send", "sendall", "recv", "recv_into", "connect")
CODE = tuple({sys.prefix, sys.base_prefix, str(Path(__file__).resolve().parents[2])})
_recorder: list["Recorder"] = []


class Recorder:
    """What this process asked of disk and network while a transaction of it held the audit head."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.locked = 0
        self._is_held = False

    def lock(self, take: Callable[[], AuditHead]) -> AuditHead:
        head = take()
        self._is_held, self.locked = True, self.locked + 1
        return head

    @property
    def is_held(self) -> bool:
        self._is_held = self._is_held and connection.in_atomic_block
        return self._is_held

    def note(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.is_held or not event.startswith(WATCHED):
            return
        if event == "open" and str(arguments[0]).endswith((".py", ".pyc", ".so")):
            return  # a module that is imported for the first time
        if event in ("os.listdir", "os.scandir") and str(arguments[0]).startswith(CODE):
            return  # by the import system
        self.seen.append(f"{event}{arguments}")


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    for recorder in _recorder:
        recorder.note(event, arguments)


@pytest.fixture(scope="module", autouse=True)
def _audit_hook() -> None:
    sys.addaudithook(_hook)  # stays for the life of the process, and does nothing without a recorder


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    recorder, take = Recorder(), audit.lock_head
    monkeypatch.setattr(audit, "lock_head", lambda: recorder.lock(take))
    for name in SENT:
        monkeypatch.setattr(socket.socket, name, _noting(recorder, name, getattr(socket.socket, name)))
    within = deadlines.run_within

    def run_within(seconds: float, call: Callable[[], Any]) -> Any:
        recorder.note("subprocess.thread", (call,))
        return within(seconds, call)

    monkeypatch.setattr("deploy.pointer.fallback.run_within", run_within)
    _recorder.append(recorder)
    yield recorder
    _recorder.clear()


def _noting(recorder: Recorder, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def noted(self: socket.socket, *arguments: Any) -> Any:
        recorder.note(f"socket.{name}", ())
        return method(self, *arguments)

    return noted


def last() -> PointerMove:
    move = pointer.get_current()
    assert move is not None
    return move


def restore() -> None:
    first = scenarios.awaiting_approval(seed=1)
    decide.approve(first, actor=APPROVER, reason=WHY, revision=last().revision)
    decide.pin(actor=APPROVER, reason=WHY)
    decide.restore(Release.objects.get(pk=first.pk), actor=APPROVER, reason=WHY, revision=last().revision)


def reject() -> None:
    scenarios.Build(figures=scenarios.for_every_coin(scenarios.collapsed)).settled()


def pin_offline() -> None:
    scenarios.damage(Release.objects.get(line="v5"))
    decide.pin(actor=APPROVER, reason=WHY)


def retire_silent_bot() -> None:
    receive_heartbeat(scenarios.heartbeat(last()), actor=Actor("trader", is_bot=True))
    factories.token(factories.person("trader"), "bot")
    Bot.objects.update(last_heard_at=timezone.now() - timedelta(hours=1))
    bot = Bot.objects.get()
    retire_bot(bot.name, bot.instance, actor=APPROVER, reason=WHY)


DECISIONS: dict[str, Callable[[], object]] = {
    "pin": lambda: decide.pin(actor=APPROVER, reason=WHY),
    "pin, offline": pin_offline,
    "approve": lambda: decide.approve(
        scenarios.awaiting_approval(), actor=APPROVER, reason=WHY, revision=last().revision
    ),
    "restore": restore,
    "decline": lambda: decide.decline(scenarios.awaiting_approval(), actor=APPROVER, reason=WHY),
    "reject": reject,
    "register": lambda: decide.register_fallback(
        scenarios.Build(
            line="v5",
            purpose=scenarios.Purpose.FALLBACK,
            seed=6,
            figures=scenarios.for_every_coin(scenarios.inaccurate),
        ).settled(),
        actor=SECOND_APPROVER,
        reason=WHY,
    ),
    "advance": lambda: advance_revision(1, actor=APPROVER, reason=WHY),
    "retire a bot": retire_silent_bot,
    "withdraw a dataset": lambda: withdraw_dataset(
        scenarios.dataset(scenarios.coins()[0], name="other"), actor=APPROVER, reason=WHY
    ),
}


@pytest.mark.parametrize("carry_out", DECISIONS.values(), ids=DECISIONS)
def test_nothing_waits_for_network_or_disk_under_the_lock(
    carry_out: Callable[[], object], recorder: Recorder
) -> None:
    scenarios.service_in_use()
    locked = recorder.locked
    assert locked > 0, "inheriting and registering are decisions too"
    carry_out()
    assert recorder.locked > locked
    assert recorder.seen == []


def test_the_recorder_notices_files_sockets_and_processes(recorder: Recorder, tmp_path: Path) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    with audit.locked():
        (tmp_path / "file").write_text("x")
        socket.create_connection(listening.getsockname()).close()
        subprocess.run(["true"], check=True)
    (tmp_path / "file").unlink()
    os.listdir(tmp_path)  # noqa: PTH208 - the call itself
    listening.close()
    names = [seen.split("(")[0] for seen in recorder.seen]
    assert {"open", "socket.connect", "subprocess.Popen"} <= set(names)
    assert "os.remove" not in names, "the lock was released"
