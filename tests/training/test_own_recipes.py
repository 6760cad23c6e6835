"""Own recipes from the launch to the bundle: what a run records, what bounds it, and what it says when it cannot run."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from common.errors import InvalidInput, Unavailable
from tests import factories
from tests.deploy.commands import run as run_command
from tests.installed_recipes import CONSTANT, install
from tests.long_tests import long_except
from training import worker
from training.jobs import installed_recipes
from training.models import Dataset, Line, TrainingRun
from training.rules import JobState, find_stop_reason
from training.services import lines, runs

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

FIT = CONSTANT.index("def fit")
FAILING = {
    "raises": ("def fit(rows): raise ValueError('no luck today')", "ValueError: no luck today"),
    "returns no file": ("def fit(rows): return 'a model'", "must return the bytes of an ONNX file"),
    "returns no graph": ("def fit(rows): return b'a model'", "neither a checkpoint"),
    "ends its process": ("def fit(rows): import os; os._exit(3)", "ended with status 3"),
    "asks for all memory": ("def fit(rows): return bytes(2**33)", "more memory than a recipe may take"),
    "writes the answer itself": (
        "def fit(rows):\n    import os\n    open('answer.json', 'w').write('{}')\n    os._exit(0)",
        "left no usable graph.onnx",
    ),
    "answers what is not finite": (
        CONSTANT[FIT:].replace("np.log(shares)", "np.nan * shares"),
        "not finite",
    ),
    "changes its own package": ("def fit(rows): open(__file__, 'a')", "PermissionError"),
    "writes too much": (
        "def fit(rows):\n    for n in range(40):\n        open(str(n), 'wb').write(bytes(2**25))",
        "wrote more than",
    ),
}


@pytest.fixture(autouse=True)
def recipes(settings: Any, tmp_path: Path) -> Iterator[Path]:
    """A folder with one recipe, which a line names."""
    settings.RECIPES_DIR = tmp_path / "recipes"
    install(settings.RECIPES_DIR)
    installed_recipes.forget()
    yield settings.RECIPES_DIR
    installed_recipes.forget()


@pytest.fixture
def dataset() -> Dataset:
    return factories.market()


def reinstall(folder: Path, source: str, **more: Any) -> None:
    install(folder, source, **more)
    installed_recipes.forget()


def line(**defaults: Any) -> Line:
    return lines.create_line(
        "own", recipe="constant", defaults=defaults, actor=factories.OPERATOR, reason="to try it"
    )


def queued(dataset: Dataset, **parameters: Any) -> TrainingRun:
    if not Line.objects.filter(name="own").exists():
        line()
    return runs.launch_run(
        coin=dataset.coin,
        dataset=dataset,
        line="own",
        parameters=parameters,
        seed=7,
        budget=runs.open_budget(),
        actor=factories.OPERATOR,
        is_sent=False,
    )


def train(run: TrainingRun) -> TrainingRun:
    worker.train(run.pk, worker_name="first@test", device="cpu")
    run.refresh_from_db()
    return run


def test_a_run_and_its_manifest_name_recipe_and_version(dataset: Dataset) -> None:
    line(tilt=1.0, horizon=4)
    run = train(queued(dataset, epochs=2))
    assert (run.state, run.failure) == (JobState.SUCCEEDED, "")
    assert (run.line, run.recipe, run.package) == ("own", "constant", "crpbot-recipe-constant==1.2.0")
    assert run.parameters == {"tilt": 1.0, "horizon": 4, "epochs": 2}
    assert run.bundle is not None
    manifest = json.loads(run.bundle.manifest)
    assert manifest["recipe"] == {"name": "constant", "package": "crpbot-recipe-constant==1.2.0"}
    assert (manifest["line"], manifest["seed"], manifest["labels"]["horizon"]) == ("own", 7, 4)
    assert manifest["parameters"]["settings"].items() >= {"tilt": 1.0, "epochs": 2}.items()
    (epoch,) = run.epoch_rows.all()
    assert epoch.validation_loss == manifest["training"]["validation"]["loss"]


@pytest.mark.long
def test_its_code_changes_neither_the_figures_nor_the_rows_they_are_of(
    dataset: Dataset, recipes: Path
) -> None:
    honest = train(queued(dataset))
    lies = """
    import sys
    from mlcore.importers import onnx_file
    import numpy as np
    for module in (sys.modules["__main__"], onnx_file):
        module._score = lambda *asked: (0.01, 0.99)
        module.try_bundle = lambda bundle: None
    np.save("stop_labels.npy", np.ones(len(rows.stop_labels), np.int64))
