"""Lines are rows: who creates one, what it may start from, and what a launch of it trains."""

import json
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.test import Client

from accounts.roles import Actor
from audit.models import AuditEvent
from common.errors import Conflict, DomainError, InvalidInput, NotAllowed
from deploy.releases import settle
from deploy.releases.launch import launch
from deploy.releases.presentation import describe_terms
from deploy.rules import Purpose
from tests import factories, scenarios
from tests.deploy.commands import run
from tests.scenarios import LAUNCHER, VIEWER
from training.models import Dataset, Line, TrainingRun
from training.services import estimates, lines, runs

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql]

PERCENT = {"label": "percent", "cut": 0.5}


def create(name: str = "v7_day", actor: Actor = LAUNCHER, **given: Any) -> Line:
    said: dict[str, Any] = {"recipe": "v7_fixed", "reason": "the desk holds for a day", **given}
    return lines.create_line(name, actor=actor, **said)


@pytest.fixture
def candles() -> dict[str, Dataset]:
    return {coin.symbol: scenarios.dataset(coin) for coin in scenarios.coins()}


def test_every_installation_has_the_four_built_in_lines_once() -> None:
    lines.ensure_lines()
    assert [(line.name, line.recipe, line.defaults) for line in Line.objects.all()] == [
        (name, name, {}) for name in ("v7_fixed", "v5", "v6_enhanced", "flat")
    ]


def test_a_line_is_created_with_its_event() -> None:
    line = create(defaults={"horizon": 24, "epochs": None}, description="for a day")
    event = AuditEvent.objects.get(kind="line.created")
    assert (line.defaults, line.created_by, event.actor) == ({"horizon": 24}, "olivia", "olivia")
    assert (event.object_name, event.reason) == ("v7_day", "the desk holds for a day")
    detail = json.loads(event.body)["detail"]
    assert detail == {"recipe": "v7_fixed", "defaults": {"horizon": 24}, "description": "for a day"}


@pytest.mark.parametrize(
    ("given", "error", "why"),
    [
        ({"name": "V7"}, InvalidInput, "small letters"),
        ({"name": "x" * 33}, InvalidInput, "1 to 32"),
        ({"name": "v5"}, Conflict, "There is a line v5 already"),
        ({"name": "f1at"}, Conflict, "could be mistaken for flat"),
        ({"name": "v7fixed"}, Conflict, "could be mistaken for v7_fixed"),
        ({"name": "v_5"}, Conflict, "could be mistaken for v5"),
        ({"recipe": "v9"}, InvalidInput, "no recipe 'v9' here; choose v5"),
        ({"defaults": {"horizon": 97}}, InvalidInput, "horizon"),
        ({"defaults": {"label": "percent"}}, InvalidInput, "cut"),
        ({"defaults": {"momentum": 1}}, InvalidInput, "no setting 'momentum'"),
        ({"recipe": "v5", "defaults": {"horizon": 9}}, InvalidInput, "it has none"),
        ({"recipe": "", "defaults": {"horizon": 9}}, InvalidInput, "without a recipe has no settings"),
        ({"description": "x" * 201}, InvalidInput, "200 characters"),
        ({"reason": " "}, InvalidInput, "reason"),
        ({"actor": VIEWER}, NotAllowed, "operator role"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_line_that_cannot_be_is_refused_and_nothing_is_stored(
    given: dict[str, Any], error: type[DomainError], why: str
) -> None:
    with pytest.raises(error, match=why):
        create(**given)
    assert Line.objects.count() == 4
    assert [event.kind for event in AuditEvent.objects.filter(kind__startswith="line")] == [
        "line.create.refused"
    ]


@pytest.mark.parametrize("change", ["name = 'mine'", "recipe = 'v5'", "defaults = '{}'"])
def test_the_database_lets_no_line_change(change: str) -> None:
    create()
    with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"UPDATE training_line SET {change} WHERE name = 'v7_day'")
    with pytest.raises(DatabaseError), transaction.atomic():
        Line.objects.all().delete()


def test_a_launch_trains_the_lines_recipe_with_its_settings(candles: dict[str, Dataset]) -> None:
    create(defaults={**PERCENT, "horizon": 24})
    release = launch("v7_day", actor=LAUNCHER, parameters={"epochs": 3})
    settle.advance(release)
    run = TrainingRun.objects.first()
    assert run is not None
    assert (run.line, run.recipe, run.epochs) == ("v7_day", "v7_fixed", 3)
    assert run.parameters == {**PERCENT, "horizon": 24, "epochs": 3}
    assert "24 bars" in describe_terms(release, [])


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"cut": 0.7}, {**PERCENT, "cut": 0.7}),
        ({"label": "terciles"}, {"label": "terciles"}),
        ({"label": "barriers", "cut": 2.0}, {"label": "barriers", "cut": 2.0}),
        ({"epochs": None}, PERCENT),
    ],
    ids=["a setting", "a label without a cut", "another label", "nothing"],
)
def test_a_launch_changes_what_the_line_starts_from(asked: dict[str, Any], expected: dict[str, Any]) -> None:
    recipe = lines.build_recipe(create(defaults=PERCENT), asked)
    assert lines.merge_settings(PERCENT, asked) == expected
    assert (recipe.label_kind, recipe.cut) == (expected["label"], expected.get("cut"))


