"""The reference of the 72 features and the label, generated from the formulas that compute them.

`python -m mlcore.features.reference docs/features.md` writes it as a file; the page *Features* shows the same sections.
Texts are Markdown without blocks: a renderer needs paragraphs and tables only.
"""

import ast
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlcore.constants import CLASSES
from mlcore.features import labels, splits, windows
from mlcore.features.indicators import (
    EMA_BARS,
    FORMULAS,
    LOOKBACK,
    PRICES,
    SCHEMAS,
    WARM_UP_BARS,
    WINDOW,
    Formula,
    Schema,
)
from mlcore.features.labels import LabelKind

TITLE = "Features and label"
LEAD = (
    "What a model sees of a bar, 72 features or a window of bars, and the class that it learns to predict. `make features`"
    " generates this page from the code that computes them, and a test computes every formula a second time."
)


@dataclass(frozen=True)
class Function:
    """A function of the notation. It reads its own bar and older ones, never a later one."""

    meaning: str
    reach: Callable[[int], int] = lambda n: n - 1
    """How many bars before its own it reads, by its second argument."""


FUNCTIONS = {
    "lag(x, n)": Function("x of n bars earlier", lambda n: n),
    "mean(x, n)": Function("mean of the last n values"),
    "sum(x, n)": Function("sum of the last n values"),
    "std(x, n)": Function("sample standard deviation of the last n values (divisor n − 1)"),
    "highest(x, n)": Function("greatest of the last n values"),
    "lowest(x, n)": Function("least of the last n values"),
    "ema(x, n)": Function(
        "exponential mean: a value of age k has the weight (1 − 2 / (n + 1))^k, divided by the sum of the weights. "
        + "Only so many values count: "
        + ", ".join(f"{bars:,} for n = {n}" for n, bars in EMA_BARS.items()),
        lambda n: EMA_BARS[n] - 1,
    ),
    "positive(x)": Function("x, and 0 where x is negative"),
    "abs(x)": Function("x without its sign"),
    "ln(x)": Function("natural logarithm"),
}
_REACHES = {signature.partition("(")[0]: function.reach for signature, function in FUNCTIONS.items()}


@dataclass(frozen=True)
class Table:
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class Section:
    title: str
    paragraphs: tuple[str, ...]
    tables: list[Table] = field(default_factory=list)


def count_bars(text: str) -> int:
    """How many bars a formula reads, of which the last is its own.

    Raises ValueError for anything but prices, features, numbers and FUNCTIONS, so also for what would read a later bar.
    """
    return 1 + _find_reach(ast.parse(text, mode="eval").body)


def _find_reach(node: ast.expr) -> int:
    """The number of bars before its own that an expression reads."""
    match node:
        case ast.Constant():
            return 0
        case ast.Name(id=name) if name in PRICES:
            return 0
        case ast.Name(id=name) if name in FORMULAS:
            return count_bars(FORMULAS[name].text) - 1
        case ast.BinOp(left=left, right=right):
            return max(_find_reach(left), _find_reach(right))
        case ast.Call(func=ast.Name(id=name), args=[value]) if name in _REACHES:
            return _find_reach(value)
        case ast.Call(func=ast.Name(id=name), args=[value, ast.Constant(value=int(n))]) if name in _REACHES:
            return _find_reach(value) + _REACHES[name](n)
    raise ValueError(f"{ast.unparse(node)} is no part of a formula")


def list_sections() -> list[Section]:
    """The whole reference."""
    raw, relative = SCHEMAS["raw72"], SCHEMAS["relative72"]
    return [
        _describe_notation(),
        Section(
            "Why no feature looks ahead",
            (
                "Every function above reads its own bar and older ones. A formula has no way to name a later bar, so none"
                f" can look ahead. The column *bars* is derived from the formula: “t − 19 … t” are the bar t and the 19"
                f" before it. No feature reads more than the [lookback](glossary.md#lookback) of {LOOKBACK:,} bars, and"
                " older candles do not change one bit of it.",
                "The service does not rely on this page. The gate *lookahead* computes every feature again with later"
                " candles cut off, from the candles of each model.",
            ),
        ),
        _describe_schema(
            raw, "Prices and indicators in their own units. The failed line `v6_enhanced` uses them."
        ),
        _describe_relative(relative, raw),
        _describe_windows(),
        _describe_scaling(),
        _describe_label(),
        _describe_kinds(),
        _describe_split(),
    ]


