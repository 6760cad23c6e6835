"""The lists: what they hold, filtered, in pages and in order."""

import hashlib
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from audit.models import AuditEvent
from deploy.releases import decide
from deploy.releases.launch import launch
from deploy.rules import Purpose
from gates.policy import BASELINE_POLICY, FULL_POLICY
from tests import scenarios
from tests.api.callers import Caller, assert_problem
from tests.api.operations import queued_run
from training.models import Dataset, Epoch, RunLine, TrainingRun, Worker
from training.rules import JobState

pytestmark = pytest.mark.django_db

ALL = len(scenarios.ALWAYS_JUDGED)


def rows(caller: Caller, path: str, **query: Any) -> list[dict[str, Any]]:
    response = caller.get(path, query)
    assert response.status_code == 200, response.content
    found: list[dict[str, Any]] = response.json()["results"]
    return found


def test_coins_say_which_a_release_must_carry(as_viewer: Caller) -> None:
    scenarios.coins()
    assert [(coin["symbol"], coin["is_required"]) for coin in rows(as_viewer, "coins/")] == [
        ("BTC", True),
        ("ETH", True),
        ("SOL", True),
    ]
    assert rows(as_viewer, "coins/", is_required="false") == []


def test_datasets_are_filtered_by_coin_and_say_whether_they_are_made_up(as_viewer: Caller) -> None:
    btc, eth, _ = scenarios.coins()
    scenarios.dataset(btc)
    made_up = scenarios.dataset(eth, is_simulated=True)
    assert [row["id"] for row in rows(as_viewer, "datasets/", is_simulated="true")] == [made_up.pk]
    (row,) = rows(as_viewer, "datasets/", coin="ETH")
    assert (row["coin"], row["source"], row["digest"]) == ("ETH", "simulated", made_up.digest)


def test_a_run_tells_how_far_it_is_and_what_it_cost(as_viewer: Caller) -> None:
    run = queued_run()
    TrainingRun.objects.filter(pk=run.pk).update(
        state=JobState.RUNNING, started_at=timezone.now() - timedelta(seconds=30), spent_usd="0.008384"
    )
    for number in (1, 2):
        Epoch.objects.create(
            run=run, number=number, attempt=1, train_loss=1.0, seconds=2.0, rows_per_second=9e4, is_best=True
        )
    RunLine.objects.create(run=run, attempt=1, text="took over on cuda:0")
    answer = as_viewer.get(f"runs/{run.pk}/").json()
    assert (answer["coin"], answer["state"], answer["epochs_done"], answer["progress"]) == (
        "BTC",
        "running",
        2,
        0.4,
    )
    assert answer["elapsed_seconds"] >= 30
    assert answer["spent_usd"] == "0.008384"
    assert [epoch["number"] for epoch in rows(as_viewer, f"runs/{run.pk}/epochs/")] == [1, 2]
    assert [line["text"] for line in rows(as_viewer, f"runs/{run.pk}/log/")] == ["took over on cuda:0"]
    assert [row["id"] for row in rows(as_viewer, "runs/", state="running", coin="BTC")] == [run.pk]
    assert rows(as_viewer, "runs/", state="failed") == []


def test_a_diagnosis_shows_every_gate_with_its_figure_and_threshold(as_viewer: Caller) -> None:
    scenarios.Build(line="v6_enhanced", figures=scenarios.for_every_coin(scenarios.collapsed)).settled()
    (row,) = rows(as_viewer, "diagnoses/", coin="BTC", verdict="failed", policy=2)
    gates = {gate["gate"]: gate for gate in row["gates"]}
    assert list(gates) == scenarios.ALWAYS_JUDGED
    assert (gates["logit_range"]["verdict"], gates["logit_range"]["is_required"]) == ("failed", True)
    assert "12,527" in gates["logit_range"]["observed"]
    assert gates["logit_range"]["threshold"]
    answer = as_viewer.get(f"diagnoses/{row['id']}/").json()
    assert answer["measured"]["logits"]["greatest"] == 9301.0
    assert answer["policy_document"]["gates"]["accuracy"]["required"] is True
    assert "measured" not in row