def test_a_run_is_launched_again_with_what_it_trained_with(candles: dict[str, Dataset]) -> None:
    create(defaults=PERCENT)
    btc = candles["BTC"]
    first = runs.launch_run(
        coin=btc.coin,
        dataset=btc,
        line="v7_day",
        parameters={},
        seed=1,
        budget=runs.open_budget(),
        actor=LAUNCHER,
    )
    again = runs.repeat(first, changes={"label": "terciles"}, actor=LAUNCHER)
    assert (first.parameters, again.parameters) == (PERCENT, {"label": "terciles"})


def test_a_line_of_the_flat_recipe_is_a_fallback_only(candles: dict[str, Dataset]) -> None:
    create("calm", recipe="flat")
    with pytest.raises(InvalidInput, match="can only be a fallback"):
        launch("calm", actor=LAUNCHER)
    assert launch("calm", actor=LAUNCHER, purpose=Purpose.FALLBACK).line == "calm"
    assert "calm" not in lines.list_importable_names()


def test_a_line_without_a_recipe_takes_bundles_and_trains_nothing(candles: dict[str, Dataset]) -> None:
    create("from_the_notebook", recipe="")
    bundles = {
        symbol: scenarios.bundle(data.coin, data, "from_the_notebook", seed=1)
        for symbol, data in candles.items()
    }
    with pytest.raises(InvalidInput, match="Name a bundle for each coin"):
        launch("from_the_notebook", actor=LAUNCHER, bundles={"BTC": bundles["BTC"]})
    with pytest.raises(InvalidInput, match="nothing is trained for it"):
        launch("from_the_notebook", actor=LAUNCHER, bundles=bundles, parameters={"epochs": 3})
    release = launch("from_the_notebook", actor=LAUNCHER, bundles=bundles)
    settle.advance(release)
    assert TrainingRun.objects.count() == 0
    assert describe_terms(release, []) == ""


def test_a_longer_default_is_estimated_longer(candles: dict[str, Dataset]) -> None:
    create(defaults={"epochs": 10})
    short, long = (estimates.estimate(line, [candles["BTC"]], {}).seconds for line in ("v7_day", "v7_fixed"))
    assert short < long


class TestThePage:
    @pytest.fixture
    def olivia(self, client: Client) -> Client:
        client.force_login(factories.person("olivia", "operator"))
        return client

    def test_creates_a_line_and_lists_it(self, olivia: Client) -> None:
        said = {"name": "v7_day", "recipe_name": "v7_fixed", "horizon": "24", "reason": "for a day"}
        page = olivia.post("/lines/", said, follow=True).content.decode()
        assert "Created the line v7_day." in page and "horizon 24" in page
        assert Line.objects.get(name="v7_day").defaults == {"horizon": 24}

    def test_creates_one_for_imported_models(self, olivia: Client) -> None:
        olivia.post("/lines/", {"name": "mine", "recipe_name": "", "reason": "from a notebook"})
        assert Line.objects.get(name="mine").recipe == ""

    def test_a_refusal_stands_at_its_field_and_keeps_what_was_written(self, olivia: Client) -> None:
        said = {"name": "v7_day", "recipe_name": "v7_fixed", "horizon": "97", "reason": "for a day"}
        answer = olivia.post("/lines/", said)
        assert answer.status_code == 400 and 'value="97"' in answer.content.decode()
        assert olivia.post("/lines/", {**said, "horizon": "", "name": "v5"}).status_code == 409

    def test_another_recipe_brings_its_own_settings(self, olivia: Client) -> None:
        query = {"recipe_name": "v5", "name": "kept"}
        part = olivia.get("/lines/", query, headers={"HX-Request": "true"}).content.decode()
        assert 'name="horizon"' not in part and 'value="kept"' in part and "<html" not in part
        assert 'name="horizon"' in olivia.get("/lines/").content.decode()

    def test_a_viewer_sees_the_lines_without_the_form(self, client: Client) -> None:
        client.force_login(factories.person("victor", "viewer"))
        page = client.get("/lines/").content.decode()
        assert (
            "v6_enhanced" in page and "needs the operator role" in page and 'name="recipe_name"' not in page
        )

    def test_a_launch_offers_it_with_its_settings(self, olivia: Client) -> None:
        create(defaults={"horizon": 24}, description="for a day")
        page = olivia.get("/launch/", {"line": "v7_day"}).content.decode()
        assert "v7_day, for a day" in page and 'name="horizon" value="24"' in page
        create("mine", recipe="")
        assert 'value="mine"' not in olivia.get("/launch/").content.decode()
        assert 'value="mine"' in olivia.get("/bundles/").content.decode()


def test_a_command_lists_and_creates_lines() -> None:
    factories.person("olivia", "operator")
    said = ["--recipe", "v7_fixed", "--horizon", "24", "--reason", "for a day", "--as", "olivia"]
    status, out = run("lines", "create", "v7_day", *said)
    assert status == 0 and "recipe v7_fixed; horizon 24" in out
    assert run("lines", "create", "v7_day", *said)[0] == 1
    assert json.loads(run("lines", "--json")[1])[-1]["defaults"] == {"horizon": 24}
