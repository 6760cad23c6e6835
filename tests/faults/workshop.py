"""Where faults are planted: good bundles and their parts, the tools to break them, and the judgement that must notice."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors.numpy import save

from gates.catalogue.gate import GateOutcome
from gates.evaluation import evaluate
from gates.policy import FULL_POLICY
from mlcore.bundle import onnx_export
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
from tests.faults.judged_candles import MARKET_CANDLES, CandleFacts, judged
from tests.faults.markets import telling
from tests.faults.planted_code import SOUND, Computing, planted

BARS = 12_000
NOISE = 0.1
"""A network trained on such a market for a second is right in about 0.8 of the bars: comfortably above the border."""

RECIPE = RECIPES["v7_fixed"].with_parameters(epochs=8, patience=8, batch_size=128)
SEED = 0


@dataclass(frozen=True)
class Case:
    """What one coin of a release is judged by."""

    folder: Path
    digest: str
    """The digest that the service knows the bundle by, whatever lies in the folder."""
    frame: pl.DataFrame
    """The candles it is measured on."""
    baseline: Path
    """The fallback's bundle of the coin."""
    training_frame: pl.DataFrame | None = None
    """The candles it was trained on, where they are others."""
    attempts: int = 1
    """How many candidates of the coin were judged on this gate window, this one counted."""
    candle_facts: CandleFacts = MARKET_CANDLES
    computing: Computing = SOUND
    """The code that computes features, in training, in measuring and in the bot."""

    def document(self) -> dict[str, Any]:
        """What the gates read: the measurement of the bytes, and what the service knows besides."""
        with planted(self.computing):
            found = measure(
                self.folder,
                self.frame,
                expected_digest=self.digest,
                baseline=self.baseline,
                training_frame=self.training_frame,
            )
        return {**found, "attempts": self._attempts(found), "candles": self._candles(found)}

    def outcomes(self) -> list[GateOutcome]:
        """Every gate's word under the full policy."""
        return evaluate(self.document(), FULL_POLICY, coin=self.candle_facts.coin)

    def _attempts(self, found: Mapping[str, Any]) -> dict[str, Any]:
        window = found.get("window") or {}
        return {
            "count": self.attempts,
            "earlier": [f"sha256:{number:064x}" for number in range(self.attempts - 1)],
            "window": {"first_at": window.get("first_at"), "last_at": window.get("last_at")},
        }

    def _candles(self, found: Mapping[str, Any]) -> dict[str, Any]:
        measured = judged(self.frame, self.candle_facts)
        if found["trained_on"] is None:
            return {"measured": measured, "training": None}
        trained_on = self.frame if self.training_frame is None else self.training_frame
        return {"measured": measured, "training": judged(trained_on, self.candle_facts)}


@dataclass(frozen=True)
class Good:
    """A healthy bundle in its parts."""

    frame: pl.DataFrame
    trained: Trained
    bundle: Bundle
    baseline: Path

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """A copy, to be broken."""
        return {name: array.copy() for name, array in self.trained.weights.items()}

    @property
    def prepared(self) -> Prepared:
        return self.trained.prepared

    @property
    def scaler(self) -> Scaler:
        return self.trained.scaler

    @property
    def document(self) -> dict[str, Any]:
        """The manifest, one level of it copied."""
        return dict(self.bundle.manifest.document)

    @property
    def case(self) -> Case:
        return self.case_of(MARKET_CANDLES)

    def case_of(self, facts: CandleFacts) -> Case:
        """Judged with this known of its candles."""
        return Case(self.bundle.folder, self.bundle.digest, self.frame, self.baseline, candle_facts=facts)