def test_a_release_shows_its_coins_together_and_where_their_files_are(as_viewer: Caller) -> None:
    release = scenarios.awaiting_approval()
    answer = as_viewer.get(f"releases/{release.pk}/").json()
    assert (answer["state"], answer["allowed_actions"]) == ("awaiting_approval", ["approve", "decline"])
    assert (answer["policy"], answer["launched_by"], answer["is_simulated"]) == (2, "olivia", False)
    assert [(coin["coin"], coin["verdict"], len(coin["gates"])) for coin in answer["coins"]] == [
        ("BTC", "passed", ALL),
        ("ETH", "passed", ALL),
        ("SOL", "passed", ALL),
    ]
    file = next(file for file in answer["coins"][0]["files"] if file["name"] == "model.onnx")
    content = as_viewer.get(file["url"]).bytes
    assert hashlib.sha256(content).hexdigest() == file["sha256"]


def test_a_release_that_only_began_has_neither_bundles_nor_verdicts(as_viewer: Caller) -> None:
    for coin in scenarios.coins():
        scenarios.dataset(coin)
    release = launch("v7_fixed", actor=scenarios.LAUNCHER)
    answer = as_viewer.get(f"releases/{release.pk}/").json()
    assert {(coin["bundle"], coin["verdict"], len(coin["gates"])) for coin in answer["coins"]} == {
        (None, None, 0)
    }


def test_releases_are_filtered_by_state_line_purpose_and_launcher(as_viewer: Caller) -> None:
    waiting = scenarios.awaiting_approval()
    standby = scenarios.Build(line="v5", purpose=Purpose.FALLBACK, seed=5).settled()
    assert [row["id"] for row in rows(as_viewer, "releases/")] == [standby.pk, waiting.pk]
    assert [row["id"] for row in rows(as_viewer, "releases/", state="awaiting_approval")] == [waiting.pk]
    assert [row["id"] for row in rows(as_viewer, "releases/", line="v5", purpose="fallback")] == [standby.pk]
    assert rows(as_viewer, "releases/", launched_by="somebody else") == []


@pytest.mark.postgresql
def test_moves_begin_with_where_the_pointer_stands(as_viewer: Caller) -> None:
    scenarios.service_in_use()
    decide.pin(actor=scenarios.APPROVER, reason="looks wrong")
    now, first = rows(as_viewer, "moves/")
    assert (now["revision"], now["kind"], now["line"], now["moved_by"]) == (2, "pin", "v5", "anna")
    assert now["reason"] == "looks wrong"
    assert (first["revision"], first["kind"]) == (1, "inherited")
    assert [row["revision"] for row in rows(as_viewer, "moves/", kind="inherited")] == [1]
    event = rows(as_viewer, "audit/", object_type="pointermove", object_id=2)[0]
    assert event["seq"] == now["audit_seq"]


def test_policies_show_their_thresholds_and_who_put_them_in_force(as_viewer: Caller) -> None:
    full, seed = rows(as_viewer, "policies/")
    assert (seed["number"], seed["document"]) == (1, BASELINE_POLICY)
    assert (full["number"], full["document"], full["weaker_than_full"]) == (2, FULL_POLICY, [])
    for policy in (seed, full):
        assert policy["weaker_than_baseline"] == []
        assert policy["adoptions"][0]["reason"]


def test_anyone_who_may_look_can_check_the_audit_chain_from_its_rows(as_viewer: Caller) -> None:
    scenarios.service_in_use()
    events = list(reversed(rows(as_viewer, "audit/", limit=500)))
    assert len(events) == AuditEvent.objects.count()
    previous = "0" * 64
    for event in events:
        assert event["previous_hash"] == previous
        previous = hashlib.sha256(f"{previous}\n{event['body']}".encode()).hexdigest()
        assert event["hash"] == previous


@pytest.mark.postgresql
def test_the_audit_is_filtered_by_actor_kind_object_and_time(as_viewer: Caller) -> None:
    began_at = timezone.now()
    scenarios.service_in_use()
    pins = rows(as_viewer, "audit/", kind="pointer.inherited")
    assert [(event["actor"], event["reason"]) for event in pins] == [("anna", "as the bot stands today")]
    kinds = {event["kind"] for event in rows(as_viewer, "audit/", kind="gatepolicy.*")}
    assert kinds == {"gatepolicy.proposed", "gatepolicy.adopted"}
    assert rows(as_viewer, "audit/", actor="anna", before=began_at.isoformat()) == []
    assert rows(as_viewer, "audit/", actor="anna", after=began_at.isoformat())


