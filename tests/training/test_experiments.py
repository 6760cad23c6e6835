"""The list of runs as a record of experiments: tags and notes, sorting, searching, comparing."""

import json
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.models import User
from audit.models import AuditEvent
from common.errors import InvalidInput, NotAllowed, NotFound
from tests import factories
from training import worker
from training.charts import draw_compared_curves
from training.models import Dataset, Epoch, RunTag, TrainingRun
from training.services import annotations, run_comparison, runs
from training.services.run_comparison import find_differences
from training.services.run_filters import RunFilter

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql]


@pytest.fixture
def dataset() -> Dataset:
    return factories.market(bars=1100)


def tags(run: TrainingRun) -> list[str]:
    return list(RunTag.objects.filter(run=run).values_list("name", flat=True))


def annotated() -> list[AuditEvent]:
    return list(AuditEvent.objects.filter(kind="trainingrun.annotated"))


def with_figures(dataset: Dataset, loss: float | None, accuracy: float | None, **changes: Any) -> TrainingRun:
    run = factories.run(dataset, **changes)
    TrainingRun.objects.filter(pk=run.pk).update(best_validation_loss=loss, best_validation_accuracy=accuracy)
    return run


def listed(**asked: str) -> list[int]:
    return [run.pk for run in RunFilter(asked, TrainingRun.objects.all()).qs]


class TestTagsAndNotes:
    def test_are_replaced_with_one_event(self, dataset: Dataset) -> None:
        run = factories.run(dataset)
        annotations.annotate(
            run, tags=["wide", "lr-3"], notes=" a wider network\r\n", actor=factories.OPERATOR
        )
        run.refresh_from_db()
        assert (tags(run), run.notes) == (["lr-3", "wide"], "a wider network")
        annotations.annotate(run, tags=["wide"], actor=factories.OPERATOR)
        run.refresh_from_db()
        assert (tags(run), run.notes) == (["wide"], "a wider network")
        assert [event.actor for event in annotated()] == ["olivia", "olivia"]

    def test_that_change_nothing_make_no_event(self, dataset: Dataset) -> None:
        run = factories.run(dataset)
        annotations.annotate(run, tags=["wide"], notes="one", actor=factories.OPERATOR)
        annotations.annotate(run, tags=["wide", "wide"], notes="one ", actor=factories.OPERATOR)
        annotations.annotate(run, actor=factories.OPERATOR)
        assert len(annotated()) == 1

    def test_take_an_operator(self, dataset: Dataset) -> None:
        run = factories.run(dataset)
        with pytest.raises(NotAllowed):
            annotations.annotate(run, tags=["wide"], actor=factories.VIEWER)
        assert tags(run) == []
        assert AuditEvent.objects.filter(kind="trainingrun.annotate.refused").count() == 1

    @pytest.mark.parametrize(
        ("asked", "field"),
        [
            ({"tags": ["Wide"]}, "tags"),
            ({"tags": [""]}, "tags"),
            ({"tags": ["x" * 33]}, "tags"),
            ({"tags": [f"t{n}" for n in range(13)]}, "tags"),
            ({"notes": "x" * 2001}, "notes"),
            ({"notes": "a\0b"}, "notes"),
        ],
    )
    def test_that_cannot_be_are_refused_by_name(
        self, dataset: Dataset, asked: dict[str, Any], field: str
    ) -> None:
        run = factories.run(dataset)
        with pytest.raises(InvalidInput) as refusal:
            annotations.annotate(run, **{"tags": ["good"], **asked}, actor=factories.OPERATOR)
        assert refusal.value.field == field
        assert tags(run) == [] and annotated() == []

    @pytest.mark.parametrize(
        ("text", "split"), [("", []), (" , ", []), ("a b", ["a", "b"]), ("a,b,  c,", ["a", "b", "c"])]
    )
    def test_are_written_in_one_line(self, text: str, split: list[str]) -> None:
        assert annotations.split_tags(text) == split

    def test_are_edited_on_the_page_of_the_run(self, dataset: Dataset, operator: Any, client: Client) -> None:
        run = factories.run(dataset)
        client.force_login(operator)
        answer = client.post(f"/runs/{run.pk}/annotate/", {"tags": "wide, deep", "notes": "see run 1"})
        assert (answer.status_code, answer["Location"]) == (302, f"/runs/{run.pk}/")
        assert tags(run) == ["deep", "wide"]
        page = client.get(f"/runs/{run.pk}/").content.decode()
        assert 'href="/runs/?tag=deep"' in page and "see run 1" in page
        refused = client.post(f"/runs/{run.pk}/annotate/", {"tags": "Wide", "notes": "kept in the form"})
        assert refused.status_code == 400
        assert "is no tag" in refused.content.decode() and "kept in the form" in refused.content.decode()


