"""Imported models: a file from outside becomes a bundle, read in a sandbox."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import polars as pl
import pytest
from django.core.management import call_command
from onnx import helper

from accounts.roles import Actor
from audit.models import AuditEvent
from audit.services import verify
from common.errors import InvalidInput, NotAllowed
from gates.services import measuring
from mlcore.bundle.predictor import Predictor
from mlcore.data import candles, simulate
from mlcore.features import examples, indicators
from tests import factories, model_files
from tests.long_tests import long_except
from tests.model_files import COLUMNS, LAYOUTS, LINEAR, linear_tensors, logits, network, onnx_file, saved
from training import artifact_store
from training.models import Artifact, Bundle, Coin, Dataset
from training.services import coins, datasets, imported_models

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

SYSTEM = Actor("the tests", is_system=True)
SAID: dict[str, Any] = {"name": "BTC.pt", "line": "v6_enhanced", "schema": "raw72", "layout": LAYOUTS[0]}


@pytest.fixture
def btc() -> Coin:
    return coins.find_coin("BTC")


@pytest.fixture(scope="module", params=long_except(["real", "simulated"], lambda kind: kind == "real"))
def market(request: pytest.FixtureRequest) -> Iterator[tuple[pl.DataFrame, bool]]:
    """Candles, and whether they are simulated."""
    if request.param == "simulated":
        yield simulate.simulate("BTC", 9_000, 1.2, 3), True
        return
    folder = os.environ.get("CRPBOT_CANDLES_DIR")
    if not folder:
        pytest.skip("CRPBOT_CANDLES_DIR is not set: this test needs the real candles (BTC.csv.gz)")
    yield candles.read(Path(folder) / "BTC.csv.gz").tail(12_000), False


@pytest.fixture(scope="module")
def linear() -> bytes:
    """An ONNX file of one layer."""
    return onnx_file([LINEAR], linear_tensors())


def import_(coin: Coin, data: bytes, **said: Any) -> imported_models.ImportedModel:
    return imported_models.import_model(coin, data, **{**SAID, "actor": factories.OPERATOR, **said})


def predictor(bundle: Bundle, folder: Path) -> Predictor:
    return Predictor(factories.bundle_folder(bundle, folder))


def gates_of(bundle: Bundle, dataset: Dataset) -> dict[str, str]:
    diagnosis = measuring.diagnose_here(bundle, dataset, actor=SYSTEM, worker_name="gates@test")
    return {result.gate: str(result.verdict) for result in diagnosis.results.all()}


def dataset_of(coin: Coin, frame: pl.DataFrame, is_simulated: bool) -> Dataset:
    text = frame.with_columns(pl.col("timestamp").dt.epoch("ms")).write_csv().encode()
    kept = datasets.import_candles(
        coin, text, name="candles.csv", actor=factories.OPERATOR, simulated=is_simulated
    )
    return kept.dataset


def is_close(found: np.ndarray, wanted: np.ndarray) -> bool:
    """By 1e-5, of the logit where that is large."""
    return bool(np.allclose(found, wanted, atol=1e-5, rtol=1e-5))


class TestOnCandles:
    """The whole way: made by torch, imported, measured by the service's own process, judged by the policy in force."""

    def test_a_full_checkpoint_answers_as_torch_does_and_is_judged(
        self, btc: Coin, market: tuple[pl.DataFrame, bool], tmp_path: Path
    ) -> None:
        from sklearn.preprocessing import StandardScaler

        frame, is_simulated = market
        rows = examples.build_examples(frame, indicators.SCHEMAS["raw72"]).features
        fitted = StandardScaler().fit(rows)
        made: Any = network("bn-before-relu", fitted.transform(rows)[:2000])
        alphabetical = sorted(COLUMNS)
        places = [COLUMNS.index(name) for name in alphabetical]
        state = made.state_dict()
        state["fc1.weight"] = state["fc1.weight"][:, places]
        held = {
            "model_state_dict": {f"module.{name}": tensor for name, tensor in state.items()},
            "feature_columns": alphabetical,
            "scaler_params": {"mean": fitted.mean_[places], "scale": fitted.scale_[places]},
            "temperature": 1.7,
        }
        data = model_files.saved_on_a_gpu(held)
        bundle = import_(btc, data, layout="bn-before-relu", simulated=is_simulated).bundle
        found = predictor(bundle, tmp_path / "bundle").logits(rows[-500:])
        assert is_close(found, logits(made, fitted.transform(rows[-500:])) / 1.7)
        verdicts = gates_of(bundle, dataset_of(btc, frame, is_simulated))
        assert {verdicts[gate] for gate in ("bundle", "scaler", "finite_weights", "single_sample")} == {
            "passed"
        }
        assert verdicts["accuracy"] in ("failed", "inconclusive")

    @pytest.mark.long
    def test_a_bare_state_dict_answers_as_torch_does_and_its_scaler_gate_fails(
        self, btc: Coin, market: tuple[pl.DataFrame, bool], tmp_path: Path
    ) -> None:
        frame, is_simulated = market
        rows = examples.build_examples(frame, indicators.SCHEMAS["raw72"]).features
        made = network(LAYOUTS[0], rows[:2000])
        imported = import_(btc, saved(made.state_dict()), simulated=is_simulated)
        assert any("no scaler" in note for note in imported.notes)
        assert sorted(imported.bundle.artifacts.values_list("name", flat=True)) == [
            "manifest.json",
            "model.onnx",
            "weights.safetensors",
        ]
        found = predictor(imported.bundle, tmp_path / "bundle").logits(rows[-500:])
        assert is_close(found, logits(made, rows[-500:]))
        verdicts = gates_of(imported.bundle, dataset_of(btc, frame, is_simulated))
        assert verdicts["bundle"] == "passed"
        assert verdicts["scaler"] == "failed"


