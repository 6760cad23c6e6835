"""What people may do about machines, by service, API, command and page alike; and what calls for them."""

import json
import re
import shlex
from datetime import timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command, get_commands, load_command_class
from django.test import Client
from django.utils import timezone

from accounts.roles import Actor
from audit import services as audit
from audit.database_roles import DatabaseRole, list_grants
from audit.models import AuditEvent
from common.errors import Conflict, DomainError, InvalidInput, NotAllowed
from common.formatting import format_usd
from deploy import metrics
from deploy.alarms import detect
from deploy.alarms.record import record_alarms
from deploy.models import Alarm
from deploy.reconcile import STEPS
from machines import services
from machines.control import costs
from machines.control.look import control_machines
from machines.models import ControllerTurn, Machine, MachinePrice, MonthlyLimit
from machines.rules import MachineState
from tests import factories
from tests.api.callers import Caller
from tests.machines.world import APPROVER, OPERATOR, World, configure, set_prices, the_machine
from tests.processes import REPOSITORY

pytestmark = pytest.mark.django_db
VIEWER = factories.VIEWER
PRICE: dict[str, Any] = {
    "instance_type": "g5.xlarge",
    "region": "us-east-1",
    "market": "spot",
    "usd_per_hour": Decimal("0.5"),
    "reason": "the price list",
}


@pytest.fixture
def configured(settings: Any) -> None:
    configure(settings)
    set_prices()


def command(*words: str) -> str:
    out = StringIO()
    call_command("machines", *words, stdout=out)
    return out.getvalue()


def kinds() -> list[str]:
    rows = AuditEvent.objects.filter(kind__regex="^(machine|monthly)").order_by("seq")
    return list(rows.values_list("kind", flat=True))


@pytest.mark.usefixtures("configured")
class TestStart:
    def test_it_asks_for_a_machine_and_says_so(self) -> None:
        machine = services.start_machine(actor=OPERATOR, reason="a rehearsal")
        assert (machine.state, machine.requested_by, machine.reason) == ("requested", "olivia", "a rehearsal")
        assert kinds()[-1] == "machine.requested"

    @pytest.mark.parametrize("actor", [VIEWER, APPROVER], ids=["a viewer", "an approver"])
    def test_it_takes_an_operator(self, actor: Actor) -> None:
        with pytest.raises(NotAllowed):
            services.start_machine(actor=actor, reason="x")
        assert (Machine.objects.count(), kinds()[-1]) == (0, "machine.start.refused")

    def test_it_takes_a_reason(self) -> None:
        with pytest.raises(InvalidInput):
            services.start_machine(actor=OPERATOR, reason=" ")

    def test_there_is_one_at_a_time(self) -> None:
        services.start_machine(actor=OPERATOR, reason="x")
        with pytest.raises(Conflict, match="one at a time"):
            services.start_machine(actor=OPERATOR, reason="x")
        assert Machine.objects.count() == 1

    def test_it_needs_a_configured_machine(self, settings: Any) -> None:
        settings.MACHINE_REGION = ""
        with pytest.raises(Conflict, match="CRPBOT_MACHINE_REGION"):
            services.start_machine(actor=OPERATOR, reason="x")

    def test_it_needs_a_price(self, settings: Any) -> None:
        settings.MACHINE_TYPE = "p5.48xlarge"
        with pytest.raises(Conflict, match=r"No price is known for p5\.48xlarge"):
            services.start_machine(actor=OPERATOR, reason="x")

    def test_it_needs_money_of_the_month(self) -> None:
        services.set_monthly_limit(Decimal(0), actor=APPROVER, reason="none")
        with pytest.raises(Conflict, match="too little"):
            services.start_machine(actor=OPERATOR, reason="x")