class TestTheList:
    def test_is_sorted_by_a_figure_and_leaves_out_runs_without_it(self, dataset: Dataset) -> None:
        low, high = with_figures(dataset, 0.9, 0.5), with_figures(dataset, 1.1, 0.6)
        none = factories.run(dataset)
        assert listed() == [none.pk, high.pk, low.pk]
        assert listed(ordering="loss") == [low.pk, high.pk]
        assert listed(ordering="-accuracy") == [high.pk, low.pk]

    def test_is_narrowed_by_tag_seed_and_purpose(self, dataset: Dataset) -> None:
        one, other = factories.run(dataset, seed=4), factories.run(dataset, seed=5)
        annotations.annotate(one, tags=["wide"], actor=factories.OPERATOR)
        assert listed(tag="wide") == [one.pk] and listed(tag="wid") == []
        assert listed(seed="5") == [other.pk]
        assert listed(purpose="neither") == [other.pk, one.pk]
        assert listed(purpose="release") == [] and listed(purpose="study") == []

    def test_a_second_training_is_of_the_release_of_the_first(self, dataset: Dataset) -> None:
        first = factories.run(dataset)
        second = runs.launch_run(
            coin=dataset.coin,
            dataset=dataset,
            line=first.line,
            parameters=first.parameters,
            seed=first.seed,
            budget=first.budget,
            actor=factories.OPERATOR,
            reproduces=first,
        )
        assert listed(purpose="release") == [second.pk] and listed(purpose="neither") == [first.pk]

    def test_is_searched_by_number_tag_and_notes(self, dataset: Dataset) -> None:
        one, other = factories.run(dataset), factories.run(dataset)
        annotations.annotate(one, tags=["wide"], notes="The Weekly baseline", actor=factories.OPERATOR)
        assert listed(search="wid") == [one.pk]
        assert listed(search="weekly BASE") == [one.pk]
        assert listed(search=str(other.pk)) == [other.pk]
        assert listed(search="9" * 30) == []

    @pytest.mark.parametrize(
        "asked", [{"ordering": "loss"}, {"ordering": "-accuracy"}, {"tag": "wide"}], ids=str
    )
    def test_is_read_by_an_index(self, dataset: Dataset, asked: dict[str, str]) -> None:
        if connection.vendor != "sqlite":
            pytest.skip("PostgreSQL reads a table of a few rows whole, whatever its indexes")
        with CaptureQueriesContext(connection) as queries:
            list(RunFilter(asked, TrainingRun.objects.all()).qs[:25])
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN QUERY PLAN {queries[-1]['sql']}")
            plan = " ".join(str(row) for row in cursor.fetchall())
        assert "INDEX runs_" in plan
        assert "ordering" not in asked or "TEMP B-TREE" not in plan

    def test_shows_figures_changes_tags_and_notes(
        self, dataset: Dataset, viewer: Any, client: Client
    ) -> None:
        run = with_figures(dataset, 0.9876, 0.513, epochs=7, batch_size=128, seed=77)
        annotations.annotate(run, tags=["wide"], notes="as wide as it goes", actor=factories.OPERATOR)
        client.force_login(viewer)
        page = client.get("/runs/?ordering=loss&line=nothing").content.decode()
        for shown in ("0.9876", "51.3", "77", "batch size 128", "as wide as it goes", "?tag=wide"):
            assert shown in page, shown


def test_a_worker_stores_the_figures_of_the_best_epoch() -> None:
    run = factories.run(factories.market(), epochs=3)
    worker.train(run.pk, worker_name="w1", device="cpu")
    run.refresh_from_db()
    best = Epoch.objects.filter(run=run, is_best=True).latest("number")
    assert run.best_validation_loss == best.validation_loss
    assert run.best_validation_accuracy == best.validation_accuracy