class TestWhatIsKept:
    """Of an ONNX file: reading one takes a fifth of the time that importing torch takes."""

    def test_a_row_its_files_and_an_event(self, btc: Coin, linear: bytes) -> None:
        imported = import_(btc, linear, name="/home/somebody/v6/BTC.onnx", layout=None)
        bundle = Bundle.objects.get()
        assert imported.is_new and imported.bundle == bundle
        assert (bundle.coin, bundle.line, bundle.dataset, bundle.is_simulated) == (
            btc,
            "v6_enhanced",
            None,
            False,
        )
        assert bundle.origin.startswith("imported from BTC.onnx sha256:")
        assert {"manifest.json", "model.onnx"} <= set(bundle.artifacts.values_list("name", flat=True))
        assert all(
            artifact_store.is_intact(artifact.sha256, artifact.size) for artifact in Artifact.objects.all()
        )
        event = AuditEvent.objects.get(kind="bundle.imported")
        detail = json.loads(event.body)["detail"]
        assert (event.actor, detail["digest"], detail["schema"]) == ("olivia", bundle.digest, "raw72")
        assert verify() == []

    def test_the_same_file_again_is_the_same_bundle_and_said_otherwise_another(
        self, btc: Coin, linear: bytes
    ) -> None:
        first, again = (import_(btc, linear, name=name, layout=None) for name in ("BTC.onnx", "copy.onnx"))
        assert again.bundle == first.bundle
        assert not again.is_new
        assert AuditEvent.objects.filter(kind="bundle.imported").count() == 1
        assert import_(btc, linear, layout=None, schema="relative72").bundle != first.bundle


def refused(coin: Coin, data: bytes, store: Path, **said: Any) -> str:
    """How it was refused; and nothing of it was kept but the event."""
    with pytest.raises(InvalidInput) as refusal:
        import_(coin, data, **said)
    assert not Bundle.objects.exists()
    assert [path for path in store.rglob("*") if path.is_file()] == []
    event = AuditEvent.objects.get(kind="bundle.import.refused")
    assert refusal.value.message in event.body.encode().decode("unicode_escape")
    return refusal.value.message


HOSTILE = [
    "os.system beside a sound state dict",
    "a tensor that claims a trillion rows",
    "ONNX with its weights elsewhere",
    "plain text",
]


