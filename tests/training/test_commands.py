"""The same on a terminal: text for a person, one JSON document for a program, exit status 1 for a refusal."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from django.core.management import CommandError, call_command

from tests import factories, hostile_candles, market_candles
from training.jobs import leases
from training.models import Dataset, TrainingRun
from training.rules import JobState

Command = Callable[..., Any]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command as olivia; answers what it prints, and how it was refused where it was."""

    def run(*words: str, acting_as: str = "olivia") -> str:
        call_command(*words, "--as", acting_as)
        return capsys.readouterr().out

    return run


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*words: str, acting_as: str = "olivia") -> str:
        with pytest.raises(SystemExit) as ended:
            call_command(*words, "--as", acting_as)
        assert ended.value.code == 1
        printed = capsys.readouterr()
        return printed.out + printed.err

    return run


@pytest.fixture
def export(capsys: pytest.CaptureFixture[str]) -> Command:
    """It reads, so it takes no actor."""

    def run(*words: str) -> str:
        call_command("export_candles", *words)
        return capsys.readouterr().out

    return run


@pytest.fixture
def candles(tmp_path: Path) -> Path:
    path = tmp_path / "BTC.csv"
    frame = market_candles.generate(1200)
    times = pl.col("timestamp").dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    path.write_bytes(frame.with_columns(times).write_csv().encode())
    return path


