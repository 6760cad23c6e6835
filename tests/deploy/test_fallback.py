"""Whether the fallback would work now: who says so, that all say the same, and that somebody looks again."""

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache
from django.core.files.storage import default_storage
from django.utils import timezone

from audit import services as audit
from audit import triggers
from audit.models import AuditEvent
from common.errors import Conflict
from deploy.alarms import detect
from deploy.alarms.record import record_alarms
from deploy.alarms.stored_files import check_stored_files
from deploy.models import Alarm, Release
from deploy.pointer.fallback import check_fallback
from deploy.pointer.fallback_monitor import watch_fallback
from deploy.reconcile import reconcile_once
from deploy.releases import decide
from deploy.rules import AlarmName, MoveKind, Purpose, Severity
from gates.models import Measurement
from tests import scenarios
from tests.scenarios import APPROVER
from training import artifact_store
from training.models import Coin
from training.rules import JobState

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql, pytest.mark.slow]


def fallback() -> Release:
    return Release.objects.get(line="v5", purpose=Purpose.FALLBACK)


def newest(coin: str) -> Measurement:
    measurement = Measurement.objects.filter(
        bundle__release_coins__release=fallback(), bundle__coin__symbol=coin
    ).first()
    assert measurement is not None
    return measurement


def measure_again(coin: str, figures: dict[str, Any], **columns: Any) -> None:
    """A later measurement of the fallback's bundle of this coin; today's code made it, unless `columns` say otherwise."""
    before = newest(coin)
    later = scenarios.add_measurement(before.bundle, before.dataset, figures)
    Measurement.objects.filter(pk=later.pk).update(**columns)


def broken(coin: str, section: str, **figures: Any) -> dict[str, Any]:
    document = scenarios.inaccurate(coin)
    document[section] = {**document[section], **figures}
    return document


def alarm() -> Alarm | None:
    cache.clear()  # as it is once the files were looked at again
    return next(iter(detect.list_alarms()), None)


def a_pin_goes() -> str:
    return decide.pin(actor=APPROVER, reason="it trades oddly").kind


def lose(coin: str, name: str) -> None:
    artifact = newest(coin).bundle.artifacts.get(name=name)
    Path(default_storage.path(artifact_store.key(artifact.sha256))).unlink()


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """An upgrade after which the code computes other features under the same name."""
    from mlcore.features.indicators import SCHEMAS, Schema

    old = SCHEMAS["relative72"]
    monkeypatch.setitem(SCHEMAS, "relative72", Schema("relative72", old.columns[::-1]))


UNFIT = {
    "a file is damaged": lambda: scenarios.damage(fallback()),
    "a file is missing": lambda: lose("ETH", "scaler.json"),
    "a coin is required since": lambda: scenarios.Coin.objects.create(symbol="DOT"),
    "it no longer loads": lambda: measure_again("BTC", broken("BTC", "bundle", loads=False)),
    "its scaler is gone": lambda: measure_again("BTC", broken("BTC", "scaler", in_graph=False)),
    "a weight is not finite": lambda: measure_again(
        "BTC", broken("BTC", "weights", non_finite=["fc1.weight"])
    ),
    "a single row fails": lambda: measure_again("BTC", broken("BTC", "single_sample", runs=False)),
    "its features stand in another order": lambda: measure_again(
        "SOL", broken("SOL", "schema", columns_out_of_place=["rsi_14"], names_match=False)
    ),
    "today's measurement says nothing of its features": lambda: measure_again(
        "SOL", {k: v for k, v in scenarios.inaccurate("SOL").items() if k != "schema"}
    ),
    "its last measurement failed": lambda: measure_again(
        "ETH", scenarios.inaccurate("ETH"), state=JobState.FAILED, failure="the process ended with 139"
    ),
}


@pytest.mark.parametrize("breaks", UNFIT.values(), ids=UNFIT.keys())
def test_a_fallback_that_is_not_fit_is_an_alarm_and_a_pin_goes_offline(breaks: Any) -> None:
    scenarios.service_in_use()
    assert alarm() is None
    breaks()
    raised = alarm()
    assert raised is not None
    assert (raised.is_critical, "would send every bot offline" in raised.sentence) == (True, True)
    problem = check_fallback().problem
    assert problem is not None
    assert problem in raised.sentence
    move = decide.pin(actor=APPROVER, reason="it trades oddly")
    assert (move.kind, problem in move.reason) == (MoveKind.OFFLINE, True)