class TestWhatIsRefused:
    @pytest.mark.parametrize("kind", HOSTILE)
    def test_a_hostile_file_runs_nothing_and_leaves_nothing(
        self, btc: Coin, store: Path, tmp_path: Path, kind: str
    ) -> None:
        canary = tmp_path / "canary"
        make, says = model_files.hostile(canary)[kind]
        data = make()
        message = refused(btc, data, store, layout=LAYOUTS[0] if data.startswith(b"PK") else None)
        assert says in message
        assert message.startswith("BTC.pt: ")
        assert not canary.exists()

    def test_a_graph_that_asks_for_all_memory(self, btc: Coin, store: Path) -> None:
        """Each step squares what it holds: (7 · 72)², then (7 · 72)⁴ numbers."""
        tensors = {**linear_tensors(), "down": np.array([-1, 1]), "across": np.array([1, -1])}
        nodes, held = [LINEAR], "x"
        for step in (1, 2):
            column, row, product = f"c{step}", f"r{step}", f"p{step}"
            nodes += [
                helper.make_node("Reshape", [held, "down"], [column]),
                helper.make_node("Reshape", [held, "across"], [row]),
                helper.make_node("MatMul", [column, row], [product]),
            ]
            held = product
        nodes += [
            helper.make_node("ReduceMean", [held], ["mean"], keepdims=0),
            helper.make_node("Add", ["y", "mean"], ["z"]),
        ]
        data = onnx_file(nodes, tensors, target="z")
        onnx.load_model_from_string(data)
        assert "model.onnx fails on" in refused(btc, data, store, layout=None)

    def test_a_graph_that_never_ends(self, btc: Coin, store: Path, settings: Any) -> None:
        settings.IMPORT_TIME_LIMIT_SECONDS = 4  # to be read takes one
        rng = np.random.default_rng(0)
        tensors = {**linear_tensors(), "wide": rng.normal(size=(72, 20_000)).astype(np.float32)}
        nodes, held = [LINEAR, helper.make_node("Transpose", ["wide"], ["tall"], perm=[1, 0])], "x"
        for step in range(200):
            nodes.append(helper.make_node("MatMul", [held if step else "tall", "wide"], [f"s{step}"]))
            nodes.append(helper.make_node("MatMul", [f"s{step}", "tall"], [held := f"h{step}"]))
        nodes += [
            helper.make_node("ReduceMean", [held], ["mean"], keepdims=0),
            helper.make_node("Add", ["y", "mean"], ["z"]),
        ]
        message = refused(btc, onnx_file(nodes, tensors, target="z"), store, layout=None)
        assert "stopped" in message or "killed by SIGXCPU" in message

    def test_an_empty_file_and_one_too_large_are_not_even_read(
        self, btc: Coin, store: Path, settings: Any
    ) -> None:
        assert refused(btc, b"", store) == "BTC.pt is empty."
        settings.IMPORTED_MODEL_UPLOAD_LIMIT_BYTES = 1000
        with pytest.raises(InvalidInput, match="more than 1,000 bytes"):
            import_(btc, bytes(1001))

    def test_what_nobody_said(self, btc: Coin, store: Path) -> None:
        message = refused(btc, saved(network().state_dict()), store, schema=None)
        assert "Say the schema" in message

    def test_a_model_from_outside_that_claims_to_be_flat(self, btc: Coin, store: Path) -> None:
        assert "flat is not imported" in refused(btc, saved(network().state_dict()), store, line="flat")

    def test_a_line_there_is_not(self, btc: Coin, store: Path) -> None:
        assert "v7_fixed" in refused(btc, saved(network().state_dict()), store, line="v99")

    def test_a_viewers_file(self, btc: Coin) -> None:
        with pytest.raises(NotAllowed, match="operator"):
            import_(btc, saved(network().state_dict()), actor=factories.VIEWER)
        assert AuditEvent.objects.filter(kind="bundle.import.refused", actor="victor").exists()


class TestTheCommand:
    @pytest.fixture(autouse=True)
    def _olivia(self, operator: Any) -> None:
        """She acts."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "BTC.pt"
        path.write_bytes(saved({"model_state_dict": network().state_dict(), "epoch": 9}))
        return path

    def say(self, path: Path, *words: str) -> None:
        call_command(
            "import_model", str(path), "--coin", "btc", "--line", "v6_enhanced", *words, "--as", "olivia"
        )

    def test_says_what_it_made_and_what_the_file_did_not_say(
        self, path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.say(path, "--schema", "raw72", "--layout", LAYOUTS[0])
        said = capsys.readouterr().out
        assert "Bundle of BTC v6_enhanced, without a scaler; imported from BTC.pt sha256:" in said
        assert Bundle.objects.get().digest in said
        assert "no features" in said and "'epoch'" in said

    def test_asks_for_the_layout(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            self.say(path, "--schema", "raw72")
        assert "Say the layout: relu-before-bn or bn-before-relu" in capsys.readouterr().err

    @pytest.mark.parametrize("kind", ["a link", "a pipe", "a folder", "nothing"])
    def test_takes_a_plain_file_only(
        self, path: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        odd = tmp_path / "odd"
        if kind == "a link":
            odd.symlink_to(path)
        elif kind == "a pipe":
            os.mkfifo(odd)
        elif kind == "a folder":
            odd.mkdir()
        with pytest.raises(SystemExit):
            self.say(odd, "--schema", "raw72", "--layout", LAYOUTS[0])
        told = {
            "a link": "is a link",
            "a pipe": "is not a file",
            "a folder": "odd",
            "nothing": "cannot be read",
        }
        assert told[kind] in capsys.readouterr().err
        assert not Bundle.objects.exists()


def test_the_sandbox_starts_no_program_and_opens_no_connection() -> None:
    """The hook cannot be taken out again, and so is tried in a process of its own."""
    program = """
import os, socket, sys
from mlcore.importers import convert
sys.addaudithook(convert._forbid_programs)
for attempt in (lambda: os.system("true"), os.fork, socket.socket, lambda: os.execv("/bin/true", ["true"])):
    try:
        attempt()
    except PermissionError as error:
        print(error)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.count("is forbidden while a model is imported") == 4
