"""The alerts, the dashboard and the runbooks: checked by Prometheus' own tool, complete, and their commands exist."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.management import call_command, get_commands, load_command_class
from django.test import Client

from crpbot.web.metrics import Metrics
from deploy.alarms.reconcile_pass import record_pass
from deploy.alarms.record import record_alarms
from deploy.models import Alarm
from deploy.rules import AlarmName
from tests import factories, scenarios
from tests.deploy.asgi_client import ask
from tests.processes import REPOSITORY
from tests.promtool import needs_promtool, promtool

PROMETHEUS = REPOSITORY / "ops" / "prometheus"
RUNBOOKS = REPOSITORY / "docs" / "operations" / "runbooks"
PAGES = {page.stem: page.read_text() for page in RUNBOOKS.glob("*.md")}
RULES = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
TESTS = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
DASHBOARD = json.loads((REPOSITORY / "ops" / "grafana" / "crpbot.json").read_text())
TARGETS = [
    target["expr"].replace("$instance", ".*")
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
] + [annotation["expr"].replace("$instance", ".*") for annotation in DASHBOARD["annotations"]["list"]]
EXPRESSIONS = [*TARGETS, *(rule["expr"] for rule in RULES)]
COMMAND = re.compile(r"^ {4,}(manage\.py .+)$", re.MULTILINE)
CONTAINERS = re.compile(
    r"docker compose (?:(?:ps|restart|logs --tail \d+) ([a-z -]+)|(?:exec|run --rm|up -d(?: --scale)?) ([a-z-]+))"
)
READING = (
    "active",
    "bots",
    "workers",
    "verify_audit",
    "coins list",
    "keys list",
    "people --tokens",
    "reconcile --once",
)
SUFFIXES = re.compile(r"_(bucket|count|sum)$")
RUNBOOK_URL = "{{ $externalLabels.runbooks }}/"


def list_commands() -> list[tuple[str, str]]:
    return [(name, command) for name, text in sorted(PAGES.items()) for command in COMMAND.findall(text)]


@needs_promtool
def test_promtool_accepts_the_rules_and_the_example() -> None:
    promtool("check", "rules", PROMETHEUS / "alerts.yml")
    promtool("check", "config", "--syntax-only", PROMETHEUS / "prometheus.yml")


@needs_promtool
def test_each_alert_fires_in_its_test() -> None:
    promtool("test", "rules", PROMETHEUS / "alerts_test.yml")


def test_every_alert_has_a_test_in_which_it_is_silent_and_then_fires() -> None:
    fired: dict[str, list[bool]] = {}
    for each in TESTS:
        for case in each["alert_rule_test"]:
            fired.setdefault(case["alertname"], []).append(bool(case.get("exp_alerts")))
    assert set(fired) == {rule["alert"] for rule in RULES}
    assert all({True, False} == set(outcomes) for outcomes in fired.values())


def test_every_alarm_fires_an_alert_that_leads_to_its_runbook() -> None:
    urls = {
        alert["exp_labels"]["alarm"]: alert["exp_annotations"]["runbook_url"]
        for each in TESTS
        for case in each["alert_rule_test"]
        if case["alertname"] == "CrpbotAlarm"
        for alert in case.get("exp_alerts", ())
    }
    assert urls == {name.value: f"https://gate.example.com/runbooks/{name}.html" for name in AlarmName}


def test_every_alarm_and_every_alert_has_a_runbook_and_none_is_left_over() -> None:
    urls = [rule["annotations"]["runbook_url"] for rule in RULES]
    assert [url for url in urls if not (url.startswith(RUNBOOK_URL) and url.endswith(".html"))] == []
    names = {url.removeprefix(RUNBOOK_URL).removesuffix(".html") for url in urls}
    assert "{{ $labels.alarm }}" in names
    assert set(PAGES) == (names - {"{{ $labels.alarm }}"}) | {name.value for name in AlarmName}


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_runbook_says_what_it_means_what_to_do_and_how_to_verify(name: str) -> None:
    sections = dict(part.split("\n", 1) for part in PAGES[name].split("\n## ")[1:])
    assert list(sections) == ["Meaning", "First steps", "Verify"]
    assert len(sections["Meaning"].split()) > 10
    for section in ("First steps", "Verify"):
        assert re.search(
            r"^ {4,}(manage\.py|docker|curl|timedatectl|chronyc) ?", sections[section], re.MULTILINE
        ), section


@pytest.mark.parametrize(("name", "command"), list_commands(), ids=str)
def test_every_command_of_a_runbook_is_one_that_the_service_takes(name: str, command: str) -> None:
    _, verb, *arguments = shlex.split(command)
    parser = load_command_class(get_commands()[verb], verb).create_parser("manage.py", verb)
    parser.parse_args(arguments)


def test_containers_of_a_runbook_are_services_of_compose() -> None:
    services = set(yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"])
    named = {
        (name, word)
        for name, text in PAGES.items()
        for all_words, first_word in CONTAINERS.findall(text)
        for word in (all_words or first_word).split()
    }
    assert {word for _, word in named} >= {"web", "reconcile", "postgresql", "redis", "cpu-worker", "migrate"}
    assert {(name, word) for name, word in named if word not in services} == set()


@pytest.mark.usefixtures("committed")
@pytest.mark.slow
@pytest.mark.parametrize("command", READING)
def test_what_only_reads_runs_on_a_service_in_use(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert any(found == f"manage.py {command}" for _, found in list_commands()), "no runbook uses it"
    scenarios.service_in_use()
    record_alarms()
    try:
        call_command(*shlex.split(command))
    except SystemExit as end:
        assert end.code in (0, 1)
    assert "Traceback" not in capsys.readouterr().err


@needs_promtool
def test_every_expression_of_the_dashboard_is_promql(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(TARGETS)]
    (tmp_path / "dashboard.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", tmp_path / "dashboard.yml")


@pytest.mark.usefixtures("committed", "broker")
@pytest.mark.slow
async def test_every_metric_of_dashboard_and_alerts_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    await sync_to_async(scenarios.service_in_use)()
    await sync_to_async(record_pass)()
    monkeypatch.setattr(settings, "METRICS_TOKEN", "t" * 40)
    for name, value in (("REGION", "eu-central-1"), ("INSTANCE", "i-0123456789abcdef0")):
        monkeypatch.setattr(
            settings, f"MACHINE_{name}", value
        )  # its figures are there where one is configured
    answer = await ask(Metrics(_no_app), path="/metrics", authorization=f"Bearer {'t' * 40}")
    there = set(re.findall(r"^# TYPE (crpbot_\w+)", answer.body.decode(), re.MULTILINE))
    named = {name for expr in EXPRESSIONS for name in re.findall(r"crpbot_\w+", expr)}
    assert {name for name in named if name not in there and SUFFIXES.sub("", name) not in there} == set()


async def _no_app(*args: Any) -> None:
    raise AssertionError("only /metrics is asked for")


def test_panels_have_their_own_numbers_and_do_not_overlap() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells


@pytest.mark.django_db
@pytest.mark.slow
def test_the_service_shows_every_runbook_and_an_alarm_links_to_its_own(client: Client) -> None:
    assert client.get("/runbooks/fallback.html").status_code == 302, "it needs a sign-in"
    client.force_login(factories.person("victor", "viewer"))
    for name, text in PAGES.items():
        page = client.get(f"/runbooks/{name}.html").content.decode()
        assert text.partition("\n")[0].removeprefix("# ") in page
        assert "<code> " not in page, "a command that is copied begins with its first letter"
    assert '<a href="database_away.html">' in client.get("/runbooks/edge_errors.html").content.decode()
    assert client.get("/runbooks/nothing.html").status_code == 404
    scenarios.inherited()
    record_alarms()
    (alarm,) = Alarm.objects.filter(name="fallback", cleared_at=None)
    assert f'href="/runbooks/{alarm.name}.html"' in client.get("/").content.decode()