class TestComparing:
    def test_names_only_what_differs(self, dataset: Dataset) -> None:
        one, other = factories.run(dataset, batch_size=64), factories.run(dataset, batch_size=256, seed=2)
        compared = run_comparison.compare([other.pk, one.pk])
        assert [run.pk for run in compared.runs] == [other.pk, one.pk]
        assert {row.name: row.values for row in compared.differences} == {
            "seed": [2, 1],
            "batch_size": [256, 64],
        }
        assert compared.is_of_one_stop_window and compared.is_of_one_loss

    def test_says_whether_the_figures_can_be_compared(self, dataset: Dataset) -> None:
        plain = factories.run(dataset)
        smooth, far = factories.run(dataset, label_smoothing=0.3), factories.run(dataset, horizon=12)
        compared = run_comparison.compare([plain.pk, smooth.pk])
        assert compared.is_of_one_stop_window and not compared.is_of_one_loss
        assert not run_comparison.compare([plain.pk, far.pk]).is_of_one_stop_window

    @pytest.mark.parametrize("count", [0, 1, 9])
    def test_takes_two_to_eight(self, dataset: Dataset, count: int) -> None:
        keys = [factories.run(dataset).pk for _ in range(count)]
        with pytest.raises(InvalidInput, match="2 to 8"):
            run_comparison.compare(keys)

    def test_refuses_an_unknown_one(self, dataset: Dataset) -> None:
        run = factories.run(dataset)
        with pytest.raises(NotFound, match="4711"):
            run_comparison.compare([run.pk, 4711])

    def test_draws_one_curve_of_each_run(self, dataset: Dataset) -> None:
        made = [factories.run(dataset, seed=seed) for seed in (1, 2)]
        for number in (1, 2, 3):
            Epoch.objects.create(
                run=made[0], number=number, attempt=1, train_loss=1.0, validation_loss=1.1 - number / 10,
                validation_accuracy=0.4, seconds=1, rows_per_second=1, is_best=True,
            )  # fmt: skip
        figures = draw_compared_curves(run_comparison.compare([run.pk for run in made]).runs)
        assert [curve["y"] for curve in figures["loss"]["data"]] == [pytest.approx([1.0, 0.9, 0.8]), []]
        assert len({curve["line"]["color"] for curve in figures["accuracy"]["data"]}) == 2

    def test_page_shows_the_differences_or_what_to_choose(
        self, dataset: Dataset, viewer: Any, client: Client
    ) -> None:
        one, other = factories.run(dataset, batch_size=64), factories.run(dataset, batch_size=256)
        client.force_login(viewer)
        answer = client.get(f"/runs/compare/?run={one.pk}&run={other.pk}")
        assert answer.status_code == 200
        assert "Batch size" in answer.content.decode() and "Learning rate" not in answer.content.decode()
        charts = client.get(f"/runs/compare/charts/?run={one.pk}&run={other.pk}").json()
        assert charts == {"charts": {}, "is_moving": True}
        too_few = client.get(f"/runs/compare/?run={one.pk}&run=x")
        assert too_few.status_code == 400 and "2 to 8" in too_few.content.decode()


@pytest.mark.parametrize(
    ("documents", "names"),
    [
        ([{"a": 1, "b": 2}, {"a": 1, "b": 3}], ["b"]),
        ([{"a": 1}, {"a": 1}], []),
        ([{"a": 1}, {}], ["a"]),
        ([{}, {"c": None}], []),
    ],
)
def test_a_difference_is_what_is_not_the_same_everywhere(
    documents: list[dict[str, Any]], names: list[str]
) -> None:
    assert [row.name for row in find_differences(documents)] == names


class TestTheCommand:
    def said(self, *words: str) -> str:
        out = StringIO()
        call_command("runs", *words, stdout=out)
        return out.getvalue()

    def test_lists_as_the_page_and_the_api_do(self, dataset: Dataset) -> None:
        low, high = with_figures(dataset, 0.9, 0.5), with_figures(dataset, 1.1, 0.6, seed=8)
        annotations.annotate(high, tags=["wide"], actor=factories.OPERATOR)
        assert [row["id"] for row in json.loads(self.said("--ordering", "loss", "--json"))] == [
            low.pk,
            high.pk,
        ]
        assert [row["id"] for row in json.loads(self.said("--tag", "wide", "--json"))] == [high.pk]
        assert (
            f"run {high.pk}: BTC v7_fixed, queued; seed 8, loss 1.1000, accuracy 0.6000, #wide" in self.said()
        )
        assert "There is no such run." in self.said("--coin", "ETH")

    def test_writes_tags_and_notes_as_an_operator(self, dataset: Dataset, operator: User) -> None:
        run = factories.run(dataset)
        words = (
            "annotate",
            str(run.pk),
            "--tag",
            "wide, deep",
            "--notes",
            "a try",
            "--as",
            operator.username,
        )
        answer = json.loads(self.said(*words, "--json"))
        assert (sorted(answer["tags"]), answer["notes"]) == (["deep", "wide"], "a try")
        assert [event.actor for event in annotated()] == [operator.username]
        with pytest.raises(SystemExit):
            self.said("annotate", "--notes", "about none", "--as", operator.username)

    def test_compares(self, dataset: Dataset) -> None:
        one, other = factories.run(dataset, seed=4), factories.run(dataset, seed=5)
        assert "  seed: 4, 5" in self.said("compare", str(one.pk), str(other.pk))
        with pytest.raises(SystemExit):
            self.said("compare", str(one.pk))
