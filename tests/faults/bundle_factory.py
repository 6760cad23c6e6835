"""Builds healthy bundles and broken copies of them, and judges both by every gate."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors.numpy import save

from gates.catalogue.gate import GateOutcome
from gates.evaluation import evaluate
from gates.policy import FULL_POLICY
from mlcore.bundle import onnx_graph
from mlcore.bundle.format import MODEL_FILE, SCALER_FILE, WEIGHTS_FILE, Bundle
from mlcore.bundle.predictor import Predictor
from mlcore.bundle.writer import encode_scaler, write_bundle, write_files
from mlcore.data import candles
from mlcore.evaluation.measure import measure
from mlcore.evaluation.provenance import compute_smoothed_loss
from mlcore.features import indicators
from mlcore.features.scaler import Scaler
from mlcore.fitting.fit import Trained, fit, prepare
from mlcore.fitting.prepared import Prepared
from mlcore.fitting.recipes import RECIPES, Recipe
from mlcore.verdict import Verdict
from tests.faults.candle_facts import REAL_CANDLES, CandleFacts, judge_candles
from tests.faults.formula_faults import Formulas, replace_formulas
from tests.faults.markets import generate_predictable

BARS = 12_000
NOISE = 0.1
"""A network trained on such a market for a second has an accuracy of about 0.8, well above the limit."""

RECIPE = RECIPES["v7_fixed"].with_parameters(epochs=8, patience=8, batch_size=128)
SEED = 0


@dataclass(frozen=True)
class Case:
    """The inputs of the gates for one coin of a release."""

    folder: Path
    digest: str
    """The digest that the service has stored, whatever the folder holds."""
    frame: pl.DataFrame
    """The candles it is measured on."""
    baseline: Path
    """The fallback's bundle of the coin."""
    training_frame: pl.DataFrame | None = None
    """The candles of its training, if they are others."""
    attempts: int = 1
    """How many candidates of the coin were judged on this gate window, including this one."""
    candle_facts: CandleFacts = REAL_CANDLES
    import_facts: Mapping[str, str] | None = None
    """When a model from outside came, and when the candles were made; None for one that was trained here."""
    formulas: Formulas = field(default_factory=dict)
    """Formulas that replace those of features in training, measuring and the bot."""

    def document(self) -> dict[str, Any]:
        """What the gates read: the measurement, and what the service adds to it."""
        with replace_formulas(self.formulas):
            document = measure(
                self.folder,
                self.frame,
                expected_digest=self.digest,
                baseline=self.baseline,
                training_frame=self.training_frame,
            )
        return {
            **document,
            "attempts": self._count_attempts(document),
            "candles": self._judge_candles(document),
            "import": self.import_facts,
        }

    def outcomes(self) -> list[GateOutcome]:
        """Every gate's outcome under the full policy."""
        return evaluate(self.document(), FULL_POLICY, coin=self.candle_facts.coin)

    def _count_attempts(self, document: Mapping[str, Any]) -> dict[str, Any]:
        window = document.get("window") or {}
        return {
            "count": self.attempts,
            "chain": "0" * 64,
            "window": {"first_at": window.get("first_at"), "last_at": window.get("last_at")},
        }

    def _judge_candles(self, document: Mapping[str, Any]) -> dict[str, Any]:
        measured = judge_candles(self.frame, self.candle_facts)
        if document["trained_on"] is None:
            return {"measured": measured, "training": None}
        trained_on = self.frame if self.training_frame is None else self.training_frame
        return {"measured": measured, "training": judge_candles(trained_on, self.candle_facts)}


@dataclass(frozen=True)
class HealthyBundle:
    """A healthy bundle, and the training that it comes from."""

    frame: pl.DataFrame
    trained: Trained
    bundle: Bundle
    baseline: Path

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """A copy, to be changed."""
        return {name: array.copy() for name, array in self.trained.weights.items()}

    @property
    def prepared(self) -> Prepared:
        return self.trained.prepared

    @property
    def scaler(self) -> Scaler:
        return self.trained.scaler

    @property
    def document(self) -> dict[str, Any]:
        """A shallow copy of the manifest."""
        return dict(self.bundle.manifest.document)

    @property
    def case(self) -> Case:
        return self.case_of(REAL_CANDLES)

    def case_of(self, facts: CandleFacts) -> Case:
        """With these facts about its candles."""
        return Case(self.bundle.folder, self.bundle.digest, self.frame, self.baseline, candle_facts=facts)


