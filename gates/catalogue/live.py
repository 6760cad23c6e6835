"""What a model must show while it predicts for real: the live part of a policy. No ORM, clock or I/O.

A tripwire sees what a healthy model never does, within tens of predictions; enough bots that breach one have the
fallback pinned. Class shares, and features outside what training saw, wander under a healthy model too: they need
hundreds or thousands of predictions, and only warn.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from common.formatting import limit, percent, signed
from gates.catalogue.gate import Parameters, Threshold
from mlcore.confidence_bands import BANDS, EDGES
from mlcore.verdict import Finding, Verdict

RECENT_PREDICTIONS = 100
"""How far back the tripwires look: a feed that breaks in the middle of a revision must not hide behind good weeks."""
FEATURES = 72


@dataclass(frozen=True)
class Tally:
    """Predictions of one coin by one bot, counted."""

    predictions: int = 0
    non_finite: int = 0
    """Answers that were no numbers; the bot did not act on them."""
    classes: tuple[int, int, int] = (0, 0, 0)
    """Down, neutral, up."""
    confidence: tuple[int, ...] = (0,) * BANDS
    """By the bands of `mlcore.confidence_bands`."""
    least: float | None = None
    greatest: float | None = None
    """Of the logits."""
    out_of_range: int = 0
    """Feature values outside what was seen in training."""
    ranged: int = 0
    """Predictions of which that is known."""

    def __add__(self, other: "Tally") -> "Tally":
        down, neutral, up = (a + b for a, b in zip(self.classes, other.classes, strict=True))
        return Tally(
            self.predictions + other.predictions,
            self.non_finite + other.non_finite,
            (down, neutral, up),
            tuple(a + b for a, b in zip(self.confidence, other.confidence, strict=True)),
            min((x for x in (self.least, other.least) if x is not None), default=None),
            max((x for x in (self.greatest, other.greatest) if x is not None), default=None),
            self.out_of_range + other.out_of_range,
            self.ranged + other.ranged,
        )

    @property
    def finite(self) -> int:
        return self.predictions - self.non_finite


@dataclass(frozen=True)
class LiveGate:
    """One live gate. `is_tripwire`: a breach counts towards a pin; else it warns. `is_patient`: it looks at all predictions
    of the revision, the others at what is recent.
    """

    name: str
    is_tripwire: bool
    judge: Callable[[Tally, Parameters], Finding]
    says: Callable[[Parameters], str]
    parameters: tuple[Threshold, ...] = ()
    is_patient: bool = False

    @property
    def default(self) -> dict[str, float]:
        return {parameter.name: parameter.seed for parameter in self.parameters}


@dataclass(frozen=True)
class LiveOutcome:
    """One live gate's word on one bot's predictions of one coin."""

    gate: str
    is_tripwire: bool
    finding: Finding


def judge_finite_answers(tally: Tally, parameters: Parameters) -> Finding:
    """Every answer is a number."""
    if not tally.non_finite:
        return _passed(0.0, f"all {tally.predictions:,} answers finite")
    return _failed(
        float(tally.non_finite), f"{tally.non_finite:,} of {tally.predictions:,} answers not finite"
    )


def judge_logit_range(tally: Tally, parameters: Parameters) -> Finding:
    """No logit explodes."""
    if tally.least is None or tally.greatest is None or tally.predictions < parameters["predictions"]:
        return _too_few(tally)
    observed = f"logits {signed(tally.least)} … {signed(tally.greatest)}"
    worst = max(tally.least, tally.greatest, key=abs)
    is_within = parameters["least"] <= tally.least and tally.greatest <= parameters["greatest"]
    return (_passed if is_within else _failed)(worst, observed)


def judge_confidence(tally: Tally, parameters: Parameters) -> Finding:
    """It is not certain of nearly everything."""
    if not tally.finite or tally.predictions < parameters["predictions"]:
        return _too_few(tally)
    level = parameters["level"]
    over = sum(count for edge, count in zip(EDGES, tally.confidence, strict=False) if edge >= level - 1e-9)
    share = over / tally.finite
    observed = f"{percent(share, beside=parameters['share_below'])} over {limit(level)}"
    return (_passed if share < parameters["share_below"] else _failed)(share, observed)


def judge_class_balance(tally: Tally, parameters: Parameters) -> Finding:
    """No direction is said nearly always, or hardly ever."""
    if not tally.finite or tally.predictions < parameters["predictions"]:
        return _too_few(tally)
    shares = [count / tally.finite for count in tally.classes]
    worst = max(shares, key=lambda share: max(share - parameters["most"], parameters["least"] - share))
    observed = " / ".join(percent(share) for share in shares) + " down / neutral / up"
    return (_passed if parameters["least"] <= worst <= parameters["most"] else _failed)(worst, observed)


def judge_feature_range(tally: Tally, parameters: Parameters) -> Finding:
    """What it sees is what it was trained on."""
    if not tally.ranged or tally.ranged < parameters["predictions"]:
        return _too_few(tally)
    share = tally.out_of_range / (FEATURES * tally.ranged)
    observed = f"{percent(share, beside=parameters['share_below'])} of features outside what training saw"
    return (_passed if share < parameters["share_below"] else _failed)(share, observed)


LIVE_GATES: Mapping[str, LiveGate] = {
    gate.name: gate
    for gate in (
        LiveGate("finite_answers", True, judge_finite_answers, lambda p: "every answer is a number"),
        LiveGate(
            "logit_range",
            True,
            judge_logit_range,
            lambda p: (
                f"{signed(p['least'])} … {signed(p['greatest'])}, {p['predictions']:,.0f} predictions or more"
            ),
            (
                Threshold("least", -10.0, -1e6, 0.0, is_looser_when="lower"),
                Threshold("greatest", 10.0, 0.0, 1e6, is_looser_when="higher"),
                Threshold("predictions", 10, 1, RECENT_PREDICTIONS, is_looser_when="higher", is_whole=True),
            ),
        ),
        LiveGate(
            "confidence",
            True,
            judge_confidence,
            lambda p: (
                f"less than {limit(p['share_below'])} over {limit(p['level'])}, "
                f"{p['predictions']:,.0f} predictions or more"
            ),
            (
                Threshold("level", 0.90, EDGES[1], EDGES[-2], is_looser_when="higher"),
                Threshold("share_below", 0.80, 0.0, 1.0, is_looser_when="higher"),
                Threshold("predictions", 20, 1, RECENT_PREDICTIONS, is_looser_when="higher", is_whole=True),
            ),
        ),
        LiveGate(
            "class_balance",
            False,
            judge_class_balance,
            lambda p: (
                f"each {limit(p['least'])} – {limit(p['most'])}, {p['predictions']:,.0f} predictions or more"
            ),
            (
                Threshold("least", 0.20, 0.0, 1 / 3, is_looser_when="lower"),
                Threshold("most", 0.45, 1 / 3, 1.0, is_looser_when="higher"),
                Threshold("predictions", 3000, 1, 1e9, is_looser_when="higher", is_whole=True),
            ),
            is_patient=True,
        ),
        LiveGate(
            "feature_range",
            False,
            judge_feature_range,
            lambda p: (
                f"less than {limit(p['share_below'])} of features outside what training saw, "
                f"{p['predictions']:,.0f} predictions or more"
            ),
            (
                Threshold("share_below", 0.05, 0.0, 1.0, is_looser_when="higher"),
                Threshold("predictions", 500, 1, 1e9, is_looser_when="higher", is_whole=True),
            ),
            is_patient=True,
        ),
    )
}
DEFAULT_LIVE: Mapping[str, Mapping[str, float]] = {
    gate.name: gate.default for gate in LIVE_GATES.values() if gate.parameters
}
"""What holds under a policy that has no live part of its own."""
HELD_AGAINST_A_FALLBACK = frozenset({"finite_answers"})
"""A fallback need not pass the gates on confidence and logits before it is registered, nor afterwards."""


def live_part(policy: Mapping[str, Any]) -> Mapping[str, Any]:
    """A policy's live thresholds; the default ones where it has none."""
    found = policy.get("live")
    return found if isinstance(found, Mapping) and not list(live_problems(found)) else DEFAULT_LIVE