@pytest.mark.usefixtures("configured")
class TestStop:
    @pytest.mark.parametrize("actor", [OPERATOR, APPROVER], ids=["an operator", "an approver"])
    def test_it_is_asked_for_once(self, actor: Actor) -> None:
        machine = services.start_machine(actor=OPERATOR, reason="x")
        services.stop_machine(machine, actor=actor, reason="enough")
        machine.refresh_from_db()
        assert (machine.stop_asked_by, machine.stop_reason) == (actor.name, "enough")
        with pytest.raises(Conflict, match="already asked"):
            services.stop_machine(machine, actor=OPERATOR, reason="again")
        assert kinds()[-2:] == ["machine.stop_asked", "machine.stop.refused"]

    def test_a_viewer_may_not(self) -> None:
        machine = services.start_machine(actor=OPERATOR, reason="x")
        with pytest.raises(NotAllowed):
            services.stop_machine(machine, actor=VIEWER, reason="x")
        machine.refresh_from_db()
        assert machine.stop_asked_at is None

    def test_what_has_ended_is_not_stopped(self, world: World) -> None:
        world.launch()
        world.run(1500)
        with pytest.raises(Conflict, match="already ended"):
            services.stop_machine(the_machine(), actor=OPERATOR, reason="x")


class TestPrices:
    def test_the_newest_of_each_counts_and_all_stay(self) -> None:
        for usd in ("0.5", "0.6"):
            services.set_price(**{**PRICE, "usd_per_hour": Decimal(usd)}, actor=APPROVER)
        services.set_price(**{**PRICE, "region": "eu-west-1"}, actor=APPROVER)
        assert [(p.region, str(p.usd_per_hour)) for p in services.list_prices()] == [
            ("eu-west-1", "0.5000"),
            ("us-east-1", "0.6000"),
        ]
        assert (MachinePrice.objects.count(), kinds()) == (3, ["machineprice.set"] * 3)

    @pytest.mark.parametrize(
        ("change", "error"),
        [
            ({"actor": OPERATOR}, NotAllowed),
            ({"reason": ""}, InvalidInput),
            ({"instance_type": "G5; rm"}, InvalidInput),
            ({"region": ""}, InvalidInput),
            ({"market": "reserved"}, InvalidInput),
            ({"usd_per_hour": Decimal(0)}, InvalidInput),
            ({"usd_per_hour": Decimal("0.00001")}, InvalidInput),
            ({"usd_per_hour": Decimal("NaN")}, InvalidInput),
            ({"usd_per_hour": Decimal(1001)}, InvalidInput),
        ],
        ids=[
            "an operator",
            "no reason",
            "no type",
            "no region",
            "no market",
            "nothing",
            "too little",
            "no number",
            "too much",
        ],
    )
    def test_what_is_no_price_leaves_an_event_and_no_row(
        self, change: dict[str, Any], error: type[DomainError]
    ) -> None:
        with pytest.raises(error):
            services.set_price(**{"actor": APPROVER, **PRICE, **change})
        assert (MachinePrice.objects.count(), kinds()) == (0, ["machineprice.set.refused"])


@pytest.mark.parametrize(
    ("usd", "actor", "error"),
    [
        (Decimal(-1), APPROVER, InvalidInput),
        (Decimal("Infinity"), APPROVER, InvalidInput),
        (Decimal(1), OPERATOR, NotAllowed),
    ],
    ids=["negative", "without end", "by an operator"],
)
def test_a_limit_that_cannot_be_is_refused(usd: Decimal, actor: Actor, error: type[DomainError]) -> None:
    with pytest.raises(error):
        services.set_monthly_limit(usd, actor=actor, reason="x")
    assert MonthlyLimit.objects.count() == 0


