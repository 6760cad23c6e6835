"""The gates, run here: on the stop window, by the functions and the policy of the service. Needs the extra `train`.

It writes the bundle that an upload would make, fits the V5 that it is compared with, and measures both as a worker does.
No figure of the gate window is computed: only the service may look at that, and it counts each look as an attempt.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.formatting import format_state
from crpbot_runtime.train.rows import Rows
from crpbot_runtime.version import VERSION
from gates.catalogue.gate import GateOutcome
from gates.catalogue.skill import CHAIN_LENGTH
from gates.evaluation import evaluate, get_overall_verdict
from gates.policy import get_entries
from mlcore.bundle.format import Bundle
from mlcore.errors import MlcoreError
from mlcore.evaluation import measure, v5
from mlcore.features.terms import Terms
from mlcore.importers import convert
from mlcore.verdict import Verdict

CODE_VERSION = f"crpbot-runtime {VERSION}"
NOT_RUN: Mapping[str, str] = {
    "candles": "the service has judged the candles, and says so where it lists the dataset",
    "window": "it judges the gate window, which only the service looks at, and when the model came",
    "attempts": "only the service knows which attempt on the gate window it is; the others take it for the first",
    "reproduced": "only workers train a model a second time",
}
"""Gates that need what only the service has, with the reason."""


@dataclass(frozen=True)
class Check:
    """What the gates say of a model on the stop window. `print` it for all sentences."""

    outcomes: tuple[GateOutcome, ...]
    """Of each gate of the policy that can be run here: verdict, observed, threshold, sentence, as in the service."""
    not_run: Mapping[str, str]
    """The gates of the policy that need the service, with the reason."""
    figures: Mapping[str, Any]
    """The measurement, in the form of the service's. Its *window* is the stop window."""
    notes: tuple[str, ...]
    """What an upload would tell about the graph."""

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of the required gates that were run."""
        return get_overall_verdict(self.outcomes)

    @property
    def problems(self) -> tuple[str, ...]:
        """The sentences of the required gates that did not pass."""
        return tuple(found.sentence for found in self.outcomes if found.is_required and found.is_problem)

    def __str__(self) -> str:
        lines = [f"{self.verdict} on the stop window"]
        for found in self.outcomes:
            kind = "" if found.is_required else ", advisory"
            lines.append(f"{format_state(found.gate)}: {found.verdict}{kind}. {found.sentence}")
        lines += [f"{format_state(gate)}: not run here; {why}." for gate, why in self.not_run.items()]
        return "\n".join([*lines, *self.notes])


def run(rows: Rows, graph: bytes, policy: Mapping[str, Any], *, has_scaler: bool) -> Check:
    """Raises Misconfigured, BundleRefused and ImportRefused for a graph that no gate takes, with what to change."""
    with tempfile.TemporaryDirectory(prefix="crpbot-check-") as name:
        folder = Path(name)
        bundle, notes = convert.import_model(graph, _describe(rows, graph, has_scaler), folder / "bundle")
        document = _measure(rows, bundle, folder)
    document["attempts"] = {"count": 1, "chain": "0" * CHAIN_LENGTH}
    outcomes = evaluate(document, policy, coin=str(rows.dataset["coin"]))
    return Check(
        outcomes=tuple(found for found in outcomes if found.gate not in NOT_RUN),
        not_run={gate: why for gate, why in NOT_RUN.items() if gate in get_entries(policy)},
        figures=document,
        notes=tuple(notes),
    )


def _describe(rows: Rows, graph: bytes, has_scaler: bool) -> convert.Request:
    return convert.Request(
        coin=str(rows.dataset["coin"]),
        line="notebook",
        schema=rows.schema.name,
        layout=None,
        simulated=bool(rows.dataset["is_simulated"]),
        interval_seconds=rows.examples.interval_seconds,
        code_version=CODE_VERSION,
        declaration=rows.declare(graph, has_scaler=has_scaler),
    )


def _measure(rows: Rows, bundle: Bundle, folder: Path) -> dict[str, Any]:
    baseline: dict[str, Any] = {"baseline": folder / "v5"}
    try:
        v5.fit_baseline(
            baseline["baseline"],
            rows.candles,
            coin=str(rows.dataset["coin"]),
            simulated=bool(rows.dataset["is_simulated"]),
            code_version=CODE_VERSION,
            terms=Terms(rows.examples.label, rows.shares, rows.schema.warm_up),
        )
    except MlcoreError as error:
        baseline = {"no_baseline": f"V5 was not fitted: {error}"}
    return measure.measure(
        bundle.folder, rows.candles, expected_digest=bundle.digest, judges_stop_window=True, **baseline
    )