def test_a_fallback_whose_features_this_code_no_longer_computes_is_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scenarios.service_in_use()
    forget(monkeypatch)
    raised = alarm()
    assert raised is not None
    assert "BTC: this code computes other relative72 features than it was trained on" in raised.sentence
    assert a_pin_goes() == MoveKind.OFFLINE


def test_a_changed_file_of_the_live_release_is_an_alarm_until_it_is_back() -> None:
    live = scenarios.service_in_use().release
    assert live is not None
    scenarios.damage(live)
    check_stored_files()
    raised = alarm()
    assert raised is not None
    assert (raised.name, raised.is_critical) == (AlarmName.FILES, True)
    assert f"(release {live.pk}), are missing or changed: SOL model.onnx" in raised.sentence
    scenarios.damage(live)  # the same byte once more
    check_stored_files()
    assert alarm() is None


def test_a_removed_database_guard_is_an_alarm() -> None:
    scenarios.service_in_use()
    triggers.drop()
    try:
        raised = alarm()
    finally:
        triggers.install()
    assert raised is not None
    assert (raised.name, raised.is_critical) == (AlarmName.GUARDS, True)
    assert alarm() is None


def test_a_pin_to_the_flat_fallback_is_a_pin_and_not_offline() -> None:
    scenarios.service_in_use()
    flat = scenarios.Build(
        line="flat", purpose=Purpose.FALLBACK, figures=scenarios.for_every_coin(scenarios.inaccurate)
    ).settled()
    decide.register_fallback(flat, actor=APPROVER, reason="rather no trade than one on v5")
    assert check_fallback().is_ready
    move = decide.pin(actor=APPROVER, reason="drill")
    assert (move.kind, move.release) == (MoveKind.PIN, flat)
    document = scenarios.snapshot_document(move)
    assert document["line"] == "flat" and set(document["models"]) == set(scenarios.COINS)


def test_without_any_fallback_there_is_an_alarm_from_the_first_pointer_on() -> None:
    assert alarm() is None
    scenarios.inherited()
    raised = alarm()
    assert raised is not None
    assert "No fallback is registered" in raised.sentence
    assert a_pin_goes() == MoveKind.OFFLINE


UNCONFIRMED = {
    "another code version measured it": {"code_version": "0.0.9"},
    "nobody knows which code measured it": {"code_version": ""},
    "it was not measured for three days": {"finished_at": timezone.now() - timedelta(days=3)},
}


@pytest.mark.parametrize("columns", UNCONFIRMED.values(), ids=UNCONFIRMED.keys())
def test_an_unconfirmed_fallback_is_an_alarm_and_can_still_be_pinned(
    columns: dict[str, Any],
) -> None:
    scenarios.service_in_use()
    Measurement.objects.filter(pk=newest("ETH").pk).update(**columns)
    raised = alarm()
    assert raised is not None
    assert (raised.severity, "ETH" in raised.sentence) == (Severity.WARNING, True)
    move = decide.pin(actor=APPROVER, reason="it trades oddly")
    assert move.kind == MoveKind.PIN
    assert "the fallback is not confirmed: ETH" in move.reason


def test_measurements_without_a_schema_gate_keep_the_fallback_ready() -> None:
    scenarios.service_in_use()
    figures = {name: value for name, value in scenarios.inaccurate("SOL").items() if name != "schema"}
    measure_again("SOL", figures, code_version="0.0.9")
    raised = alarm()
    assert raised is not None
    assert raised.severity == Severity.WARNING
    assert a_pin_goes() == MoveKind.PIN


def test_a_missing_file_store_is_a_warning_whatever_the_last_measurement(
    settings: Any, tmp_path: Path
) -> None:
    scenarios.service_in_use()
    measure_again("ETH", scenarios.inaccurate("ETH"), state=JobState.FAILED, failure="no file could be read")
    (tmp_path / "files").write_text("a file where the store's folder should be")
    away = {
        "BACKEND": "training.atomic_storage.AtomicFileStorage",
        "OPTIONS": {"location": tmp_path / "files"},
    }
    settings.STORAGES = {**settings.STORAGES, "default": away}
    raised = alarm()
    assert raised is not None
    assert (raised.severity, "file store" in raised.sentence) == (Severity.WARNING, True)
    assert a_pin_goes() == MoveKind.PIN


