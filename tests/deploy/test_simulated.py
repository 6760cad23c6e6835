"""Where money is at stake, no move of the pointer puts a release of a made-up market in front of a bot."""

from typing import Any

import pytest

from audit.models import AuditEvent
from common.errors import Conflict
from deploy.alarms import detect
from deploy.alarms.record import record_alarms
from deploy.models import PointerMove
from deploy.pointer import pointer
from deploy.pointer.fallback import check_fallback
from deploy.releases import decide, settle
from deploy.releases.board import load_board
from deploy.releases.launch import launch
from deploy.rules import MoveKind, Purpose
from deploy.serving import snapshot
from tests import scenarios
from tests.scenarios import APPROVER, LAUNCHER

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql, pytest.mark.slow]


@pytest.fixture
def production(settings: Any) -> None:
    settings.ALLOW_SIMULATED = False


def revision() -> int:
    now = pointer.get_current()
    assert now is not None
    return now.revision


def test_the_embedded_profile_may_and_says_simulated_in_the_snapshot() -> None:
    scenarios.service_in_use()
    release = scenarios.Build(is_simulated=True).settled()
    decide.approve(release, actor=APPROVER, reason="a rehearsal", revision=revision())
    assert b'"simulated":true' in snapshot.build_current().body


def test_an_approval_is_refused_and_the_pointer_stays(production: None) -> None:
    scenarios.service_in_use()
    release, before = scenarios.Build(is_simulated=True).settled(), pointer.get_current()
    with pytest.raises(Conflict, match=r"simulated candles.*BTC, ETH, SOL.*does not serve such a release"):
        decide.approve(release, actor=APPROVER, reason="it passed", revision=revision())
    assert pointer.get_current() == before
    assert "simulated candles" in AuditEvent.objects.get(kind="release.approve.refused").body


def test_a_release_of_real_candles_is_approved(production: None) -> None:
    scenarios.service_in_use()
    release = scenarios.Build().settled()
    decide.approve(release, actor=APPROVER, reason="it passed", revision=revision())
    now = pointer.get_current()
    assert now is not None
    assert now.release == release


def test_a_live_release_that_is_no_longer_allowed_is_an_alarm_until_a_pin(settings: Any) -> None:
    scenarios.service_in_use()
    rehearsed = scenarios.Build(is_simulated=True).settled()
    decide.approve(rehearsed, actor=APPROVER, reason="a rehearsal", revision=revision())
    assert detect.list_alarms() == []
    settings.ALLOW_SIMULATED = False
    (alarm,) = detect.list_alarms()
    assert (alarm.name, alarm.is_critical) == ("unfit", True)
    assert f"{rehearsed} was trained or judged on simulated candles (BTC, ETH, SOL)" in alarm.sentence
    record_alarms()
    decide.pin(actor=APPROVER, reason="the rehearsal is over")
    assert detect.list_alarms() == []
    record_alarms()
    assert [event.kind for event in AuditEvent.objects.filter(kind__startswith="alarm.").order_by("seq")] == [
        "alarm.raised",
        "alarm.cleared",
    ]


def test_what_was_live_while_it_was_allowed_is_not_restored(settings: Any) -> None:
    scenarios.service_in_use()
    rehearsed = scenarios.Build(is_simulated=True).settled()
    decide.approve(rehearsed, actor=APPROVER, reason="a rehearsal", revision=revision())
    decide.pin(actor=APPROVER, reason="the rehearsal is over")
    settings.ALLOW_SIMULATED = False
    with pytest.raises(Conflict, match="simulated candles"):
        decide.restore(rehearsed, actor=APPROVER, reason="again", revision=revision())


def test_nothing_simulated_is_inherited(production: None) -> None:
    release = scenarios.Build(line="v6_enhanced", purpose=Purpose.INHERITED, is_simulated=True).release()
    settle.advance(release)
    with pytest.raises(Conflict, match="simulated candles"):
        decide.inherit(release, actor=APPROVER, reason="as it stands")
    assert not PointerMove.objects.exists()


def test_nothing_simulated_is_registered_as_the_fallback(production: None) -> None:
    release = scenarios.Build(line="v5", purpose=Purpose.FALLBACK, is_simulated=True).settled()
    with pytest.raises(Conflict, match="simulated candles"):
        decide.register_fallback(release, actor=APPROVER, reason="for trials")
    assert pointer.get_fallback() is None


def test_a_pin_goes_offline_rather_than_to_a_simulated_fallback(settings: Any) -> None:
    scenarios.inherited()
    fallback = scenarios.Build(line="v5", purpose=Purpose.FALLBACK, is_simulated=True).settled()
    decide.register_fallback(fallback, actor=APPROVER, reason="for trials")
    settings.ALLOW_SIMULATED = False
    assert "simulated candles" in str(check_fallback().problem)
    assert load_board().fleet.fallback is None, "what may go to no bot, none is counted for holding"
    moved = decide.pin(actor=APPROVER, reason="stop it")
    assert (moved.kind, moved.release) == (MoveKind.OFFLINE, None)
    assert "simulated candles" in moved.reason


def test_a_launch_on_simulated_candles_stays_possible_for_rehearsals(production: None) -> None:
    for coin in scenarios.coins():
        scenarios.dataset(coin, is_simulated=True)
    assert launch("v7_fixed", actor=LAUNCHER).is_simulated
