"""The verdict of every required gate about the best trial of a study, as a release of it would get."""

from pathlib import Path

from benchmarks.studies.search import COIN, Setting
from gates.evaluation import evaluate
from gates.policy import FULL_POLICY
from mlcore.bundle.writer import write_bundle
from mlcore.data.candles import compute_digest
from mlcore.evaluation.measure import measure
from mlcore.fitting.fit import Trained, fit, prepare
from mlcore.fitting.recipes import RECIPES
from mlcore.verdict import Verdict


def judge_best(setting: Setting, best: Trained, folder: Path) -> list[str]:
    """The required gates that refuse it; empty where it would await approval.

    Its candles count as checked, and it as a first attempt: only the gates' own figures stand between it and a release.
    """
    frame, v5 = setting.frame, RECIPES["v5"]
    digest = compute_digest(frame)
    bundles = {}
    for name, trained in {
        "best": best,
        "v5": fit(prepare(frame, v5), v5, seed=0, device="cpu"),
    }.items():
        bundles[name] = write_bundle(
            folder / name, trained, coin=COIN, dataset_digest=digest, simulated=True, code_version="studies"
        )
    found = measure(
        bundles["best"].folder,
        frame,
        expected_digest=bundles["best"].digest,
        baseline=bundles["v5"].folder,
    )
    judged = {"digest": digest, "verdict": Verdict.PASSED.value, "sentence": "", "simulated": True}
    document = {
        **found,
        "attempts": {"count": 1, "chain": "0" * 64, "window": None},
        "import": None,
        "candles": {"measured": judged, "training": judged},
    }
    return [
        outcome.gate
        for outcome in evaluate(document, FULL_POLICY, coin=COIN)
        if outcome.is_required and outcome.verdict is not Verdict.PASSED
    ]