def judge_live(
    recent: Tally, whole: Tally, policy: Mapping[str, Any], *, is_fallback: bool = False
) -> list[LiveOutcome]:
    """Every live gate's word, on what is `recent` or on the `whole` of the revision."""
    thresholds = live_part(policy)
    return [
        LiveOutcome(
            gate.name,
            gate.is_tripwire,
            gate.judge(whole if gate.is_patient else recent, thresholds.get(gate.name, {})),
        )
        for gate in LIVE_GATES.values()
        if not is_fallback or gate.name in HELD_AGAINST_A_FALLBACK
    ]


def live_problems(part: object) -> Iterator[str]:
    """Everything that is wrong with a policy's live part."""
    if not isinstance(part, Mapping):
        yield "live must be a document"
        return
    for name in sorted(map(str, set(part) - set(DEFAULT_LIVE))):
        yield f"there is no live gate {name!r} with thresholds (known: {', '.join(DEFAULT_LIVE)})"
    for name in DEFAULT_LIVE:
        gate, entry = LIVE_GATES[name], part.get(name)
        if not isinstance(entry, Mapping):
            yield f"live {name} must be a document"
            continue
        for unknown in sorted(map(str, set(entry) - {p.name for p in gate.parameters})):
            yield f"live {name} has no {unknown!r}"
        for parameter in gate.parameters:
            if problem := parameter.problem(entry.get(parameter.name)):
                yield f"live {name}: {problem}"


def _passed(figure: float, observed: str) -> Finding:
    return Finding(Verdict.PASSED, figure, observed, observed)


def _failed(figure: float, observed: str) -> Finding:
    return replace(_passed(figure, observed), verdict=Verdict.FAILED)


def _too_few(tally: Tally) -> Finding:
    observed = f"{tally.predictions:,} predictions so far"
    return Finding(Verdict.INCONCLUSIVE, None, observed, observed)
