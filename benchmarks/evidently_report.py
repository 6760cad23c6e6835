"""The peer of the diagnosis: Evidently's classification preset with its tests, on predictions that it is given.

    ENVIRONMENT/bin/python benchmarks/evidently_report.py PREDICTIONS.npz [--once]

Runs in an environment of its own (see benchmarks/diagnosis.py), so it imports nothing of this repository. It makes one
report for each line it reads, and answers each with the report's length.
"""

import sys

import numpy as np
import pandas as pd
from evidently import (  # type: ignore[import-not-found]
    DataDefinition,
    Dataset,
    MulticlassClassification,
    Report,
)
from evidently.presets import ClassificationPreset  # type: ignore[import-not-found]

CLASSES = ["down", "neutral", "up"]


def predictions(path: str) -> pd.DataFrame:
    """A column for each class's probability, and the names of the true and the predicted class."""
    stored = np.load(path)
    table = pd.DataFrame(stored["probabilities"], columns=CLASSES)
    names = np.array(CLASSES)
    table["target"] = names[stored["true"]]
    table["prediction"] = names[stored["probabilities"].argmax(axis=1)]
    return table


def report(table: pd.DataFrame) -> str:
    columns = MulticlassClassification(
        target="target",
        prediction_labels="prediction",
        prediction_probas=CLASSES,
        labels={name: name for name in CLASSES},
    )
    data = Dataset.from_pandas(table, data_definition=DataDefinition(classification=[columns]))
    return str(Report([ClassificationPreset()], include_tests=True).run(data, None).json())


if __name__ == "__main__":
    table = predictions(sys.argv[1])
    if "--once" in sys.argv:
        print(len(report(table)))
    else:
        for _ in sys.stdin:
            print(len(report(table)), flush=True)