def _describe_notation() -> Section:
    return Section(
        "Notation",
        (
            "Units are those of the candles (*price*, *volume*), percent, or none (*ratio*). The column *range* gives what"
            " a value cannot lie beyond. Where a divisor can be 0, it also gives the value that is taken then. The first"
            f" {WARM_UP_BARS} bars of a history lack some feature, and are left out whatever the schema, so that all lines"
            " are fitted and judged on the same bars.",
            "A formula is computed for each bar from `open`, `high`, `low`, `close` and `volume` of that bar, from other"
            " features, and by these functions:",
        ),
        [
            Table(
                ("function", "meaning"),
                [(f"`{signature}`", function.meaning) for signature, function in FUNCTIONS.items()],
            )
        ],
    )


_HEAD = ("#", "feature", "formula", "bars", "unit", "range")


def _describe_schema(schema: Schema, about: str) -> Section:
    rows = [_describe_feature(number, name) for number, name in enumerate(schema.columns, start=1)]
    return Section(f"Schema {schema.name}", (_state_digest(schema), about), [Table(_HEAD, rows)])


def _describe_relative(schema: Schema, raw: Schema) -> Section:
    """Only what differs: the other rows are those of `raw`."""
    pairs = list(enumerate(zip(schema.columns, raw.columns, strict=True), start=1))
    rows = [(*_describe_feature(n, name), f"`{old}`") for n, (name, old) in pairs if name != old]
    about = (
        f"The lines `v5` and `v7_fixed` use it. It has the features of {raw.name} in the same order, but {len(rows)} that"
        f" depend on the level of price or volume are replaced by ratios, some of them of features of {raw.name}:"
    )
    return Section(
        f"Schema {schema.name}", (_state_digest(schema), about), [Table((*_HEAD, "replaces"), rows)]
    )


def _state_digest(schema: Schema) -> str:
    return (
        f"Names, order and lookback have the digest `{schema.digest}`, which bundles state and bots compare."
    )


def _describe_feature(number: int, name: str) -> tuple[str, ...]:
    formula = FORMULAS[name]
    before = count_bars(formula.text) - 1
    bars = f"t − {before:,} … t" if before else "t"
    return str(number), f"`{name}`", f"`{formula.text}`", bars, formula.unit, _describe_range(formula)


def _describe_range(formula: Formula) -> str:
    least, greatest = (format(value, ".4g").replace("-", "−") for value in (formula.least, formula.greatest))
    if math.isfinite(formula.least):
        text = f"{least} … {greatest}" if math.isfinite(formula.greatest) else f"from {least}"
    else:
        text = f"up to {greatest}" if math.isfinite(formula.greatest) else "any"
    return text if formula.undefined is None else f"{text}; {formula.undefined:g} if the divisor is 0"


def _describe_windows() -> Section:
    of = "of the bar of age k, from L − 1 to 0"
    rows = [
        *((name, f"`ln(lag({name}, k) / close)`", of) for name in windows.COLUMNS[:4]),
        ("volume", "`lag(volume, k) / mean(volume, L)`", f"{of}; 0 if there was no volume"),
    ]
    return Section(
        f"Schema {WINDOW}L",
        (
            f"The last L bars as they are, {windows.MIN_BARS} to {windows.MAX_BARS:,}: `{WINDOW}64` is a window of 64 bars."
            " A row is float32 [L, 5], the oldest bar first. A graph computes features of its own from it. They cannot look"
            " ahead, since a window ends with its bar, and cannot differ between training and bot.",
            f"Names, order and L have a digest, as those of the features have. A prediction needs L bars. The first L − 1"
            f" bars of a history have no window, and at least {WARM_UP_BARS} are left out.",
        ),
        [Table(("column", "formula", "value"), rows)],
    )


def _describe_scaling() -> Section:
    return Section(
        "Scaling",
        (
            "Features are stored as float32. A network sees `(feature − mean) / scale`, where mean and standard deviation"
            " are those of the [fit window](glossary.md#fit-window). A feature that never moved there is divided by 1. The"
            " figures are inside the model's graph, so a bot passes the features as they are above. A window has a mean and"
            " a scale for each of its five columns, over all its bars.",
        ),
    )