class BundleFactory:
    """Builds bundles in a folder: the healthy ones once, each broken one in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made = 0

    @cached_property
    def good(self) -> HealthyBundle:
        return self.train_on(generate_predictable(BARS, noise=NOISE, seed=3))

    @cached_property
    def second_seed(self) -> HealthyBundle:
        """Another seed, the same candles."""
        return self.train_on(self.good.frame, seed=SEED + 1)

    @cached_property
    def fresh_frame(self) -> pl.DataFrame:
        """Candles of the same market that no bundle has seen."""
        return generate_predictable(BARS, noise=NOISE, seed=12)

    @cached_property
    def clear_market(self) -> HealthyBundle:
        """Of a market that shows the next class in four of five bars, and a wrong one in the others."""
        recipe = RECIPE.with_parameters(epochs=16, patience=16)
        return self.train_on(
            generate_predictable(BARS, noise=0.05, seed=3, gaps=0.25, lies=0.2), recipe=recipe
        )

    @cached_property
    def other_coin(self) -> HealthyBundle:
        """Of another coin, with other candles on another price level."""
        frame = generate_predictable(BARS, noise=NOISE, seed=4)
        prices = {name: pl.col(name) / 500 for name in ("open", "high", "low", "close")}
        return self.train_on(frame.with_columns(**prices, volume=pl.col("volume") * 40), coin="ETH")

    def train_on(
        self,
        frame: pl.DataFrame,
        *,
        prepared: Prepared | None = None,
        recipe: Recipe = RECIPE,
        seed: int = SEED,
        coin: str = "BTC",
        simulated: bool = False,
    ) -> HealthyBundle:
        """A bundle by the recipe, from these rows or from the rows of the candles, with the V5 of these candles."""
        rows = prepared or prepare(frame, recipe)
        trained = fit(rows, recipe, seed=seed, device="cpu")
        v5 = fit(prepare(frame, RECIPES["v5"]), RECIPES["v5"], seed=seed)
        written = [
            write_bundle(
                self.create_path(),
                result,
                coin=coin,
                dataset_digest=candles.compute_digest(frame),
                simulated=simulated,
                code_version="faults",
            )
            for result in (trained, v5)
        ]
        return HealthyBundle(frame, trained, written[0], written[1].folder)

    def rewrite(
        self,
        good: HealthyBundle,
        *,
        weights: Mapping[str, np.ndarray] | None = None,
        scaler: Scaler | None = None,
        files: Mapping[str, bytes | None] | None = None,
        reports: bool = True,
        **claims: Any,
    ) -> Case:
        """A healthy bundle with some parts replaced, and a manifest that lists the new files.

        `files` replaces whole files, None leaves one out; `claims` are fields of the manifest. With `reports` the
        training's figures are those of the new bytes, as a trainer with this fault would report them.
        """
        tensors, graph_scaler = weights or good.weights, scaler or good.scaler
        payload: dict[str, bytes | None] = {
            MODEL_FILE: onnx_graph.build_model(tensors, graph_scaler),
            WEIGHTS_FILE: save({name: np.ascontiguousarray(array) for name, array in tensors.items()}),
            SCALER_FILE: encode_scaler(
                good.scaler if scaler is None else scaler, indicators.SCHEMAS["relative72"]
            ),
        }
        payload |= files or {}
        present = {name: data for name, data in payload.items() if data is not None}
        document = {**good.document, **claims}
        if reports:
            document["training"] = {
                **document["training"],
                "validation": self._report(good, present, document),
            }
        made = write_files(self.create_path(), present, document)
        return replace(good.case, folder=made.folder, digest=made.digest)

    def compute_logits(self, good: HealthyBundle, weights: Mapping[str, np.ndarray]) -> np.ndarray:
        """The logits of these weights for every usable row."""
        model = onnx_graph.build_model(weights, good.scaler)
        made = write_files(self.create_path(), {**_payload(good.bundle), MODEL_FILE: model}, good.document)
        return Predictor(made.folder).logits(good.prepared.examples.features)

    def copy_files(self, good: HealthyBundle) -> Case:
        """A copy of the healthy bundle with its true digest, to be damaged afterwards."""
        made = write_files(self.create_path(), _payload(good.bundle), good.document)
        assert made.digest == good.bundle.digest
        return replace(good.case, folder=made.folder)

    def create_path(self) -> Path:
        """The path of a new folder."""
        self._made += 1
        return self.folder / f"bundle-{self._made}"

    def _report(
        self, good: HealthyBundle, payload: Mapping[str, bytes], document: Mapping[str, Any]
    ) -> dict[str, Any]:
        written = write_files(self.create_path(), payload, dict(document))
        rows = good.prepared
        stop = rows.examples.split.stop
        logits = Predictor(written.folder).logits(rows.examples.features[stop])
        weights = rows.class_weights.astype(np.float64)
        loss = compute_smoothed_loss(logits, rows.labels[stop], weights, RECIPE.label_smoothing or 0.0)
        accuracy = float((logits.argmax(axis=1) == rows.labels[stop]).mean())
        return {**document["training"]["validation"], "loss": loss, "accuracy": accuracy}


def list_catching_gates(outcomes: list[GateOutcome]) -> list[str]:
    """The required gates that did not pass."""
    return [found.gate for found in outcomes if found.is_required and found.verdict is not Verdict.PASSED]


def _payload(made: Bundle) -> dict[str, bytes]:
    return {name: made.read_payload(name) for name in made.manifest.files}