@pytest.mark.usefixtures("configured")
def test_command_api_and_page_do_the_same(client: Client) -> None:
    for name, role in (("olga", "operator"), ("anna", "approver"), ("victor", "viewer")):
        factories.person(name, role)
    assert "requested" in command("start", "--reason", "a rehearsal", "--as", "olga")
    assert "requested" in command() and "This month: $0.00 of at most $1,000.00." in command()
    command("stop", str(the_machine().pk), "--reason", "enough", "--as", "anna")
    assert the_machine().stop_asked_by == "anna"
    assert "$0.7000 per hour, set by anna" in command(
        "price", "--market", "spot", "--usd", "0.7", "--reason", "x", "--as", "anna"
    )
    assert "of at most $80.00" in command("limit", "--usd", "80", "--reason", "x", "--as", "anna")
    assert "g5.xlarge in us-east-1, spot: $0.7000" in command("prices")
    assert "crpbot-watchdog.service" in command("user-data")
    for refused in (
        "start --reason x --as victor",
        "stop --reason x --as anna",
        "price --usd much --reason x --as anna",
    ):
        with pytest.raises(SystemExit):
            command(*refused.split())

    Machine.objects.update(slot=None)
    approver = Caller(client, factories.token(factories.person("arthur", "approver"), "approver"))
    operator = Caller(client, factories.token(factories.person("otto", "operator"), "operator"))
    started = operator.post("machines/", {"reason": "by a program"})
    assert (started.status_code, started.json()["allowed_seconds"]) == (201, 5400)
    assert operator.post("machines/", {"reason": "again"}).status_code == 409
    stopped = operator.post(f"machines/{started.json()['id']}/stop/", {"reason": "enough"})
    assert (stopped.status_code, stopped.json()["stop_asked_by"]) == (200, "otto")
    assert operator.post("machines/99/stop/", {"reason": "x"}).status_code == 404
    assert approver.post("machines/limits/", {"usd": 60, "reason": "x"}).json()["usd"] == "60.00"
    for body in (
        {"usd": -1, "reason": "x"},
        {"usd": "60", "reason": "x"},
        {"usd": 60},
        {"usd": 60, "reason": "x", "eur": 1},
    ):
        assert approver.post("machines/limits/", body).status_code == 400

    Machine.objects.update(slot=None)
    browser = Client()
    browser.force_login(factories.person("olivia", "operator"))
    assert browser.post("/machines/start/", {"reason": ""}).status_code == 400
    assert browser.post("/machines/start/", {"reason": "by hand"}).status_code == 302
    page = browser.get("/machines/").content.decode()
    assert "Stop this machine" in page and "Set a price" not in page
    assert browser.post(f"/machines/{the_machine().pk}/stop/", {"reason": "enough"}).status_code == 302
    assert browser.post("/machines/limit/", {"usd": "1", "reason": "x"}).status_code == 403
    browser.force_login(factories.person("amelie", "approver"))
    assert "Set a price" in browser.get("/machines/").content.decode()
    assert browser.post("/machines/prices/", {**PRICE, "usd_per_hour": "0"}).status_code == 400
    assert browser.post("/machines/prices/", PRICE).status_code == 302
    assert browser.post("/machines/limit/", {"usd": "70", "reason": "x"}).status_code == 302
    assert costs.get_monthly_limit() == 70
    assert audit.verify() == []


def test_run_and_release_show_the_bill_beside_the_estimate(world: World, client: Client) -> None:
    world.launch()
    world.run(1500)
    run = the_machine().uses.get(run__coin__symbol="BTC").run
    run.refresh_from_db()
    client.force_login(factories.person("victor", "viewer"))
    page = client.get(f"/runs/{run.pk}/").content.decode()
    assert run.machine_usd is not None
    assert f"{format_usd(run.machine_usd)} <span" in page and "really billed" in page
    assert client.get(f"/api/v1/runs/{run.pk}/").json()["machine_usd"] == str(run.machine_usd)