"""
    reinstall(recipes, CONSTANT.replace("    import numpy as np\n", lies, 1))
    (told,) = train(queued(dataset)).epoch_rows.all()
    (epoch,) = honest.epoch_rows.all()
    figures = ("train_loss", "validation_loss", "validation_accuracy")
    assert [getattr(told, name) for name in figures] == [getattr(epoch, name) for name in figures]


def test_a_recipe_takes_windows_where_it_names_one(dataset: Dataset) -> None:
    run = train(queued(dataset, input="window20"))
    assert run.state == JobState.SUCCEEDED, run.failure
    assert run.bundle is not None and '"window20"' in run.bundle.manifest
    with pytest.raises(InvalidInput, match="takes relative72, window16"):
        queued(dataset, input="raw72")


def test_it_sees_no_row_of_the_gate_window_and_no_secret(
    dataset: Dataset, recipes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRPBOT_S3_SECRET_KEY", "hush")
    seen = "print(sorted(os.listdir('.')), sorted(os.environ), len(rows.labels), len(rows.stop_labels))"
    reinstall(
        recipes, f"INPUTS = ('relative72',)\nimport os, sys\ndef fit(rows):\n    {seen}\n    sys.exit(4)"
    )
    run = train(queued(dataset))
    assert "CRPBOT" not in run.failure and "hush" not in run.failure
    files = "answer|class_weights|features|labels|mean|request|scale|stop_features|stop_labels"
    for name in files.split("|")[1:]:
        assert f"'{name}.npy'" in run.failure or f"'{name}.json'" in run.failure
    assert run.failure.count(".npy'") == 7
    assert str(os.environ["PATH"]) not in run.failure


@pytest.mark.parametrize(
    "name", long_except(FAILING, lambda name: name in ("raises", "ends its process", "asks for all memory"))
)
def test_a_recipe_that_fails_ends_its_run_with_the_reason(name: str, dataset: Dataset, recipes: Path) -> None:
    source, why = FAILING[name]
    run = queued(dataset)
    reinstall(recipes, CONSTANT[:FIT] + source)
    assert (train(run).state, run.bundle) == (JobState.FAILED, None)
    assert why in run.failure


@pytest.mark.long
def test_a_recipe_without_end_is_stopped_at_the_limit_of_its_launch(
    dataset: Dataset, recipes: Path, settings: Any
) -> None:
    settings.RELEASE_TIME_LIMIT_SECONDS = 6
    reinstall(recipes, CONSTANT[:FIT] + "def fit(rows):\n    while True: pass")
    run = train(queued(dataset))
    assert run.state == JobState.FAILED and "time limit" in run.failure
    assert run.billed_seconds < 8


def test_a_cancelled_run_stops_its_recipe(
    dataset: Dataset, recipes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = queued(dataset)
    reinstall(recipes, CONSTANT[:FIT] + "def fit(rows):\n    while True: pass")
    monkeypatch.setattr(worker, "find_stop_reason", _cancel_later(find_stop_reason))
    assert train(run).state == JobState.CANCELLED


def _cancel_later(find: Any) -> Any:
    """The second look finds that somebody asked to cancel; the sandbox runs by then."""
    looks = iter([False, False])

    def look(**facts: Any) -> Any:
        return find(**{**facts, "is_cancelled": next(looks, True)})

    return look


@pytest.mark.parametrize("here", ["nothing", "another version"])
def test_a_worker_that_lacks_the_recipe_says_what_to_install(
    here: str, dataset: Dataset, recipes: Path, settings: Any, tmp_path: Path
) -> None:
    run = queued(dataset)
    settings.RECIPES_DIR = tmp_path / "of the worker"
    if here == "another version":
        install(settings.RECIPES_DIR, version="1.1.0")
    installed_recipes.forget()
    assert train(run).state == JobState.FAILED
    assert "Install crpbot-recipe-constant==1.2.0 in the folder CRPBOT_RECIPES_DIR" in run.failure
    assert ("it has crpbot-recipe-constant==1.1.0" in run.failure) == (here == "another version")


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import nothing_there", "cannot be loaded: ModuleNotFoundError"),
        ("INPUTS = ('relative72',)", "no function fit"),
        ("INPUTS = ()\ndef fit(rows): pass", "INPUTS is empty"),
        ("PARAMETERS = {'seed': {}}\nINPUTS = ('raw72',)\ndef fit(rows): pass", "cannot be called 'seed'"),
        ("raise SystemExit(3)", "cannot be loaded: its process ended with status 3"),
        (
            "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
            "cannot be loaded: The process of a recipe was killed",
        ),
    ],
    ids=["no import", "no fit", "no input", "a taken name", "no answer", "killed"],
)
def test_a_recipe_that_cannot_be_described_makes_no_line(source: str, why: str, recipes: Path) -> None:
    reinstall(recipes, source)
    with pytest.raises(Exception, match=why):
        line()
    assert Line.objects.count() == 4


def test_a_recipe_that_ends_its_process_hides_no_other(recipes: Path) -> None:
    install(recipes, "import os\nos._exit(3)", name="broken")
    installed_recipes.forget()
    assert line().recipe == "constant"
    with pytest.raises(InvalidInput, match=r"The recipe broken of .* its process ended with status 3"):
        installed_recipes.find_recipe("broken")


def test_a_recipe_that_was_killed_is_described_again_later(
    recipes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory may have been short for a moment; the process that asked may run for months."""
    installed_recipes.forget()
    asked, describe = [], installed_recipes._describe

    def kill(*arguments: str) -> dict[str, Any]:
        asked.append(arguments)
        raise Unavailable("it was killed")

    with monkeypatch.context() as patch:
        patch.setattr(installed_recipes, "_describe", kill)
        for _ in range(2):
            with pytest.raises(InvalidInput, match="it was killed"):
                installed_recipes.find_recipe("constant")
        assert len(asked) == 2, "together and alone, and then not again at once"
    assert installed_recipes._describe is describe
    monkeypatch.setattr(installed_recipes, "RETRY_SECONDS", 0.0)
    assert installed_recipes.find_recipe("constant") is not None


