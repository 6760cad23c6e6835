"""What the metrics say of the state: read from the database, with the same few queries however much there is."""

from datetime import timedelta
from decimal import Decimal

import pytest
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from accounts.roles import Actor
from common.metrics import FLIP_SECONDS
from deploy import metrics
from deploy.alarms.reconcile_pass import record_pass
from deploy.alarms.record import record_alarms
from deploy.bots.heartbeats import receive_heartbeat
from deploy.models import Bot, PointerMove
from deploy.pointer import pointer
from deploy.releases import decide
from deploy.rules import AlarmName
from gates.models import Measurement
from mlcore.verdict import Verdict
from tests import factories, scenarios
from tests.scenarios import APPROVER
from training.models import TrainingRun, Worker
from training.rules import JobState

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql, pytest.mark.slow]

TRADER = Actor("trader", is_bot=True)
MOST_QUERIES = 20


class _Read:
    def collect(self) -> list[object]:
        return list(metrics.read_database())


def read() -> dict[str, float]:
    """Every sample, as `name{label="value"}`."""
    registry = CollectorRegistry()
    registry.register(_Read())  # type: ignore[arg-type]
    text = generate_latest(registry).decode()
    return {
        sample.name
        + "{"
        + ",".join(f'{k}="{v}"' for k, v in sorted(sample.labels.items()))
        + "}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def hear(move: PointerMove, instance: str = "desk-1") -> None:
    receive_heartbeat(scenarios.heartbeat(move, instance), actor=TRADER)


def test_an_empty_database_has_every_figure_of_its_states_at_zero() -> None:
    figures = read()
    assert figures["crpbot_pointer_revision{}"] == 0
    assert figures['crpbot_jobs_queued{queue="training"}'] == 0
    assert figures['crpbot_bots{state="silent"}'] == 0
    assert {f'crpbot_alarm_raised{{alarm="{name}",severity="critical"}}' for name in AlarmName} <= set(
        figures
    )


def test_jobs_are_counted_with_their_waiting_and_working_time() -> None:
    dataset = factories.market()
    runs = [factories.run(dataset, seed=seed) for seed in range(3)]
    now = timezone.now()
    for run, seconds in zip(runs, (100, 50, 40), strict=True):
        TrainingRun.objects.filter(pk=run.pk).update(created_at=now - timedelta(seconds=seconds))
    TrainingRun.objects.filter(pk=runs[1].pk).update(
        state=JobState.SUCCEEDED,
        started_at=now - timedelta(seconds=45),
        billed_seconds=30.0,
        spent_usd=Decimal("0.25"),
    )
    TrainingRun.objects.filter(pk=runs[2].pk).update(
        state=JobState.RUNNING,
        started_at=now - timedelta(seconds=30),
        billed_seconds=12.0,
        spent_usd=Decimal("0.1"),
    )
    figures = read()
    assert figures['crpbot_jobs_queued{queue="training"}'] == 1
    assert figures['crpbot_jobs_running{queue="training"}'] == 1
    assert figures['crpbot_jobs_ended_total{queue="training",state="succeeded"}'] == 1
    assert figures['crpbot_jobs_started_total{queue="training"}'] == 2
    assert figures['crpbot_queue_oldest_seconds{queue="training"}'] == pytest.approx(100, abs=5)
    assert figures['crpbot_job_phase_seconds_total{phase="waiting",queue="training"}'] == pytest.approx(15)
    assert figures['crpbot_job_phase_seconds_total{phase="working",queue="training"}'] == 42
    assert figures["crpbot_spend_usd_total{}"] == pytest.approx(0.35)


def test_workers_count_for_each_queue_that_they_serve() -> None:
    now = timezone.now()
    for name, queues, heard_at in (
        ("both", "gates,training", now),
        ("gates", "gates", now),
        ("dead", "training", now - timedelta(minutes=5)),
    ):
        Worker.objects.create(
            name=name, queues=queues, device="CPU", torch_version="2", code_version="1", rate_usd_per_hour=1,
            started_at=now, last_heard_at=heard_at,
        )  # fmt: skip
    figures = read()
    assert figures['crpbot_workers_alive{queue="training"}'] == 1
    assert figures['crpbot_workers_alive{queue="gates"}'] == 2


def test_releases_verdicts_and_the_pointer_are_counted() -> None:
    scenarios.service_in_use()
    scenarios.awaiting_approval()
    measured = Measurement.objects.filter(state=JobState.SUCCEEDED).count()
    figures = read()
    assert figures['crpbot_releases{state="awaiting_approval"}'] == 1
    assert figures["crpbot_pointer_revision{}"] == 1
    assert figures['crpbot_pointer_kind{kind="inherited"}'] == 1
    assert figures['crpbot_jobs_ended_total{queue="gates",state="succeeded"}'] == measured
    verdicts = {verdict: figures[f'crpbot_diagnoses_total{{verdict="{verdict}"}}'] for verdict in Verdict}
    assert (verdicts[Verdict.PASSED], sum(verdicts.values())) == (3, measured), (
        "one candidate of three coins passed"
    )
    assert figures['crpbot_gate_results{gate="bundle",verdict="passed"}'] == measured
    decide.pin(actor=APPROVER, reason="V6 is broken")
    figures = read()
    assert (figures["crpbot_pointer_revision{}"], figures['crpbot_pointer_kind{kind="pin"}']) == (2, 1)
    assert figures['crpbot_pointer_kind{kind="inherited"}'] == 0


def test_bots_their_lag_and_the_flip_are_counted() -> None:
    factories.token(factories.person("trader"), "bot")
    first = scenarios.service_in_use()
    for instance in ("desk-1", "desk-2"):
        hear(first, instance)
    decide.pin(actor=APPROVER, reason="V6 is broken")
    move = pointer.get_current()
    assert move is not None
    Bot.objects.filter(instance="desk-2").update(last_heard_at=timezone.now() - timedelta(seconds=300))
    hear(move, "desk-1")
    hear(move, "new")
    figures = read()
    assert figures['crpbot_bots{state="current"}'] == 2
    assert figures['crpbot_bots{state="silent"}'] == 1
    assert figures["crpbot_bot_heartbeat_lag_seconds{}"] == pytest.approx(300, abs=10)
    assert figures["crpbot_flip_acknowledged_bots{}"] == 2
    assert figures["crpbot_pointer_converged{}"] == 0
    Bot.objects.filter(instance="desk-2").update(is_stopped=True)
    assert read()["crpbot_bot_heartbeat_lag_seconds{}"] < 10, "nobody waits for a bot that stopped on purpose"


@pytest.mark.usefixtures("committed")
def test_a_flip_is_observed_once_for_each_bot_that_was_there_before() -> None:
    def observed() -> float:
        (metric,) = FLIP_SECONDS.collect()
        return next(sample.value for sample in metric.samples if sample.name.endswith("_count"))

    factories.token(factories.person("trader"), "bot")
    first = scenarios.service_in_use()
    before = observed()
    hear(first)
    assert observed() == before, "a bot that was not there before follows no move"
    decide.pin(actor=APPROVER, reason="V6 is broken")
    move = pointer.get_current()
    assert move is not None
    hear(move)
    hear(move)
    assert observed() == before + 1


def test_a_raised_alarm_is_1_and_a_cleared_one_0_again(monkeypatch: pytest.MonkeyPatch) -> None:
    scenarios.service_in_use()
    name = 'crpbot_alarm_raised{alarm="reconcile",severity="critical"}'
    record_pass()
    assert read()[name] == 0
    assert read()["crpbot_reconcile_age_seconds{}"] < 60
    monkeypatch.setattr(settings, "RECONCILE_LATE_SECONDS", -1.0)
    record_alarms()
    assert read()[name] == 1
    monkeypatch.setattr(settings, "RECONCILE_LATE_SECONDS", 600.0)
    record_alarms()
    assert read()[name] == 0


def test_the_number_of_queries_is_small_and_does_not_grow() -> None:
    factories.token(factories.person("trader"), "bot")
    move = scenarios.service_in_use()
    with CaptureQueriesContext(
        connection,
    ) as few:
        metrics.read_database()
    for seed in range(3, 7):
        scenarios.awaiting_approval(seed=seed)
    for number in range(20):
        hear(move, f"desk-{number}")
    with CaptureQueriesContext(connection) as many:
        metrics.read_database()
    assert len(many) == len(few) <= MOST_QUERIES


def test_no_further_query_begins_after_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "SECONDS", -1.0)
    with CaptureQueriesContext(connection) as queries, pytest.raises(TimeoutError):
        metrics.read_database()
    assert [query for query in queries if "SELECT" in query["sql"]] == []