def _describe_label() -> Section:
    cuts = ("below the lower cut", "between the cuts, or on one", "above the upper cut")
    return Section(
        "Label",
        (
            "Unless a launch says otherwise, the label of bar t is the class of the return of the next"
            f" {labels.HORIZON_BARS} bars (the [horizon](glossary.md#horizon)), in units of the volatility that was known"
            f" at t: the sample standard deviation of the last {labels.VOLATILITY_BARS} log returns, times the root of the"
            " horizon. `ahead(x, n)` is"
            " x of n bars later, which only a label may read.",
            f"`{labels.FORMULA}`",
            f"The first {labels.VOLATILITY_BARS} bars of a history and the last {labels.HORIZON_BARS} have no label, nor"
            f" have bars before which the price stood still for {labels.VOLATILITY_BARS} bars. They are left out of all"
            " windows.",
            "The cuts are the terciles of these returns in the fit window (1/3 and 2/3, with linear interpolation), so that"
            " each class holds a third of its rows. Stop and gate window are cut at the same two values:",
        ),
        [
            Table(
                ("class", "direction", "scaled return"),
                [
                    (str(number), name, cut)
                    for number, (name, cut) in enumerate(zip(CLASSES, cuts, strict=True))
                ],
            )
        ],
    )


def _describe_kinds() -> Section:
    percent, barriers = (labels.CUT_BOUNDS[kind] for kind in (LabelKind.PERCENT, LabelKind.BARRIERS))
    rows = [
        (f"`{LabelKind.TERCILES}`", "the return above, over the horizon", "terciles of the fit window"),
        (
            f"`{LabelKind.PERCENT}`",
            f"`{labels.PERCENT_FORMULA}`, over the horizon",
            f"−c and c, of {percent[0]:g} to {percent[1]:g} percent",
        ),
        (
            f"`{LabelKind.BARRIERS}`",
            "the first barrier that a high or a low crosses, in units of the volatility over the horizon",
            f"−c and c, of {barriers[0]:g} to {barriers[1]:g} volatilities",
        ),
    ]
    return Section(
        "Kinds of labels",
        (
            f"A launch chooses the horizon, {labels.MIN_HORIZON_BARS} to {labels.MAX_HORIZON_BARS} bars, and one of three"
            " kinds. Each gives a bar an outcome and two cuts, and the class follows from them as above. Manifest, gates and"
            " pages name the label of each model, and its gates judge by it.",
            "Barriers are the triple barrier of López de Prado (Advances in Financial Machine Learning, 2018, chapter 3)."
            " They lie c units above and below the close of t, and the third is the end of the horizon. A bar is up if a"
            " high crosses the upper barrier first, down if a low crosses the lower one first, and neutral if none is"
            " crossed. It is neutral too if one bar crosses both, since nobody knows which came first.",
            f"All kinds leave out the same bars: those before which the price stood still for {labels.VOLATILITY_BARS} bars,"
            " the first ones, and the last ones of the horizon. A label is refused if a class has no bar in the fit window.",
        ),
        [Table(("kind", "outcome", "cuts"), rows)],
    )


def _describe_split() -> Section:
    return Section(
        "Split",
        (
            f"The oldest {splits.FIT_PERCENT} % of the rows are the fit window, the next {splits.STOP_PERCENT} % the stop"
            " window, the rest the gate window, unless a launch says otherwise. As many rows as the label looks ahead are"
            " left out before each border ([purge](glossary.md#purge)), since their labels read beyond it:"
            f" {labels.HORIZON_BARS} by default. No embargo is needed, since nothing is fitted on what lies after the gate"
            " window.",
            "The blocks of the [block bootstrap](glossary.md#block-bootstrap) follow the horizon too. They hold at least"
            " nine horizons, and never fewer bars than for the default label.",
        ),
    )


def render_markdown() -> str:
    parts = [f"# {TITLE}", LEAD]
    for section in list_sections():
        parts += [f"## {section.title}", *section.paragraphs, *map(_render_table, section.tables)]
    return "\n\n".join(parts) + "\n"


def _render_table(table: Table) -> str:
    lines = [table.head, tuple("---" for _ in table.head), *table.rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render_markdown())