@pytest.mark.usefixtures("operator", "viewer")
@pytest.mark.django_db
class TestImporting:
    def test_prints_what_came_in(self, say: Command, candles: Path) -> None:
        printed = say("import_candles", "btc", str(candles))
        assert "1,200 bars of BTC from 2020-09-10T00:00:00Z" in printed
        assert "passed" in printed
        assert Dataset.objects.get().added_by == "olivia"

    def test_answers_a_program(self, say: Command, candles: Path) -> None:
        document = json.loads(say("import_candles", "BTC", str(candles), "--json"))
        assert (document["coin"], document["rows"], document["is_simulated"]) == ("BTC", 1200, False)
        assert document["digest"] == Dataset.objects.get().digest

    def test_a_check_says_what_would_be_stored_and_stores_nothing(self, say: Command, candles: Path) -> None:
        lines = candles.read_text().splitlines()
        candles.write_text("\n".join([lines[0], *reversed(lines[1:])]))
        printed = say("import_candles", "BTC", str(candles), "--check")
        assert "Checked only, nothing was stored: 1,200 bars of BTC" in printed
        assert "sorted: the newest row was first" in printed and "passed" in printed
        assert not Dataset.objects.exists()
        stored = say("import_candles", "BTC", str(candles))
        assert "sorted: the newest row was first" in stored
        assert "these candles are dataset" in say("import_candles", "BTC", str(candles), "--check")

    def test_says_of_known_candles_that_they_are_known(self, say: Command, candles: Path) -> None:
        known = "These candles were stored before, and nothing was added."
        for command in (["import_candles", "BTC", str(candles)], ["simulate_candles", "--coin", "ETH"]):
            arguments = [*command, *(["--bars", "1200"] if "--coin" in command else [])]
            first, again = say(*arguments), say(*arguments)
            assert known not in first and again == f"{known}\n{first}"
        assert json.loads(say("import_candles", "BTC", str(candles), "--json"))["is_new"] is False

    @pytest.mark.parametrize("path", ["/dev/zero", "/tmp"])
    def test_a_device_or_folder_is_not_read(self, path: str, refusal: Command) -> None:
        assert f"{path} is not a file" in refusal("import_candles", "BTC", path)

    def test_a_file_over_the_limit_is_refused_unread(
        self, refusal: Command, candles: Path, settings: Any
    ) -> None:
        settings.DATASET_UPLOAD_LIMIT_BYTES = 1000
        candles.chmod(0)
        assert "the limit is 1,000" in refusal("import_candles", "BTC", str(candles))

    @pytest.mark.parametrize("suffix", ["csv", "parquet"])
    def test_exported_candles_imported_again_are_the_same_dataset(
        self, suffix: str, say: Command, export: Command, candles: Path
    ) -> None:
        say("import_candles", "BTC", str(candles))
        dataset = Dataset.objects.get()
        path = candles.with_name(f"again.{suffix}")
        assert dataset.digest in export(str(dataset.pk), str(path))
        assert json.loads(say("import_candles", "BTC", str(path), "--json"))["id"] == dataset.pk
        assert Dataset.objects.count() == 1

    def test_an_export_never_overwrites_a_file(self, candles: Path, capsys: Any) -> None:
        dataset = factories.market(bars=300)
        for path, said in (
            (candles, "File exists"),
            (candles.with_suffix(".xlsx"), "must end with .csv or .parquet"),
        ):
            with pytest.raises(SystemExit):
                call_command("export_candles", str(dataset.pk), str(path))
            assert said in capsys.readouterr().err

    def test_refuses_a_file_that_is_not_there(self, refusal: Command, tmp_path: Path) -> None:
        assert "No such file" in refusal("import_candles", "BTC", str(tmp_path / "none.csv"))

    def test_refuses_a_malformed_file_with_row_and_reason(self, refusal: Command, candles: Path) -> None:
        candles.write_bytes(factories.candle_csv(low="0"))
        document = json.loads(refusal("import_candles", "BTC", str(candles), "--json"))
        assert document["status"] == 400
        assert "row 2" in document["detail"]

    def test_refuses_a_file_that_ends_its_reader(self, refusal: Command, candles: Path) -> None:
        candles.write_bytes(hostile_candles.nested_parquet())
        assert "killed by SIG" in refusal("import_candles", "BTC", str(candles))
        assert not Dataset.objects.exists()

    def test_refuses_an_unknown_coin(self, refusal: Command, candles: Path) -> None:
        assert "no coin 'DOGE'" in refusal("import_candles", "DOGE", str(candles))

    def test_refuses_a_viewer(self, refusal: Command, candles: Path) -> None:
        assert "operator role" in refusal("import_candles", "BTC", str(candles), acting_as="victor")
        assert not Dataset.objects.exists()

    def test_asks_who_decides(self, candles: Path, capsys: Any, monkeypatch: Any) -> None:
        monkeypatch.delenv("CRPBOT_TOKEN", raising=False)
        with pytest.raises(SystemExit):
            call_command("import_candles", "BTC", str(candles))
        assert "CRPBOT_TOKEN" in capsys.readouterr().err

    def test_a_simulated_market_says_so(self, say: Command) -> None:
        printed = say("simulate_candles", "--coin", "ETH", "--bars", "300", "--drift", "0", "--seed", "4")
        assert "300 bars of ETH" in printed
        assert "simulated" in printed

    def test_fetching_needs_a_beginning(self, say: Command) -> None:
        with pytest.raises(CommandError, match="--since"):
            say("fetch_candles", "BTC")

    def test_fetching_refuses_an_unknown_exchange(self, refusal: Command) -> None:
        printed = refusal("fetch_candles", "BTC", "--exchange", "goxmt", "--since", "2020-09-20")
        assert "goxmt" in printed