def test_a_release_that_would_not_do_today_is_not_registered() -> None:
    release = scenarios.Build(
        line="v5", purpose=Purpose.FALLBACK, seed=9, figures=scenarios.for_every_coin(scenarios.inaccurate)
    ).settled()
    release_coin = release.coins.get(coin__symbol="BTC")
    assert release_coin.bundle is not None
    scenarios.add_measurement(
        release_coin.bundle, release_coin.dataset, broken("BTC", "single_sample", runs=False)
    )
    with pytest.raises(Conflict, match="would not work as the fallback now: BTC single_sample"):
        decide.register_fallback(release, actor=APPROVER, reason="the last line that behaved")


class TestWatching:
    """What `reconcile` does about it, every few seconds."""

    def test_a_fallback_measured_lately_by_this_code_is_left_alone(self) -> None:
        scenarios.service_in_use()
        assert watch_fallback() == []

    @pytest.mark.parametrize(
        "columns",
        [
            {"finished_at": timezone.now() - timedelta(hours=25)},
            {"code_version": "0.0.9", "created_at": timezone.now() - timedelta(hours=1)},
            {"state": JobState.FAILED, "created_at": timezone.now() - timedelta(hours=1)},
        ],
        ids=["a day old", "of another code version", "failed"],
    )
    def test_one_that_is_due_is_asked_for_once_and_waits_until_it_ended(
        self, columns: dict[str, Any]
    ) -> None:
        scenarios.service_in_use()
        Measurement.objects.filter(pk=newest("ETH").pk).update(**columns)
        (asked,) = watch_fallback()
        assert (asked.bundle.coin.symbol, asked.state) == ("ETH", JobState.QUEUED)
        assert watch_fallback() == []
        Measurement.objects.filter(pk=asked.pk).update(state=JobState.RUNNING)
        assert watch_fallback() == []

    @pytest.mark.parametrize(
        "ended",
        [{"state": JobState.FAILED, "failure": "killed"}, {"code_version": "0.0.9"}],
        ids=["failed", "made by a worker of another version"],
    )
    def test_one_that_just_came_to_nothing_is_not_asked_for_at_once_again(
        self, ended: dict[str, Any]
    ) -> None:
        scenarios.service_in_use()
        measure_again("ETH", scenarios.inaccurate("ETH"), **ended)
        assert watch_fallback() == []

    def test_a_new_measurement_gets_its_diagnosis_and_ends_the_alarm(self) -> None:
        scenarios.service_in_use()
        Measurement.objects.filter(pk=newest("ETH").pk).update(code_version="0.0.9")
        reconcile_once()
        assert Alarm.objects.get().cleared_at is None
        measure_again("ETH", scenarios.inaccurate("ETH"))
        reconcile_once()
        assert newest("ETH").diagnoses.count() == 1
        assert Alarm.objects.get().cleared_at is not None
        kinds = (
            AuditEvent.objects.filter(kind__startswith="alarm.")
            .order_by("seq")
            .values_list("kind", flat=True)
        )
        assert list(kinds) == ["alarm.raised", "alarm.cleared"]
        assert audit.verify() == []

    def test_looking_again_raises_nothing_again(self) -> None:
        scenarios.service_in_use()
        Coin.objects.create(symbol="DOT")
        for _ in range(3):
            reconcile_once()
        assert (
            AuditEvent.objects.filter(kind="alarm.raised").count() == 2
        )  # the fallback lacks it, and so does V6
        assert set(Alarm.objects.values_list("name", flat=True)) == {"fallback", "coins"}

    def test_a_trouble_that_changes_is_cleared_and_raised_in_its_new_words(self) -> None:
        scenarios.service_in_use()
        Measurement.objects.filter(pk=newest("ETH").pk).update(code_version="0.0.9")
        record_alarms()
        scenarios.damage(fallback())
        cache.clear()
        record_alarms()
        assert [(alarm.severity, alarm.cleared_at is None) for alarm in Alarm.objects.all()] == [
            (Severity.CRITICAL, True),
            (Severity.WARNING, False),
        ]


@pytest.mark.usefixtures("committed")
def test_reconcilers_at_once_ask_and_raise_once() -> None:
    from django.db import connection

    scenarios.service_in_use()
    Measurement.objects.filter(pk=newest("ETH").pk).update(finished_at=timezone.now() - timedelta(days=3))
    start = threading.Barrier(4)

    def look() -> None:
        start.wait()
        watch_fallback()
        record_alarms()
        connection.close()

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Measurement.objects.filter(state=JobState.QUEUED).count() == 1
    assert AuditEvent.objects.filter(kind="alarm.raised").count() == 1
    assert audit.verify() == []