class TestAlarms:
    def test_a_machine_beyond_its_bound_is_critical_before_any_pointer(self, world: World) -> None:
        world.launch(is_endless=True)
        world.run(600)
        assert detect.list_alarms() == []
        machine = Machine.objects.filter(pk=the_machine().pk)
        machine.update(started_at=world.cloud.now - timedelta(seconds=5400 + 120))
        record_alarms()
        (alarm,) = Alarm.objects.filter(cleared_at=None)
        assert (alarm.name, alarm.severity) == ("machine", "critical")
        assert "runs beyond its bound of 5,400 seconds" in alarm.sentence
        command(
            "stop",
            str(the_machine().pk),
            "--reason",
            "beyond its bound",
            "--as",
            factories.person("olga", "operator").username,
        )
        world.run(30)
        record_alarms()
        assert not Alarm.objects.filter(cleared_at=None).exists()

    def test_a_cloud_that_is_silent_while_a_machine_runs_is_critical(self, world: World) -> None:
        world.launch(is_endless=True)
        world.run(120)
        ControllerTurn.objects.update(
            failing_since=timezone.now() - timedelta(minutes=4), problem="no answer"
        )
        assert detect.list_alarms() == []
        ControllerTurn.objects.update(failing_since=timezone.now() - timedelta(minutes=6))
        assert [(alarm.name, alarm.is_critical) for alarm in detect.list_alarms()] == [("machine", True)]
        Machine.objects.filter(state__in=["requested", "starting", "running"]).update(
            state=MachineState.STOPPED
        )
        assert detect.list_alarms() == [], "nothing runs there"

    def test_runs_that_wait_for_the_months_money_are_a_warning(self, world: World) -> None:
        services.set_monthly_limit(Decimal("0.01"), actor=APPROVER, reason="a small month")
        assert detect.list_alarms() == []
        world.launch()
        world.run(30)
        record_alarms()
        (alarm,) = Alarm.objects.filter(cleared_at=None)
        assert (alarm.name, alarm.severity) == ("machine_limit", "warning")
        services.set_monthly_limit(Decimal(80), actor=APPROVER, reason="as the runbook says")
        world.run(30)
        record_alarms()
        assert not Alarm.objects.filter(cleared_at=None).exists()


def test_the_metrics_have_the_spend_where_a_machine_is_configured(world: World, settings: Any) -> None:
    world.launch()
    world.run(1500)
    figures = {metric.name: metric.samples for metric in metrics._read_machines()}
    cost = float(the_machine().cost_usd)
    assert [sample.value for sample in figures["crpbot_machine_spend_usd"]] == [cost]
    assert [sample.value for sample in figures["crpbot_machine_month_usd"]] == [cost]
    assert {s.labels["state"]: s.value for s in figures["crpbot_machines"]}["stopped"] == 1
    settings.MACHINE_REGION = ""
    assert list(metrics._read_machines()) == []


def test_reconcile_looks_before_it_records_alarms() -> None:
    assert STEPS.index(control_machines) < STEPS.index(record_alarms)


def test_a_worker_of_production_writes_no_machine() -> None:
    grants = list_grants(DatabaseRole.WORKER)
    tables = [name for name in grants if name.startswith("machines_")]
    assert len(tables) == 5
    assert not any(grants[name].inserts or grants[name].updates for name in tables)
    assert "machine_usd" not in grants["training_trainingrun"].updates


PAGE = (REPOSITORY / "docs" / "operations" / "machines.md").read_text()


@pytest.mark.parametrize("line", re.findall(r"^ {4,}manage\.py (.+)$", PAGE, re.MULTILINE))
def test_every_command_of_the_page_is_one_that_the_service_takes(line: str) -> None:
    verb, *arguments = shlex.split(line)
    load_command_class(get_commands()[verb], verb).create_parser("manage.py", verb).parse_args(arguments)


def test_the_policies_of_the_page_allow_what_the_client_calls_and_no_more() -> None:
    policies = [json.loads(block) for block in re.findall(r"```json\n(.+?)```", PAGE, re.DOTALL)]
    allowed = {action for each in policies[0]["Statement"] for action in _as_list(each["Action"])}
    source = (REPOSITORY / "machines" / "cloud" / "ec2.py").read_text()
    calls = set(re.findall(r"self\._client\.([a-z_]+)\(", source)) - {"get_paginator"} | {
        "describe_instances"
    }
    assert {f"ec2:{''.join(map(str.capitalize, call.split('_')))}" for call in calls} == allowed - {
        "iam:PassRole"
    }
    for statement in policies[0]["Statement"]:
        reads = all("Describe" in action for action in _as_list(statement["Action"]))
        assert reads or statement["Resource"] != "*"


def _as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
