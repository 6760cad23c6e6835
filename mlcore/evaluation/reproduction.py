"""A bundle beside a second training of it, from the same candles, recipe, settings and seed.

The same bytes show that the files are what that training gives. Where the processors differ, the last bits of the weights
may differ too, and the logits on the stop window show by how much.
"""

from typing import Any

import numpy as np

from mlcore.bundle.format import Manifest
from mlcore.bundle.predictor import Predictor
from mlcore.errors import MlcoreError
from mlcore.evaluation.context import EvaluationContext

_OF_THE_TRAINING = ("coin", "line", "dataset", "labels", "split", "schema", "parameters", "seed", "recipe")
"""What two trainings of one model state alike in their manifests, apart from the label's computed cuts."""


def measure_reproduction(context: EvaluationContext) -> dict[str, Any]:
    """Which files are equal, and how far the logits on the stop window are apart. All null without a second training.

    Raises MlcoreError where the second bundle is of another training, or the candles of the training are not available.
    """
    if context.second_folder is None:
        return {
            "bundle": None,
            "files_equal": None,
            "rows": None,
            "largest_difference": None,
            "directions_differing": None,
        }
    second = Predictor(context.second_folder)
    _require_same_training(context.manifest, second.manifest)
    logits, training = context.stop_logits, context.training
    if logits is None or training is None:
        raise MlcoreError("the candles of the training are not available")
    others = second.logits(training.features[training.split.stop])
    difference = float(np.abs(logits - others).max()) if len(logits) else np.nan
    return {
        "bundle": second.digest,
        "files_equal": {
            name: name in second.manifest.files and file.sha256 == second.manifest.files[name].sha256
            for name, file in sorted(context.manifest.files.items())
        },
        "rows": len(logits),
        "largest_difference": difference,
        "directions_differing": int((logits.argmax(axis=1) != others.argmax(axis=1)).sum()),
    }


def _require_same_training(one: Manifest, other: Manifest) -> None:
    facts = ({name: manifest.document.get(name) for name in _OF_THE_TRAINING} for manifest in (one, other))
    first, second = ({**found, "labels": _without_cuts(found["labels"])} for found in facts)
    if differing := sorted(name for name in _OF_THE_TRAINING if first[name] != second[name]):
        raise MlcoreError(
            f"the second bundle is of another training: its manifest differs in {', '.join(differing)}"
        )


def _without_cuts(labels: Any) -> Any:
    return (
        {name: value for name, value in labels.items() if name != "cuts"}
        if isinstance(labels, dict)
        else labels
    )