def test_workers_tell_which_are_alive_and_on_what_they_train(as_viewer: Caller) -> None:
    for name, age_seconds in (("gpu-1", 1), ("gpu-2", 600)):
        Worker.objects.create(
            name=name,
            queues="training,gates",
            device="NVIDIA A10G",
            torch_version="2.13.0",
            code_version="0.1.0",
            rate_usd_per_hour="1.006",
            started_at=timezone.now() - timedelta(hours=1),
            last_heard_at=timezone.now() - timedelta(seconds=age_seconds),
        )
    assert [(w["name"], w["is_alive"], w["queues"]) for w in rows(as_viewer, "workers/")] == [
        ("gpu-1", True, ["training", "gates"]),
        ("gpu-2", False, ["training", "gates"]),
    ]
    assert [worker["name"] for worker in rows(as_viewer, "workers/", is_alive="false")] == ["gpu-2"]


def test_a_list_comes_in_pages_that_lead_to_one_another(as_viewer: Caller) -> None:
    btc = scenarios.coins()[0]
    for number in range(5):
        scenarios.dataset(btc, name=str(number))
    seen, address = [], "/api/v1/datasets/?limit=2"
    while address:
        page = as_viewer.get(address).json()
        assert page["count"] == 5
        seen += [row["id"] for row in page["results"]]
        address = (page["next"] or "").removeprefix("http://testserver")
    assert seen == list(Dataset.objects.order_by("-id").values_list("id", flat=True))
    assert len(rows(as_viewer, "datasets/", ordering="id", limit=1, offset=4)) == 1


@pytest.mark.postgresql
@pytest.mark.parametrize(
    ("query", "name"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "501"}, "limit"),
        ({"limit": "ten"}, "limit"),
        ({"limit": "9" * 400}, "limit"),
        ({"offset": "-1"}, "offset"),
        ({"offset": "1.5"}, "offset"),
        ({"stat": "failed"}, "stat"),
        ({"state": "fialed"}, "state"),
        ({"dataset": "3.5"}, "dataset"),
        ({"dataset": "NaN"}, "dataset"),
        ({"dataset": "1e99999999"}, "dataset"),
        ({"dataset": "9" * 20}, "dataset"),
        ({"coin": "B\x00TC"}, "coin"),
        ({"ordering": "password"}, "ordering"),
        ({"format": "html"}, "format"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_query_that_cannot_be_meant_is_refused_by_name(
    query: dict[str, str], name: str, as_viewer: Caller
) -> None:
    assert name in assert_problem(as_viewer.get("runs/", query), 400)["errors"]


def test_a_time_that_is_none_is_refused_by_name(as_viewer: Caller) -> None:
    assert "after" in assert_problem(as_viewer.get("audit/", {"after": "yesterday"}), 400)["errors"]


@pytest.mark.postgresql
@pytest.mark.parametrize("identifier", ["0", "99", "9" * 30, "9" * 5000, "-1", "one"])
@pytest.mark.parametrize("kind", ["releases", "runs", "diagnoses"])
def test_an_unknown_id_is_not_found(kind: str, identifier: str, as_viewer: Caller) -> None:
    assert_problem(as_viewer.get(f"{kind}/{identifier}/"), 404)


@pytest.mark.parametrize("part", ["epochs", "log"])
def test_a_run_that_is_not_there_has_no_empty_list_either(part: str, as_viewer: Caller) -> None:
    assert_problem(as_viewer.get(f"runs/99/{part}/"), 404, "There is no run 99")


LISTS = ("releases/", "diagnoses/", "runs/", "datasets/", "audit/", "moves/", "policies/")


def queries_of(caller: Caller, path: str) -> int:
    with CaptureQueriesContext(connection) as captured:
        assert caller.get(path).status_code == 200
    return len(captured)


@pytest.mark.postgresql
def test_a_longer_list_takes_no_more_queries(as_viewer: Caller) -> None:
    scenarios.service_in_use()
    queued_run()
    before = {path: queries_of(as_viewer, path) for path in LISTS}
    for seed in (11, 12, 13):
        release = scenarios.awaiting_approval(seed)
        queued_run()
    decide.approve(release, actor=scenarios.APPROVER, reason="passed", revision=1)
    assert {path: queries_of(as_viewer, path) for path in LISTS} == before