def test_a_recipe_of_two_packages_is_refused(recipes: Path) -> None:
    facts = recipes / "other-3.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 3\n")
    (facts / "entry_points.txt").write_text("[crpbot.recipes]\nconstant = other\n")
    installed_recipes.forget()
    with pytest.raises(InvalidInput, match=r"in .* and in .*: uninstall all but one"):
        line()


def test_the_service_itself_imports_nothing_of_a_package(recipes: Path, tmp_path: Path) -> None:
    told = tmp_path / "imported"
    reinstall(recipes, f"open({str(told)!r}, 'w')\n" + CONSTANT)
    with pytest.raises(InvalidInput, match="cannot be loaded: PermissionError"):
        line()
    assert not told.exists()


class TestWhereItIsLaunched:
    def test_the_form_shows_its_parameters_with_bounds(self, client: Client) -> None:
        line(tilt=1.5)
        client.force_login(factories.person("olivia", "operator"))
        page = client.get("/launch/", {"line": "own"}).content.decode()
        assert "constant of crpbot-recipe-constant==1.2.0" in page
        assert 'name="tilt" value="1.5"' in page and 'max="2.0"' in page and 'name="epochs"' in page
        assert 'name="hidden_widths"' not in page
        assert 'value="constant"' in client.get("/lines/").content.decode()

    def test_recipes_are_listed_with_their_settings_and_what_is_wrong(
        self, client: Client, recipes: Path
    ) -> None:
        install(recipes, "import nothing_there", name="broken")
        installed_recipes.forget()
        user = factories.person("olivia", "operator")
        token = {"Authorization": f"Bearer {factories.token(user, 'operator')}"}
        found = {row["name"]: row for row in client.get("/api/v1/recipes/", headers=token).json()["recipes"]}
        assert list(found) == ["v5", "v6_enhanced", "v7_fixed", "flat", "broken", "constant"]
        assert found["constant"]["package"] == "crpbot-recipe-constant==1.2.0"
        settings = {setting.pop("name"): setting for setting in found["constant"]["settings"]}
        tilt = {"default": 0.5, "least": 0.0, "greatest": 2.0, "is_whole": False, "words": []}
        assert settings["tilt"] == {**tilt, "meaning": "what is added to one class"}
        assert settings["label"]["words"] == ["terciles", "percent", "barriers"]
        assert "No module named 'nothing_there'" in found["broken"]["problem"]
        status, out = run_command("lines", "recipes")
        assert status == 0 and "crpbot-recipe-constant==1.2.0; epochs 3, tilt 0.5" in out
        client.force_login(user)
        page = client.get("/lines/", {"recipe_name": "broken"}).content.decode()
        assert page.count("No module named") == 2 and "cannot be used" in page and "epochs, tilt" in page

    def test_one_that_is_gone_leaves_the_other_lines_in_peace(self, client: Client, settings: Any) -> None:
        line()
        settings.RECIPES_DIR = "/nowhere"
        installed_recipes.forget()
        client.force_login(factories.person("olivia", "operator"))
        assert (
            client.get("/launch/").status_code == client.get("/launch/", {"line": "own"}).status_code == 200
        )
        assert "cannot be used here" in client.get("/launch/", {"line": "own"}).content.decode()
        with pytest.raises(InvalidInput, match=r"no recipe 'constant' here.*install the package"):
            lines.build_recipe(lines.find_line("own"), {})

    def test_the_api_takes_its_parameters_by_name(self, client: Client, dataset: Dataset) -> None:
        line()
        token = factories.token(factories.person("olivia", "operator"), "operator")

        def relaunch(body: dict[str, Any]) -> Any:
            run = queued(dataset)
            TrainingRun.objects.filter(pk=run.pk).update(state=JobState.FAILED)
            return client.post(
                f"/api/v1/runs/{run.pk}/relaunch/",
                body,
                content_type="application/json",
                headers={"Authorization": f"Bearer {token}"},
            )

        answer = relaunch({"epochs": 5, "seed": 3, "parameters": {"tilt": 0.25}})
        assert answer.status_code == 201, answer.json()
        assert answer.json()["parameters"] == {"epochs": 5, "tilt": 0.25}
        assert (answer.json()["package"], answer.json()["seed"]) == ("crpbot-recipe-constant==1.2.0", 3)
        for parameters, why in (
            ({"tilt": 9}, "tilt: 9 is out of bounds"),
            ({"lean": 1}, "own has no setting 'lean'"),
            ({"tilt": True}, "Give a number or a word"),
            ({"epochs": 4}, "epochs is given twice"),
        ):
            refused = relaunch({"epochs": 5, "parameters": parameters})
            assert refused.status_code == 400 and why in refused.content.decode()

    def test_the_command_takes_them_too(self, dataset: Dataset) -> None:
        line()
        factories.person("olivia", "operator")
        said = ["--coin", "BTC", "--line", "own", "--as", "olivia", "--device", "cpu", "--json"]
        status, out = run_command("train", *said, "--parameter", "tilt=0.25")
        assert status == 0 and '"tilt": 0.25' in out
        for word, why in (("tilt=much", "say NAME=VALUE with a number"), ("tilt=9", "out of bounds")):
            status, out = run_command("train", *said, "--parameter", word)
            assert status == 1 and why in out
