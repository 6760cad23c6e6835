"""From a bundle's files to a verdict and the pictures of its page: what a diagnosis comes to, without a database.

    python -m benchmarks.judged BUNDLE CANDLES DIGEST BASELINE [--once]

Prints the verdict, once or for each line of its input. What the service knows in addition (which attempt it is, what its
candles are worth) is stated here.
"""

import json
import sys
from pathlib import Path
from typing import Any

from gates.charts.diagnosis import draw_charts
from gates.evaluation import evaluate, get_overall_verdict
from gates.policy import FULL_POLICY
from mlcore.data import candles
from mlcore.evaluation.measure import measure


def diagnosis(folder: Path, canonical: Path, digest: str, baseline: Path) -> dict[str, Any]:
    """Measurement, every gate's sentence, verdict and pictures, as JSON values."""
    frame = candles.decode_canonical(canonical.read_bytes())
    document = measure(folder, frame, expected_digest=digest, baseline=baseline)
    judged = {"digest": document["dataset_digest"], "verdict": "passed", "sentence": "", "simulated": True}
    ends = {at: document["window"][at] for at in ("first_at", "last_at")}
    document |= {
        "candles": {"measured": judged, "training": judged},
        "attempts": {"count": 1, "chain": "0" * 64, "window": ends},
        "import": None,
    }
    outcomes = evaluate(document, FULL_POLICY)
    sentences = {outcome.gate: outcome.sentence for outcome in outcomes}
    drawn = {name: len(json.dumps(figure)) for name, figure in draw_charts(document, FULL_POLICY).items()}
    return {
        "verdict": get_overall_verdict(outcomes),
        "sentences": sentences,
        "charts": drawn,
        "document": json.dumps(document),
    }


if __name__ == "__main__":
    bundle, canonical, digest, baseline = sys.argv[1:5]
    for _ in [""] if "--once" in sys.argv else sys.stdin:
        found = diagnosis(Path(bundle), Path(canonical), digest, Path(baseline))
        print(found["verdict"], flush=True)