class Workshop:
    """Makes bundles in a folder; the good ones once, the broken ones each in a place of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made = 0

    @cached_property
    def good(self) -> Good:
        return self.trained_on(telling(BARS, noise=NOISE, seed=3))

    @cached_property
    def second_seed(self) -> Good:
        """As good, from the same candles."""
        return self.trained_on(self.good.frame, seed=SEED + 1)

    @cached_property
    def plainly_told(self) -> Good:
        """Of a market that says outright what comes, and lies in a fifth of the bars: no bar is harder than another."""
        recipe = RECIPE.with_parameters(epochs=16, patience=16)
        return self.trained_on(telling(BARS, noise=0.05, seed=3, gaps=0.25, lies=0.2), recipe=recipe)

    @cached_property
    def other_coin(self) -> Good:
        """Another coin's: other candles, on another level, and as good a bundle of them."""
        frame = telling(BARS, noise=NOISE, seed=4)
        prices = {name: pl.col(name) / 500 for name in ("open", "high", "low", "close")}
        return self.trained_on(frame.with_columns(**prices, volume=pl.col("volume") * 40), coin="ETH")

    def trained_on(
        self,
        frame: pl.DataFrame,
        *,
        prepared: Prepared | None = None,
        recipe: Recipe = RECIPE,
        seed: int = SEED,
        coin: str = "BTC",
        simulated: bool = False,
    ) -> Good:
        """A bundle by the recipe, from these rows or from those of the candles; with its fallback."""
        rows = prepared or prepare(frame, recipe)
        trained = fit(rows, recipe, seed=seed, device="cpu")
        fallback = fit(prepare(frame, RECIPES["v5"]), RECIPES["v5"], seed=seed)
        written = [
            write_bundle(
                self.place(),
                one,
                coin=coin,
                dataset_digest=candles.compute_digest(frame),
                simulated=simulated,
                code_version="faults",
            )
            for one in (trained, fallback)
        ]
        return Good(frame, trained, written[0], written[1].folder)

    def rewritten(
        self,
        good: Good,
        *,
        weights: Mapping[str, np.ndarray] | None = None,
        scaler: Scaler | None = None,
        files: Mapping[str, bytes | None] | None = None,
        reports: bool = True,
        **claims: Any,
    ) -> Case:
        """A good bundle with some parts replaced and a manifest that lists the new files: whoever wrote it meant it so.

        `files` replaces whole files, None leaves one out; `claims` are fields of the manifest. With `reports` the
        training's figures are those of the new bytes, as a trainer with this very fault would have reported them.
        """
        held, scales = weights or good.weights, scaler or good.scaler
        payload: dict[str, bytes | None] = {
            MODEL_FILE: onnx_export.build_model(held, scales),
            WEIGHTS_FILE: save({name: np.ascontiguousarray(array) for name, array in held.items()}),
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
        made = write_files(self.place(), present, document)
        return replace(good.case, folder=made.folder, digest=made.digest)

    def logits(self, good: Good, weights: Mapping[str, np.ndarray]) -> np.ndarray:
        """What these weights say of every usable row."""
        model = onnx_export.build_model(weights, good.scaler)
        made = write_files(self.place(), {**_payload(good.bundle), MODEL_FILE: model}, good.document)
        return Predictor(made.folder).logits(good.prepared.examples.features)

    def copied(self, good: Good) -> Case:
        """The good bundle's files as they are, known by their true digest, to be damaged afterwards."""
        made = write_files(self.place(), _payload(good.bundle), good.document)
        assert made.digest == good.bundle.digest
        return replace(good.case, folder=made.folder)

    def place(self) -> Path:
        """A folder's name that nothing has yet."""
        self._made += 1
        return self.folder / f"bundle-{self._made}"

    def _report(
        self, good: Good, payload: Mapping[str, bytes], document: Mapping[str, Any]
    ) -> dict[str, Any]:
        written = write_files(self.place(), payload, dict(document))
        rows = good.prepared
        stop = rows.examples.split.stop
        logits = Predictor(written.folder).logits(rows.examples.features[stop])
        weights = rows.class_weights.astype(np.float64)
        loss = compute_smoothed_loss(logits, rows.labels[stop], weights, RECIPE.label_smoothing or 0.0)
        accuracy = float((logits.argmax(axis=1) == rows.labels[stop]).mean())
        return {**document["training"]["validation"], "loss": loss, "accuracy": accuracy}


def caught_by(outcomes: list[GateOutcome]) -> list[str]:
    """The required gates that did not pass."""
    return [found.gate for found in outcomes if found.is_required and found.verdict is not Verdict.PASSED]


def _payload(made: Bundle) -> dict[str, bytes]:
    return {name: made.read_payload(name) for name in made.manifest.files}