@pytest.mark.usefixtures("committed", "operator", "viewer")
class TestTraining:
    def test_here_and_now_shows_each_epoch_and_ends_with_a_bundle(self, say: Command) -> None:
        factories.market()
        printed = say("train", "--coin", "BTC", "--epochs", "2", "--batch-size", "256", "--device", "cpu")
        assert "epoch 1/2" in printed
        assert "epoch 2/2" in printed
        run = TrainingRun.objects.get()
        assert run.state == JobState.SUCCEEDED
        assert run.launched_by == "olivia"
        assert run.bundle is not None
        assert run.bundle.digest in printed

    def test_repeats_a_failed_run_with_its_data_seed_and_parameters(self, say: Command) -> None:
        like = leases.claim(TrainingRun, factories.run(factories.market(), seed=8).pk, worker_name="w")
        assert like is not None
        leases.finish(like, JobState.FAILED, failure="for the test")
        factories.market(seed=99)
        document = json.loads(say("train", "--like-run", str(like.pk), "--device", "cpu", "--json"))
        again = TrainingRun.objects.get(pk=document["id"])
        assert again.pk != like.pk
        assert (again.dataset, again.seed, again.parameters) == (like.dataset, 8, like.parameters)
        assert document["state"] == "succeeded"
        assert document["epochs_done"] == 2
        assert document["device"] == "CPU"

    def test_that_fails_exits_with_a_failure_and_says_why(self, refusal: Command) -> None:
        factories.market(bars=1000)
        printed = refusal("train", "--coin", "BTC", "--epochs", "2", "--device", "cpu")
        dataset = Dataset.objects.get()
        assert f"v7_fixed of BTC on dataset {dataset.pk}: 1,000 simulated bars of 1 hour" in printed
        assert "failed: " in printed
        assert "usable rows" in printed

    def test_a_coin_without_candles_is_refused(self, refusal: Command) -> None:
        assert "SOL has no candles yet" in refusal("train", "--coin", "SOL")

    def test_an_unknown_run_is_refused(self, refusal: Command) -> None:
        assert "no run 4711" in refusal("train", "--like-run", "4711")

    def test_a_run_of_another_coin_is_not_repeated_and_nothing_is_launched(self, refusal: Command) -> None:
        like = factories.run(factories.market())
        factories.market("ETH")
        assert "is not a run of ETH" in refusal("train", "--coin", "ETH", "--like-run", str(like.pk))
        assert "Name a coin" in refusal("train", "--device", "cpu")
        assert TrainingRun.objects.get() == like

    def test_parameters_out_of_bounds_are_refused_and_nothing_is_launched(self, refusal: Command) -> None:
        factories.market(bars=1100)
        assert "epochs" in refusal("train", "--coin", "BTC", "--epochs", "500")
        assert not TrainingRun.objects.exists()

    def test_a_viewer_is_refused(self, refusal: Command) -> None:
        factories.market(bars=1100)
        assert "operator" in refusal("train", "--coin", "BTC", acting_as="victor")
        assert not TrainingRun.objects.exists()


@pytest.mark.django_db
class TestTheAdmin:
    """Training's records can be looked at and not be changed; a run's history is one click away."""

    @pytest.fixture
    def run(self) -> TrainingRun:
        run = factories.run(factories.market(bars=1100))
        run.epoch_rows.create(number=1, attempt=1, seconds=1, rows_per_second=9, is_best=True, train_loss=1)
        run.log.create(attempt=1, text="a line of its log")
        factories.bundle(run.dataset)
        return run

    @pytest.mark.parametrize("model", ["coin", "dataset", "trainingrun", "bundle", "worker"])
    def test_lists_and_adds_none(self, admin_client: Any, run: TrainingRun, model: str) -> None:
        assert admin_client.get(f"/admin/training/{model}/").status_code == 200
        assert admin_client.get(f"/admin/training/{model}/add/").status_code == 403

    def test_shows_a_run_with_epochs_log_and_history(self, admin_client: Any, run: TrainingRun) -> None:
        page = admin_client.get(f"/admin/training/trainingrun/{run.pk}/change/").content.decode()
        assert "a line of its log" in page
        assert f"object_type=trainingrun&amp;object_id={run.pk}" in page

    def test_refuses_a_change(self, admin_client: Any, run: TrainingRun) -> None:
        changed = admin_client.post(f"/admin/training/trainingrun/{run.pk}/change/", {"state": "succeeded"})
        assert changed.status_code == 403
        deleted = admin_client.post(f"/admin/training/trainingrun/{run.pk}/delete/", {"post": "yes"})
        assert deleted.status_code == 403
