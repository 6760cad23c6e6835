"""Gates on the predictions that bots count: the live part of a policy. No ORM, clock or I/O.

A tripwire detects within tens of predictions what a healthy model never does. When enough bots breach one, the fallback
is pinned. Class shares, and features outside the range of training, vary under a healthy model too: they need hundreds or
thousands of predictions, and only warn.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from common.formatting import format_limit, format_percent, format_signed
from gates.catalogue.gate import AnyGate, Parameters, Threshold
from mlcore.confidence_bands import BANDS, EDGES
from mlcore.constants import N_FEATURES
from mlcore.verdict import Finding, Verdict

RECENT_PREDICTIONS = 100
"""How far back the tripwires look: many sound predictions must not hide a feed that breaks within a revision."""


@dataclass(frozen=True)
class Tally:
    """Predictions of one coin by one bot, counted."""

    predictions: int = 0
    non_finite: int = 0
    """Predictions that were not finite; the bot did not act on them."""
    classes: tuple[int, int, int] = (0, 0, 0)
    """Down, neutral, up."""
    confidence: tuple[int, ...] = (0,) * BANDS
    """By band of `mlcore.confidence_bands`."""
    least: float | None = None
    greatest: float | None = None
    """The least and greatest logit."""
    out_of_range: int = 0
    """Feature values outside what was seen in training."""
    ranged: int = 0
    """Predictions whose feature range is known."""

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
class LiveGate(AnyGate):
    judge: Callable[[Tally, Parameters], Finding]
    is_tripwire: bool = False
    """A breach counts towards a pin; one of the others warns."""
    covers_revision: bool = False
    """It looks at all predictions of the revision; the others at the recent ones."""


@dataclass(frozen=True)
class LiveOutcome:
    """One live gate's finding on one bot's predictions of one coin."""

    gate: str
    is_tripwire: bool
    finding: Finding


PREDICTIONS_HELP = "With fewer predictions the gate is collecting: its result is inconclusive."
LIVE_GATES: dict[str, LiveGate] = {}

LiveJudge = Callable[[Tally, Parameters], Finding]


def register(
    name: str, describe: Callable[[Parameters], str], *parameters: Threshold, **options: bool
) -> Callable[[LiveJudge], LiveJudge]:
    """Make the decorated judge a live gate; `options` are `is_tripwire` and `covers_revision`."""

    def add(judge: LiveJudge) -> LiveJudge:
        LIVE_GATES[name] = LiveGate(name, judge, describe, parameters, **options)
        return judge

    return add


@register("finite_answers", lambda p: "every prediction is finite", is_tripwire=True)
def judge_finite_answers(tally: Tally, parameters: Parameters) -> Finding:
    """Every prediction is finite."""
    if not tally.non_finite:
        return _passed(0.0, f"all {tally.predictions:,} predictions finite")
    return _failed(
        float(tally.non_finite), f"{tally.non_finite:,} of {tally.predictions:,} predictions not finite"
    )


@register(
    "logit_range",
    lambda p: f"{format_signed(p['least'])} … {format_signed(p['greatest'])}, {_at_least(p)}",
    Threshold("least", -10.0, -1e6, 0.0, "lower", "No logit may lie below this."),
    Threshold("greatest", 10.0, 0.0, 1e6, "higher", "No logit may lie above this."),
    Threshold("predictions", 10, 1, RECENT_PREDICTIONS, "higher", PREDICTIONS_HELP),
    is_tripwire=True,
)
def judge_logit_range(tally: Tally, parameters: Parameters) -> Finding:
    """Logits stay in their range."""
    if tally.least is None or tally.greatest is None or tally.predictions < parameters["predictions"]:
        return _collecting(tally.predictions if tally.finite else 0, parameters)
    observed = f"logits {format_signed(tally.least)} … {format_signed(tally.greatest)}"
    worst = max(tally.least, tally.greatest, key=abs)
    is_within = parameters["least"] <= tally.least and tally.greatest <= parameters["greatest"]
    return (_passed if is_within else _failed)(worst, observed)


@register(
    "confidence",
    lambda p: f"less than {format_limit(p['share_below'])} over {format_limit(p['level'])}, {_at_least(p)}",
    Threshold(
        "level", 0.90, EDGES[1], EDGES[-2], "higher", "Above this probability a prediction is nearly certain."
    ),
    Threshold("share_below", 0.80, 0.0, 1.0, "higher", "Nearly certain predictions must be a smaller share."),
    Threshold("predictions", 20, 1, RECENT_PREDICTIONS, "higher", PREDICTIONS_HELP),
    is_tripwire=True,
)
def judge_confidence(tally: Tally, parameters: Parameters) -> Finding:
    """Not too many predictions are nearly certain."""
    if not tally.finite or tally.predictions < parameters["predictions"]:
        return _collecting(tally.predictions if tally.finite else 0, parameters)
    level = parameters["level"]
    over = sum(count for edge, count in zip(EDGES, tally.confidence, strict=False) if edge >= level - 1e-9)
    share = over / tally.finite
    observed = f"{format_percent(share, beside=parameters['share_below'])} over {format_limit(level)}"
    return (_passed if share < parameters["share_below"] else _failed)(share, observed)


@register(
    "class_balance",
    lambda p: f"each {format_limit(p['least'])} – {format_limit(p['most'])}, {_at_least(p)}",
    Threshold("least", 0.20, 0.0, 1 / 3, "lower", "Each class must be predicted at least this often."),
    Threshold("most", 0.45, 1 / 3, 1.0, "higher", "No class may be predicted more often than this."),
    Threshold("predictions", 3000, 1, 1e9, "higher", "Class shares vary: fewer predictions show nothing."),
    covers_revision=True,
)
def judge_class_balance(tally: Tally, parameters: Parameters) -> Finding:
    """No class is predicted nearly always, and none hardly ever."""
    if not tally.finite or tally.predictions < parameters["predictions"]:
        return _collecting(tally.predictions if tally.finite else 0, parameters)
    shares = [count / tally.finite for count in tally.classes]
    worst = max(shares, key=lambda share: max(share - parameters["most"], parameters["least"] - share))
    observed = " / ".join(format_percent(share) for share in shares) + " down / neutral / up"
    return (_passed if parameters["least"] <= worst <= parameters["most"] else _failed)(worst, observed)


@register(
    "feature_range",
    lambda p: (
        f"less than {format_limit(p['share_below'])} of features outside training's range, {_at_least(p)}"
    ),
    Threshold("share_below", 0.05, 0.0, 1.0, "higher", "The features outside must be a smaller share."),
    Threshold("predictions", 500, 1, 1e9, "higher", PREDICTIONS_HELP),
    covers_revision=True,
)
def judge_feature_range(tally: Tally, parameters: Parameters) -> Finding:
    """Features lie in the range seen in training."""
    if not tally.ranged or tally.ranged < parameters["predictions"]:
        return _collecting(tally.ranged, parameters)
    share = tally.out_of_range / (N_FEATURES * tally.ranged)
    observed = (
        f"{format_percent(share, beside=parameters['share_below'])} of features outside training's range"
    )
    return (_passed if share < parameters["share_below"] else _failed)(share, observed)


DEFAULT_LIVE: Mapping[str, Mapping[str, float]] = {
    gate.name: gate.defaults for gate in LIVE_GATES.values() if gate.parameters
}
"""The thresholds under a policy that has no live part."""
FALLBACK_LIVE_GATES = frozenset({"finite_answers"})
"""A fallback need not pass the gates on confidence and logits before it is registered, nor afterwards."""


def get_live_thresholds(policy: Mapping[str, Any]) -> Mapping[str, Any]:
    """A policy's live thresholds; the default ones where it has no usable live part."""
    live = policy.get("live")
    return live if isinstance(live, Mapping) and not list(find_live_problems(live)) else DEFAULT_LIVE


def judge_live(
    recent: Tally, whole: Tally, policy: Mapping[str, Any], *, is_fallback: bool = False
) -> list[LiveOutcome]:
    """The outcome of every live gate, on the `recent` predictions or on the `whole` of the revision."""
    thresholds = get_live_thresholds(policy)
    return [
        LiveOutcome(
            gate.name,
            gate.is_tripwire,
            gate.judge(whole if gate.covers_revision else recent, thresholds.get(gate.name, {})),
        )
        for gate in LIVE_GATES.values()
        if not is_fallback or gate.name in FALLBACK_LIVE_GATES
    ]


def count_needed_predictions(policy: Mapping[str, Any], *, is_fallback: bool = False) -> int:
    """How many predictions of a coin by one bot every live gate has a result for; until then some are collecting."""
    thresholds = get_live_thresholds(policy)
    names = FALLBACK_LIVE_GATES if is_fallback else LIVE_GATES
    return int(max((thresholds[name]["predictions"] for name in names if name in thresholds), default=1))


def find_live_problems(live: object) -> Iterator[str]:
    """Everything that is wrong with a policy's live part."""
    if not isinstance(live, Mapping):
        yield "live must be a document"
        return
    for name in sorted(map(str, set(live) - set(DEFAULT_LIVE))):
        yield f"there is no live gate {name!r} with thresholds (known: {', '.join(DEFAULT_LIVE)})"
    for name in DEFAULT_LIVE:
        entry = live.get(name)
        if isinstance(entry, Mapping):
            yield from (f"live {name}: {problem}" for problem in LIVE_GATES[name].find_problems(entry))
        else:
            yield f"live {name} must be a document"


def _at_least(parameters: Parameters) -> str:
    return f"{parameters['predictions']:,.0f} predictions or more"


def _passed(figure: float, observed: str) -> Finding:
    return Finding(Verdict.PASSED, figure, observed, observed)


def _failed(figure: float, observed: str) -> Finding:
    return replace(_passed(figure, observed), verdict=Verdict.FAILED)


def _collecting(predictions: int, parameters: Parameters) -> Finding:
    observed = f"collecting: {predictions:,} of {parameters['predictions']:,.0f} predictions"
    return Finding(Verdict.INCONCLUSIVE, None, observed, observed)
